"""Downloads: whole or not at all, resumed, verified, locked; the server misbehaves on demand."""

import gzip
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.refusals import refused
from tests.servers import PAGE, UNAVAILABLE, Fault, Server, redirect

from morebench.data import progress, web
from morebench.data.download import Remote, cache_folder, download
from morebench.data.lock import Entry, Listing, read_listings, read_lock, write_lock

pytestmark = pytest.mark.faults

SIZE = 8 << 20
NAME = "geo/GSE1_counts.bin"
SPAWN = multiprocessing.get_context("spawn")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def content():
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def put(tmp_path):
    """Lay a file out on the server."""

    def write(content, name=NAME):
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def serve(tmp_path, put, content):
    """Start a server that has the file ``NAME``."""
    servers = []

    def start(faults=(), **more):
        if not servers:
            put(content)
        server = Server(tmp_path / "served", {NAME: faults, **more.pop("by_path", {})}, **more)
        servers.append(server)
        return server.__enter__()

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def get(tmp_path):
    """Download with no pause; return the path of the last file."""

    def run(*remotes, **more):
        more = {"backoff": 0.0, "progress": False} | more
        return download(remotes, tmp_path / "cache", tmp_path / "data.lock", **more)[-1]

    return run


@pytest.fixture
def stored(tmp_path):
    """Return the names of all files of the cache but the guards."""

    def names():
        folder = tmp_path / "cache"
        found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        return sorted(str(p) for p in found if p.parts[0] != ".guards")

    return names


@pytest.fixture
def pauses(monkeypatch):
    """Collect the pauses that a download would make."""
    made = []
    monkeypatch.setattr(web, "time", SimpleNamespace(sleep=made.append))
    return made


def remote(server, name=NAME, **more):
    return Remote((f"{server.url}/{name}",), name, **more)


# --- a file that arrives ----------------------------------------------------------------


def test_a_file_is_fetched_once_and_locked(serve, get, stored, content, tmp_path):
    server = serve()
    path = get(remote(server))
    assert path == tmp_path / "cache" / NAME
    assert path.read_bytes() == content
    assert stored() == [NAME]
    entry = {"url": f"{server.url}/{NAME}", "size": SIZE, "sha256": sha256(content)}
    assert json.loads((tmp_path / "data.lock").read_text()) == {NAME: entry}
    assert get(remote(server)) == path
    assert server.bytes_sent[NAME] == SIZE and len(server.ranges[NAME]) == 1


def test_files_come_back_in_their_order(serve, put, tmp_path):
    server = serve()
    for name in ("b.txt", "a.txt"):
        put(name.encode(), name)
    remotes = [remote(server, name) for name in ("b.txt", NAME, "a.txt")]
    paths = download(remotes, tmp_path / "cache", tmp_path / "data.lock", progress=False)
    assert [str(p.relative_to(tmp_path / "cache")) for p in paths] == ["b.txt", NAME, "a.txt"]
    assert list(json.loads((tmp_path / "data.lock").read_text())) == ["a.txt", "b.txt", NAME]


def test_a_redirect_is_followed(serve, get, content):
    server = serve(by_path={"moved": [redirect(f"/{NAME}")]})
    assert get(Remote((f"{server.url}/moved",), NAME)).read_bytes() == content


def test_a_chunked_file_needs_no_length(serve, get, content):
    assert get(remote(serve([Fault(chunked=True)]))).read_bytes() == content


def test_a_gz_file_is_stored_as_it_is_whatever_its_coding_is_called(serve, put, get):
    packed = gzip.compress(b"gene,count\n" * 1000)
    put(packed, "a.csv.gz")
    coded = Fault(headers={"Content-Encoding": "x-gzip"})
    server = serve(by_path={"a.csv.gz": [coded]})
    assert get(remote(server, "a.csv.gz")).read_bytes() == packed


# --- attempts -----------------------------------------------------------------------------


def test_busy_servers_are_asked_again_with_doubled_pauses(serve, get, content, pauses):
    server = serve([UNAVAILABLE] * 3)
    assert get(remote(server), backoff=0.5).read_bytes() == content
    assert pauses == [0.5, 1.0, 2.0]


def test_the_servers_own_pause_is_kept(serve, get, content, pauses):
    at = formatdate(time.time() + 100, usegmt=True)
    asks = [Fault(status=429, headers={"Retry-After": text}) for text in ("7", at, "soon")]
    assert get(remote(serve(asks)), backoff=0.5).read_bytes() == content
    assert pauses[0] == 7 and 50 < pauses[1] <= 100 and pauses[2] == 2.0


def test_a_pause_of_hours_is_no_pause(serve, get, pauses):
    server = serve([Fault(status=503, headers={"Retry-After": "7200"})])
    refused(lambda: get(remote(server)), NAME, "503", "asks to wait 7,200 s")
    assert pauses == []


def test_attempts_end(serve, get, stored, tmp_path, pauses):
    server = serve([UNAVAILABLE] * 9)
    refused(lambda: get(remote(server), retries=4), NAME, f"{server.url}/{NAME}", "503")
    assert len(server.ranges[NAME]) == 5
    assert stored() == [] and not (tmp_path / "data.lock").exists()


def test_a_missing_file_is_not_asked_for_twice(serve, get):
    server = serve()
    refused(lambda: get(remote(server, "geo/none.bin")), "geo/none.bin", "404")
    assert len(server.ranges["geo/none.bin"]) == 1


def test_nobody_listens(serve, get):
    with Server(".") as gone:
        pass
    refused(lambda: get(remote(gone), retries=1), NAME, "refused")


def test_mirrors_take_over_in_their_order(serve, get, content, tmp_path):
    server = serve(by_path={"a": [Fault(status=500, body=b"")] * 2})
    urls = tuple(f"{server.url}/{name}" for name in ("a", "absent", NAME, "last"))
    assert get(Remote(urls, NAME), retries=1).read_bytes() == content
    assert [len(server.ranges[n]) for n in ("a", "absent", NAME, "last")] == [2, 1, 1, 0]
    assert read_lock(tmp_path / "data.lock")[NAME].url == urls[2]


# --- resuming -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [
    Fault(cut=5 << 20),
    Fault(cut=5 << 20, stall=1.5),
    Fault(cut=5 << 20, headers={"ETag": None}),
])  # fmt: skip
def test_what_has_arrived_is_not_sent_again(serve, get, stored, content, fault):
    server = serve([fault])
    assert get(remote(server), timeout=0.5).read_bytes() == content
    assert server.bytes_sent[NAME] <= 1.05 * SIZE
    assert server.ranges[NAME] == [None, f"bytes={5 << 20}-"]
    assert stored() == [NAME]


def test_many_drops_with_progress_are_no_failure(serve, get, content):
    server = serve([Fault(cut=2 << 20)] * 3)
    assert get(remote(server), retries=1).read_bytes() == content
    assert server.bytes_sent[NAME] == SIZE


def fetch_in_child(url, cache, lock):
    download([Remote((url,), NAME)], cache, lock, progress=False, backoff=0.01)


def test_a_killed_download_goes_on_where_it_was(serve, get, stored, content, tmp_path):
    server = serve([Fault(pause=0.05)])  # what is under way when it ends is sent again
    url, part = f"{server.url}/{NAME}", tmp_path / "cache" / f"{NAME}.part"
    child = SPAWN.Process(
        target=fetch_in_child, args=(url, tmp_path / "cache", tmp_path / "data.lock")
    )
    child.start()
    while not part.exists() or part.stat().st_size < SIZE // 4:
        time.sleep(0.002)
        assert child.is_alive()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert stored() == [f"{NAME}.part", f"{NAME}.part.json"]
    held = part.stat().st_size
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None, f"bytes={held}-"]
    assert server.bytes_sent[NAME] <= 1.05 * SIZE
    assert stored() == [NAME]


def test_killed_between_the_last_byte_and_its_name(serve, get, stored, content, monkeypatch):
    server = serve()
    replace = os.replace

    def die(source, target):
        if str(source).endswith(".part"):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", die)
        get(remote(server))
    assert get(remote(server)).read_bytes() == content
    assert len(server.ranges[NAME]) == 1 and stored() == [NAME]


def test_a_server_without_ranges_sends_all_of_it_again(serve, get, stored, content):
    server = serve([Fault(cut=3 << 20), Fault(ranges=False)])
    assert get(remote(server)).read_bytes() == content
    assert server.bytes_sent[NAME] == SIZE + (3 << 20)
    assert stored() == [NAME]


def test_drops_without_ranges_end(serve, get):
    server = serve([Fault(cut=3 << 20, ranges=False)] * 9)
    refused(lambda: get(remote(server), retries=2), NAME, "3,145,728")
    assert len(server.ranges[NAME]) == 3  # the first one got on


def test_a_file_that_changes_between_attempts_is_never_mixed(serve, put, get, content):
    server = serve([Fault(cut=5 << 20)] + [UNAVAILABLE] * 3)
    refused(lambda: get(remote(server), retries=1))
    new = put(content[::-1])
    assert get(remote(server)).read_bytes() == new.read_bytes()
    assert server.ranges[NAME][-1] == f"bytes={5 << 20}-"


def test_a_server_that_ignores_if_range_is_found_by_its_etag(serve, get, content):
    server = serve([Fault(cut=5 << 20), Fault(headers={"ETag": '"new"'})])
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None, f"bytes={5 << 20}-", None]


def test_without_validators_only_a_known_hash_lets_it_go_on(serve, put, get, content):
    silent = {"ETag": None, "Last-Modified": None}
    server = serve([Fault(cut=5 << 20, headers=silent)])
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None, None]
    put(content, "b.bin")
    server.faults["b.bin"] = [Fault(cut=5 << 20, headers=silent)]
    get(remote(server, "b.bin", sha256=sha256(content)))
    assert server.ranges["b.bin"] == [None, f"bytes={5 << 20}-"]


def test_a_mixture_that_only_the_hash_tells_is_fetched_anew(serve, put, get, content):
    silent = {"ETag": None, "Last-Modified": None}
    server = serve([Fault(cut=5 << 20, headers=silent, body=content[::-1])])
    assert get(remote(server, sha256=sha256(content))).read_bytes() == content
    assert server.ranges[NAME] == [None, f"bytes={5 << 20}-", None]


def test_a_mirror_goes_on_with_a_known_hash(serve, put, get, content):
    put(content, "mirror.bin")
    server = serve([Fault(cut=5 << 20), *[Fault(status=500)] * 2])
    urls = (f"{server.url}/{NAME}", f"{server.url}/mirror.bin")
    path = get(Remote(urls, NAME, sha256=sha256(content)), retries=1)
    assert path.read_bytes() == content
    assert server.bytes_sent["mirror.bin"] == SIZE - (5 << 20)


def test_a_part_whose_version_is_cut_short_begins_anew(serve, get, content, tmp_path):
    part = tmp_path / "cache" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    part.with_name(part.name + ".json").write_text('{"url": "htt')
    server = serve()
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None]


def test_a_server_may_send_less_than_was_asked_for(serve, get, content):
    server = serve([Fault(cut=3 << 20), Fault(headers={"Content-Length": "1000000"})])
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None, f"bytes={3 << 20}-", f"bytes={(3 << 20) + 1_000_000}-"]


def test_a_weak_etag_is_no_validator_but_the_date_is(serve, get, content):
    weak = {"ETag": 'W/"1"'}
    server = serve([Fault(cut=3 << 20, headers=weak), Fault(headers=weak)])
    assert get(remote(server)).read_bytes() == content
    assert server.bytes_sent[NAME] == SIZE


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=200_000), cuts=st.lists(st.integers(0, 120_000), max_size=4))
@example(b"", [0, 1, 1])
def test_any_cuts_give_the_same_file_with_no_byte_twice(tmp_path_factory, data, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    packed = gzip.compress(data, 0)
    (folder / "served").mkdir()
    (folder / "served/f.gz").write_bytes(packed)
    with Server(folder / "served", {"f.gz": [Fault(cut=c) for c in cuts]}) as server:
        (path,) = download(
            [remote(server, "f.gz")], folder / "c", folder / "l", progress=False, backoff=0
        )
    assert path.read_bytes() == packed
    assert server.bytes_sent["f.gz"] == len(packed)


# --- files that are not what they should be -------------------------------------------------


def test_a_wrong_hash_names_both_and_what_to_do(serve, get, stored, content, tmp_path):
    server = serve()
    expected = "0" * 64
    refused(lambda: get(remote(server, sha256=expected)),
            NAME, expected, sha256(content), "if the source changed it on purpose")  # fmt: skip
    assert stored() == [] and not (tmp_path / "data.lock").exists()


def test_a_mirror_with_the_right_bytes_wins(serve, put, get, content):
    put(content[::-1], "bad.bin")
    server = serve()
    urls = (f"{server.url}/bad.bin", f"{server.url}/{NAME}")
    assert get(Remote(urls, NAME, sha256=sha256(content))).read_bytes() == content


def test_a_wrong_size_is_refused_before_the_transfer(serve, get, stored):
    server = serve()
    refused(lambda: get(remote(server, size=SIZE + 1)), NAME, "8,388,608", "8,388,609")
    assert stored() == []


def test_a_length_beyond_the_file_never_makes_it_whole(serve, get, stored):
    lie = Fault(headers={"Content-Length": str(SIZE + 1000)})
    server = serve([lie] * 9)
    refused(lambda: get(remote(server), retries=3), NAME, "ends before byte 8,388,608")
    assert stored() == []


def test_a_length_short_of_the_file_is_found_by_hash_or_by_gzip(serve, put, get, stored, content):
    packed = gzip.compress(content[: 1 << 20])
    put(packed, "a.gz")
    lie = Fault(headers={"Content-Length": "1000"})
    server = serve([lie], by_path={"a.gz": [lie]})
    refused(lambda: get(remote(server, sha256=sha256(content))), NAME, sha256(content[:1000]))
    refused(lambda: get(remote(server, "a.gz")), "a.gz", "cut short")
    assert stored() == []


def test_a_body_that_ends_when_the_connection_does_needs_a_hash(serve, get, content):
    endless = Fault(headers={"Content-Length": None})
    server = serve([endless] * 2)
    refused(lambda: get(remote(server)), NAME, "states no size")
    assert get(remote(server, sha256=sha256(content))).read_bytes() == content


def test_a_chunked_body_that_is_cut_is_not_whole(serve, get, content):
    server = serve([Fault(chunked=True, cut=1 << 20)])
    assert get(remote(server)).read_bytes() == content


def test_a_body_beyond_the_known_size_is_refused(serve, get, stored):
    server = serve([Fault(chunked=True)])
    refused(lambda: get(remote(server, size=1000)), NAME, "more than the expected 1,000")
    assert stored() == []


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tar", "a.h5ad", "a.csv", "a.mtx"])
def test_an_error_page_is_no_data(serve, get, stored, tmp_path, name):
    server = serve(by_path={name: [PAGE]})
    refused(lambda: get(remote(server, name)), name, "HTML page", "text/html")
    assert stored() == [] and not (tmp_path / "data.lock").exists()


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tar", "a.h5", "a.xlsx"])
def test_the_first_bytes_must_fit_the_name(serve, put, get, stored, name):
    put(b'{"error": "quota"}' * 50, name)
    refused(lambda: get(remote(serve(), name)), name, "holds b", "file has b")
    assert stored() == []


def test_an_empty_file_is_refused(serve, put, get, stored):
    put(b"", "a.txt")
    refused(lambda: get(remote(serve(), "a.txt")), "a.txt", "empty")
    assert stored() == []


def test_a_file_in_another_form_is_refused(serve, put, get):
    put(b"a,b\n", "a.csv")
    server = serve(by_path={"a.csv": [Fault(headers={"Content-Encoding": "gzip"})]})
    refused(lambda: get(remote(server, "a.csv")), "a.csv", "Content-Encoding: gzip")


def test_redirects_in_a_circle_end(serve, get):
    server = serve(by_path={"a": [redirect("/b")] * 99, "b": [redirect("/a")] * 99})
    refused(lambda: get(Remote((f"{server.url}/a",), NAME)), NAME, "redirects more than 10 times")


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """Return a server context, whose certificate requests trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not there")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
               "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return context


def test_https_does_not_lead_to_http(serve, get, stored, content, tls):
    plain = serve()
    safe = serve(tls=tls, by_path={"a": [redirect(f"{plain.url}/{NAME}")], "b": [redirect(NAME)]})
    refused(lambda: get(Remote((f"{safe.url}/a",), NAME)), NAME, "HTTPS", plain.url)
    assert stored() == [] and plain.bytes_sent[NAME] == 0
    assert get(Remote((f"{safe.url}/b",), NAME)).read_bytes() == content


def test_a_certificate_that_nobody_signed_is_refused(serve, get, tls, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    server = serve(tls=tls)
    refused(lambda: get(remote(server)), NAME, "no valid certificate")


def test_a_handshake_that_breaks_off_is_tried_again(get):
    """A server that hangs up as TLS begins: nothing says that its certificate is wrong."""
    met = []

    def hang_up(listener):
        for _ in range(2):
            connection, _ = listener.accept()
            met.append(connection.recv(1) == b"\x16")  # the first byte of a handshake
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,), daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/{NAME}"
        text = refused(lambda: get(Remote((url,), NAME), retries=1), NAME, "(attempt 2)")
        thread.join(10)
    assert met == [True, True] and "certificate" not in text


# --- the cache and the lock -------------------------------------------------------------------


def test_the_lock_is_enforced_until_its_entry_is_deleted(
    serve, put, get, stored, content, tmp_path
):
    server, lock = serve(), tmp_path / "data.lock"
    get(remote(server)).unlink()
    put(content[::-1])
    refused(lambda: get(remote(server)), NAME, sha256(content), sha256(content[::-1]),
            f"delete the entry of {NAME} in {lock}")  # fmt: skip
    assert stored() == []
    lock.write_text("{}")
    assert get(remote(server)).read_bytes() == content[::-1]
    assert read_lock(lock)[NAME].sha256 == sha256(content[::-1])


def test_a_locked_size_is_refused_before_the_transfer(serve, put, get, content, tmp_path):
    server = serve()
    get(remote(server)).unlink()
    put(content[:-1])
    text = refused(lambda: get(remote(server)), NAME, "offers 8,388,607", sha256(content))
    assert f"delete the entry of {NAME} in {tmp_path / 'data.lock'}" in text


@pytest.mark.parametrize("same_size", [True, False])
def test_a_damaged_cached_file_is_found(serve, get, content, same_size):
    server = serve()
    path = get(remote(server))
    damaged = content[:-1] + bytes([content[-1] ^ 1]) if same_size else content[:-1]
    path.write_bytes(damaged)
    text = refused(lambda: get(remote(server)), NAME, sha256(content), sha256(damaged))
    assert f"delete {path} to have it downloaded again" in text
    path.unlink()
    assert get(remote(server)).read_bytes() == content


def test_configuration_and_lock_must_agree(serve, get):
    server = serve()
    get(remote(server))
    refused(lambda: get(remote(server, sha256="1" * 64)), NAME, "1" * 64, "the configuration")
    refused(lambda: get(remote(server, size=5)), NAME, "expects size 5")


def test_an_institutes_mirror_gives_the_locked_file(serve, get, content, tmp_path):
    first = serve()
    get(remote(first)).unlink()
    entry = read_lock(tmp_path / "data.lock")
    other = serve()
    assert get(remote(other)).read_bytes() == content
    assert other.bytes_sent[NAME] == SIZE and read_lock(tmp_path / "data.lock") == entry


def test_offline_names_the_file_and_where_to_get_it(serve, get, content, tmp_path):
    server = serve()
    path = tmp_path / "cache" / NAME
    refused(lambda: get(remote(server), offline=True), "offline", str(path), f"{server.url}/{NAME}")
    assert server.ranges[NAME] == []
    path.parent.mkdir(parents=True)
    path.write_bytes(content)  # by hand
    assert get(remote(server), offline=True) == path
    assert read_lock(tmp_path / "data.lock")[NAME].sha256 == sha256(content)
    assert server.ranges[NAME] == []


def test_a_page_saved_by_hand_is_no_data(get, tmp_path):
    path = tmp_path / "cache" / "a.tar.gz"
    path.parent.mkdir()
    path.write_bytes(PAGE.body)
    wanted = Remote(("https://example.org/a.tar.gz",), "a.tar.gz")
    refused(lambda: get(wanted, offline=True), "a.tar.gz", "HTML page", f"delete {path}")


@pytest.mark.parametrize("size", [SIZE, None])
def test_the_disk_must_have_room(serve, get, stored, monkeypatch, size):
    server = serve()
    usage = shutil.disk_usage(".")._replace(free=SIZE - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused(lambda: get(remote(server, size=size)), "8,388,608", "8,388,607 are free")
    assert stored() == []
    assert len(server.ranges[NAME]) == (0 if size else 1)


def fetch_with_limit(url, cache, lock, limit, words):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    refused(lambda: download([Remote((url,), NAME)], cache, lock, progress=False), *words)


def test_a_disk_that_fills_up_is_an_error_and_the_next_run_goes_on(serve, get, content, tmp_path):
    server = serve()
    words = ("File too large", "make room")
    child = SPAWN.Process(target=fetch_with_limit, args=(
        f"{server.url}/{NAME}", tmp_path / "cache", tmp_path / "data.lock", 5 << 20, words
    ))  # fmt: skip
    child.start()
    child.join()
    assert child.exitcode == 0
    assert get(remote(server)).read_bytes() == content
    assert server.ranges[NAME] == [None, f"bytes={5 << 20}-"]


def test_two_processes_fetch_a_file_once(serve, stored, content, tmp_path):
    server = serve([Fault(pause=0.005)])
    arguments = (f"{server.url}/{NAME}", tmp_path / "cache", tmp_path / "data.lock")
    children = [SPAWN.Process(target=fetch_in_child, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert server.bytes_sent[NAME] == SIZE and stored() == [NAME]
    assert (tmp_path / "cache" / NAME).read_bytes() == content


def add_to_lock(path, worker):
    for i in range(20):
        name = f"w{worker}-{i}"
        write_lock(path, {name: Entry("https://example.org", 1 + i, f"{worker:064d}")})


def test_many_processes_write_the_lock(tmp_path):
    path = tmp_path / "data.lock"
    children = [SPAWN.Process(target=add_to_lock, args=(path, w)) for w in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    entries = read_lock(path)
    assert sorted(entries) == sorted(f"w{w}-{i}" for w in range(3) for i in range(20))
    assert entries["w2-7"] == Entry("https://example.org", 8, f"{2:064d}")


def test_two_first_uses_with_different_bytes_are_an_error(tmp_path):
    path = tmp_path / "data.lock"
    write_lock(path, {"a": Entry("u", 1, "1" * 64)})
    before = path.read_bytes()
    write_lock(path, {"a": Entry("mirror", 1, "1" * 64)})
    assert path.read_bytes() == before
    refused(lambda: write_lock(path, {"b": Entry("u", 1, "3" * 64), "a": Entry("u", 1, "2" * 64)}),
            "a:", "1" * 64, "2" * 64, str(path))  # fmt: skip
    assert path.read_bytes() == before
    write_lock(path, {"a*": Listing("u", ("a1", "a2"))})
    write_lock(path, {"a*": Listing("mirror", ("a1", "a2"))})
    assert read_listings(path) == {"a*": Listing("u", ("a1", "a2"))}
    assert read_lock(path) == {"a": Entry("u", 1, "1" * 64)}
    refused(lambda: write_lock(path, {"a*": Listing("u", ("a1",))}), "a*:", "a1, a2", str(path))


def test_a_lock_or_a_cache_that_cannot_be_written_is_named(serve, get, content, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    lock = tmp_path / "data.lock"
    refused(lambda: read_lock(tmp_path), str(tmp_path), "cannot be read")
    (tmp_path / ".data.lock.guard").mkdir()
    refused(lambda: write_lock(lock, {NAME: Entry("u", 1, "1" * 64)}), str(lock), NAME, "writable")
    cache = tmp_path / "file" / "cache"
    refused(lambda: download([remote(serve())], cache, tmp_path / "data.lock"), str(cache))


@pytest.mark.parametrize("text, words", [
    ("{", ("not JSON",)),
    ("[]", ("list",)),
    ('{"a": {"url": "u", "size": 1}}', ("a holds", "sha256, size, url")),
    ('{"a": {"url": "u", "size": true, "sha256": "' + "1" * 64 + '"}}', ("size of a", "True")),
    ('{"a": {"url": "u", "size": 1, "sha256": "' + "A" * 64 + '"}}', ("sha256 of a", "A" * 64)),
    ('{"a*": {"files": ["a"]}}', ("a* holds", "files, url")),
    ('{"a*": {"url": "u", "files": [".."]}}', ("files of a*", "..")),
    ('{"a*": {"url": "u", "files": []}}', ("files of a*", "[]")),
    ('{"a*": {"url": "u", "files": ["b", "a"]}}', ("files of a*", "sorted")),
    ('{"a*": {"url": "u", "files": ["../a"]}}', ("files of a*", "../a")),
    ('{"a": {"url": 1, "size": 1, "sha256": "' + "1" * 64 + '"}}', ("url of a", "1")),
])  # fmt: skip
def test_a_broken_lock_is_named(tmp_path, text, words):
    path = tmp_path / "data.lock"
    path.write_text(text)
    refused(lambda: read_lock(path), str(path), *words)


# --- what is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../a", "a/../b", "a//b", "a/"])
def test_a_name_stays_in_the_cache(name):
    refused(lambda: Remote(("https://example.org",), name), repr(name), "valid")


@pytest.mark.parametrize("change, words", [
    ({"urls": ()}, ("a.h5", "no URL")),
    ({"urls": ("ftp://example.org/a.h5",)}, ("a.h5", "'ftp://example.org/a.h5'", "https://")),
    ({"sha256": "abc"}, ("a.h5", "'abc'", "64")),
])  # fmt: skip
def test_a_remote_is_checked(change, words):
    good = {"urls": ("https://example.org/a.h5",), "name": "a.h5"}
    assert Remote(**good).sha256 is None
    refused(lambda: Remote(**(good | change)), *words)


def test_one_name_is_one_file(get):
    a, b = (Remote((f"https://example.org/{x}",), "f.txt") for x in "ab")
    refused(lambda: get(a, b), "f.txt", "https://example.org/a", "https://example.org/b")


def test_the_cache_folder_is_configured_or_set_or_the_users(monkeypatch):
    for name, value in (("HOME", "/h"), ("XDG_CACHE_HOME", ""), ("MOREBENCH_CACHE", "")):
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == "/h/.cache/morebench"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/morebench"
    monkeypatch.setenv("MOREBENCH_CACHE", "~/c")
    assert str(cache_folder()) == "/h/c"
    assert str(cache_folder("data")) == "data"


def test_the_bar_is_for_terminals_only(monkeypatch, capsys):
    for tty in (False, True):
        monkeypatch.setattr(progress.sys.stderr, "isatty", lambda tty=tty: tty, raising=False)
        for shown in (False, True):
            with progress.bar("a[b].h5", shown) as report:
                report(512, 1024)
                report(1024, 1024)
            text = capsys.readouterr()
            assert text.out == ""
            assert ("a[b].h5" in text.err) == (tty and shown)
