"""Datasets from the web: addresses, what the configuration refuses, manifests, commands."""

import hashlib
import json
from pathlib import Path

import pytest
from tests.geo import downloads, lay_out
from tests.refusals import refused
from tests.servers import UNAVAILABLE, Fault, Server

from morebench import cli
from morebench.config import config_hash, load, resolved
from morebench.data.geo import list_files
from morebench.data.lock import Listing, read_listings, read_lock, write_lock
from morebench.data.manifest import fetched
from morebench.data.obtain import obtain
from morebench.data.remote import mirrored, remotes_of
from morebench.data.spec_source import Downloads
from morebench.errors import ConfigError, ContractError, DataError
from morebench.files import write_json
from morebench.preflight import check

READ = [{"files": "*", "format": "table", "rows": "genes"}]
GEO = {"accession": "GSE84133", "files": ["GSE84133_RAW.tar"]}
ID = "0041b9c3-6a49-4bf7-8514-9bc7190067a7"


def config_of(top=None, **dataset):
    content = {"datasets": {"d": {"read": READ, **dataset}}, "methods": {"pca": {}}, **(top or {})}
    if content["datasets"]["d"]["read"] is None:
        del content["datasets"]["d"]["read"]
    return content


def remotes(top=None, **dataset):
    config = load(config_of(top, **dataset))
    return remotes_of(config.datasets["d"], config.downloads, "d")


# --- addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accession", "folder"),
    [
        ("GSE84133", "series/GSE84nnn/GSE84133"),
        ("GSE194122", "series/GSE194nnn/GSE194122"),
        ("GSE123", "series/GSEnnn/GSE123"),
        ("GSM2230757", "samples/GSM2230nnn/GSM2230757"),
    ],
)
def test_files_of_geo_are_where_geo_has_them(accession, folder):
    (one,) = remotes(geo={"accession": accession, "files": ["a_RAW.tar"]})
    assert one.urls == (f"https://ftp.ncbi.nlm.nih.gov/geo/{folder}/suppl/a_RAW.tar",)
    assert one.name == f"geo/{accession}/a_RAW.tar"


def test_files_of_cellxgene_and_of_urls():
    (one,) = remotes(cellxgene={"dataset": ID}, read=None)
    assert one.urls == (f"https://datasets.cellxgene.cziscience.com/{ID}.h5ad",)
    assert one.name == f"cellxgene/{ID}.h5ad"
    urls = ["https://a.org/x/m.tsv.gz", "http://b.org:8080/get?id=3&f=n.csv"]
    one, two = remotes(url=urls, sha256={"m.tsv.gz": "a" * 64})
    assert (one.name, one.urls, one.sha256) == ("url/a.org/x/m.tsv.gz", (urls[0],), "a" * 64)
    assert (two.name, two.sha256) == ("url/b.org/get_id_3_f_n.csv", None)


def test_mirrors_are_tried_first_and_only_for_what_begins_so():
    mirrors = {"https://a.org/geo": ["https://m.org", "https://n.org/g"]}
    assert mirrored("https://a.org/geo/x.gz", mirrors) == (
        "https://m.org/x.gz", "https://n.org/g/x.gz", "https://a.org/geo/x.gz",
    )  # fmt: skip
    assert mirrored("https://a.org/geology/x.gz", mirrors) == ("https://a.org/geology/x.gz",)
    top = {"downloads": {"geo": "https://institute.org/ncbi/", "mirrors": {}}}
    (one,) = remotes(top, geo=GEO)
    assert one.urls[0].startswith("https://institute.org/ncbi/series/GSE84nnn/")


# --- what the configuration refuses -------------------------------------------------------

REFUSED = {
    "no source": ({}, ["exactly one of bundled, path, concat, geo, url, cellxgene", "none"]),
    "two sources": ({"geo": GEO, "path": "a"}, ["exactly one", "'path', 'geo'"]),
    "a name with a space": (
        {"geo": {**GEO, "files": ["a b.tar"]}},
        ["datasets.d.geo.files.0", "'a b.tar' is no file name", "morebench geo", "patterns"],
    ),
    "a bracket in a name": ({"geo": {**GEO, "files": ["a]b.tar"]}}, ["'a]b.tar' is no file name"]),
    "a name of no file": ({"geo": {**GEO, "files": [".."]}}, ["'..' is no file name"]),
    "a hash of a pattern": (
        {"geo": {**GEO, "files": ["*.tar"]}, "sha256": {"*.tar": "a" * 64}},
        ["datasets.d.sha256", "no file '*.tar'"],
    ),
    "a hash that no pattern fits": (
        {"geo": {**GEO, "files": ["*.tar"]}, "sha256": {"x.csv": "a" * 64}},
        ["datasets.d.sha256", "no file 'x.csv'", "*.tar"],
    ),
    "a folder in a name": ({"geo": {**GEO, "files": ["../x"]}}, ["'../x' is no file name"]),
    "no accession": ({"geo": {**GEO, "accession": "84133"}}, ["'84133'", "GSE84133 (a series)"]),
    "no reading": ({"geo": GEO, "read": None}, ["datasets.d", "geo needs 'read'"]),
    "a table of what": (
        {"geo": GEO, "read": [{"files": "*", "format": "table"}]},
        ["datasets.d.read.0", "rows (genes or cells)"],
    ),
    "another format's key": (
        {"geo": GEO, "read": [{"files": "*", "format": "h5", "barcodes": "x"}]},
        ["barcodes belongs to the format mtx, found h5"],
    ),
    "a pattern without a group": (
        {"geo": GEO, "from_id": {"donor": "^D"}},
        ["datasets.d.from_id.donor", "'^D' has 0 groups"],
    ),
    "no regular expression": (
        {"geo": GEO, "read": [{**READ[0], "sample": "("}]},
        ["datasets.d.read.0.sample", "'(' is no regular expression"],
    ),
    "an annotation nowhere": ({"geo": GEO, "annotation": [{}]}, ["exactly one of file", "path"]),
    "a hash of no file": (
        {"geo": GEO, "sha256": {"x.tar": "a" * 64}},
        ["datasets.d.sha256", "no file 'x.tar'", "GSE84133_RAW.tar"],
    ),
    "two files of a name": (
        {"url": ["https://a.org/1/m.tsv", "https://a.org/2/m.tsv"]},
        ["two files are called 'm.tsv'"],
    ),
    "no URL": ({"url": ["ftp://a.org/x"]}, ["datasets.d.url", "'ftp://a.org/x' is no URL"]),
    "no hash": (
        {"geo": GEO, "sha256": {"GSE84133_RAW.tar": "A" * 64}},
        ["datasets.d.sha256.GSE84133_RAW.tar", "is no SHA-256"],
    ),
    "a mirror that is none": (
        {"geo": GEO, "top": {"downloads": {"mirrors": {"https://a.org": ["a.org"]}}}},
        ["downloads.mirrors", "'a.org' is no URL"],
    ),
    "a layer of a table": ({"geo": GEO, "layer": "counts"}, ["layer belongs to the format h5ad"]),
    "a modality beside reading": (
        {"geo": GEO, "modality": "atac"},
        ["modality belongs into the entries of read"],
    ),
    "reading of simulated data": (
        {"bundled": "sim_multiome"},
        ["read belongs to a path of one file or folder"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_configuration_is_refused(case):
    changes, words = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        load(config_of(**changes))
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def test_where_files_come_from_is_no_part_of_what_names_a_run():
    one = load(config_of(geo=GEO))
    two = load(config_of({"downloads": {"offline": True, "cache": "/elsewhere"}}, geo=GEO))
    assert config_hash(one) == config_hash(two)
    assert "downloads" not in resolved(two)


def test_preflight_asks_for_files_of_the_web_offline_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(load(config_of({"downloads": {"cache": "none"}}, geo=GEO)))
    told = {"downloads": {"cache": "none", "offline": True}}
    offline = load(config_of(told, geo=GEO))
    words = ["1 of 1 files", "none/geo/GSE84133/GSE84133_RAW.tar from https://ftp.ncbi"]
    refused(lambda: check(offline), *words)
    (tmp_path / "results/prepared").mkdir(parents=True)
    (tmp_path / "results/prepared/d.h5mu").touch()  # what is prepared needs no files
    check(offline)


def test_what_was_fetched_before_the_lock_changed_is_told(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = told(server, tmp_path)
    config = load(config_of({"downloads": here.model_dump()}, geo=GEO))
    manifest = tmp_path / "results/downloads/d.json"
    manifest.parent.mkdir(parents=True)
    write_json(manifest, {"files": obtain(config.datasets["d"], here, "d")})
    check(config)
    lock, name = Path(here.lock), "geo/GSE84133/GSE84133_RAW.tar"
    content = json.loads(lock.read_text())
    old = content[name]["sha256"]
    content[name]["sha256"] = "0" * 64
    lock.write_text(json.dumps(content))
    words = ("results/downloads/d.json", name, old, "0" * 64, str(lock))
    refused(lambda: check(config), *words, "delete results/downloads/d.json")
    del content[name]
    lock.write_text(json.dumps(content))
    refused(lambda: check(config), name, "has no entry of it", "delete results/downloads/d.json")


# --- patterns -----------------------------------------------------------------------------

GENES = {"accession": "GSE96583", "files": ["GSE96583_batch*.genes.tsv.gz"]}
FITTING = ("GSE96583_batch1.genes.tsv.gz", "GSE96583_batch2.genes.tsv.gz")
FOLDER = "geo/series/GSE96nnn/GSE96583/suppl"


def names_of(files):
    return [file["name"].rsplit("/", 1)[-1] for file in files]


def test_a_pattern_is_the_files_that_fit_and_the_lock_keeps_them(server, tmp_path):
    dataset = load(config_of(geo=GENES, sha256={FITTING[0]: "0" * 64})).datasets["d"]
    here = told(server, tmp_path)
    refused(lambda: obtain(dataset, here, "d"), FITTING[0], "0" * 64)
    dataset = load(config_of(geo=GENES)).datasets["d"]
    files = obtain(dataset, here, "d")
    assert names_of(files) == list(FITTING)
    key = "geo/GSE96583/GSE96583_batch*.genes.tsv.gz"
    listing = Listing(f"{server.url}/{FOLDER}/", FITTING)
    assert read_listings(here.lock) == {key: listing}
    assert sorted(read_lock(here.lock)) == [f"geo/GSE96583/{name}" for name in FITTING]

    # what the series gets later is no part of the run, and offline needs no folder
    (server.folder / FOLDER / "GSE96583_batch3.genes.tsv.gz").write_bytes(b"new")
    lock = (tmp_path / "data.lock").read_bytes()
    assert obtain(dataset, told(server, tmp_path, offline=True), "d") == files
    assert obtain(dataset, here, "d") == files
    assert (tmp_path / "data.lock").read_bytes() == lock


def test_a_name_beside_a_pattern_that_fits_it_is_one_file(server, tmp_path):
    for files, expected in (
        ([FITTING[1], "GSE96583_batch[12].genes.tsv.gz", "*genes*"], [FITTING[1], FITTING[0]]),
        (["*genes*", FITTING[1], "GSE96583_RAW.tar"], [*FITTING, "GSE96583_RAW.tar"]),
    ):
        dataset = load(config_of(geo={**GENES, "files": files})).datasets["d"]
        assert names_of(obtain(dataset, told(server, tmp_path), "d")) == expected


def test_a_pattern_that_nothing_fits_names_what_is_there(server, tmp_path):
    dataset = load(config_of(geo={**GENES, "files": ["*.h5"]})).datasets["d"]
    words = ["d.geo.files", "'*.h5'", "no file of GSE96583 fits", "GSE96583_RAW.tar"]
    refused(lambda: obtain(dataset, told(server, tmp_path), "d"), *words)
    assert not (tmp_path / "data.lock").exists() and not (tmp_path / "cache").exists()


def test_a_name_that_leads_elsewhere_is_refused(server, tmp_path):
    page = Fault(body=b'<a href="..%2F..%2Fevil.genes.tsv.gz">x</a>')
    server.faults[FOLDER] = [page]
    dataset = load(config_of(geo={**GENES, "files": ["*genes*"]})).datasets["d"]
    words = ["'*genes*'", "../../evil.genes.tsv.gz", "narrow the pattern"]
    refused(lambda: obtain(dataset, told(server, tmp_path), "d"), *words)
    assert not (tmp_path / "data.lock").exists()


def test_offline_a_pattern_has_to_stand_in_the_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of({"downloads": {"offline": True, "lock": "data.lock"}}, geo=GENES)
    config["datasets"]["e"] = {"read": READ, "geo": GEO}
    words = ["datasets.d.geo.files", GENES["files"][0], "data.lock does not say", "suppl",
             "1 of 1 files", "GSE84133_RAW.tar"]  # fmt: skip
    refused(lambda: check(load(config)), *words)
    key = f"geo/GSE96583/{GENES['files'][0]}"
    write_lock("data.lock", {key: Listing("https://example.org", FITTING)})
    refused(lambda: check(load(config)), "3 of 3 files", FITTING[0], FITTING[1])


def test_a_busy_folder_is_asked_again(server, tmp_path):
    server.faults[FOLDER] = [UNAVAILABLE, Fault(cut=20)]
    here = told(server, tmp_path, retries=2, backoff=0.01)
    assert "GSE96583_RAW.tar" in list_files("GSE96583", here).files
    assert server.faults[FOLDER] == []
    server.faults[FOLDER] = [UNAVAILABLE]
    impatient = told(server, tmp_path, retries=0)
    refused(lambda: list_files("GSE96583", impatient), "GSE96583 cannot be listed", "503")


def test_geo_itself_says_what_there_is_and_a_mirror_only_in_its_place(server, tmp_path):
    part = server.folder / "part" / FOLDER.removeprefix("geo/")
    part.mkdir(parents=True)
    (part / FITTING[0]).write_bytes(b"")
    own = f"{server.url}/geo"
    whole = told(server, tmp_path, mirrors={own: [f"{server.url}/part"]})
    assert list_files("GSE96583", whole).url == f"{server.url}/{FOLDER}/"
    place = "https://nowhere.invalid/geo"
    mirrors = {place: [f"{server.url}/empty", own]}
    there = told(server, tmp_path, geo=place, retries=0, mirrors=mirrors)
    assert list_files("GSE96583", there) == list_files("GSE96583", whole)


@pytest.mark.parametrize("whole", [True, False])
def test_a_page_that_states_no_size_has_to_have_an_end(server, tmp_path, whole):
    page = b'<html><a href="GSE96583_RAW.tar">x</a>' + b"</html>" * whole
    server.faults[FOLDER] = [Fault(body=page, headers={"Content-Length": None})]
    if whole:
        assert list_files("GSE96583", told(server, tmp_path)).files == ("GSE96583_RAW.tar",)
    else:
        refused(lambda: list_files("GSE96583", told(server, tmp_path)), "states no size", "cut")


def test_a_page_without_end_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr("morebench.data.geo.LONGEST", 100)
    refused(lambda: list_files("GSE96583", told(server, tmp_path)), "longer than 100 bytes")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(server, tmp_path):
    (server.folder / "m[1].tsv").write_text("gene\tc1\nA\t1\n")
    digest = hashlib.sha256((server.folder / "m[1].tsv").read_bytes()).hexdigest()
    dataset = load(config_of(url=[f"{server.url}/m%5B1%5D.tsv"], sha256={"m[1].tsv": digest}))
    here = told(server, tmp_path)
    (file,) = obtain(dataset.datasets["d"], here, "d")
    assert file["sha256"] == read_lock(here.lock)[file["name"]].sha256 == digest


# --- manifests ----------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    lay_out(tmp_path / "files")
    with Server(tmp_path / "files") as running:
        yield running


def told(server, tmp_path, **changes):
    given = downloads(server.url, tmp_path / "cache", tmp_path / "data.lock")
    return Downloads.model_validate({**given, **changes})


def test_a_manifest_holds_what_was_fetched_and_finds_what_changed(server, tmp_path):
    dataset = load(config_of(geo=GEO)).datasets["d"]
    files = obtain(dataset, told(server, tmp_path), "d")
    manifest = tmp_path / "d.json"
    write_json(manifest, {"files": files})
    (path,) = fetched(manifest)
    assert path == tmp_path / "cache/geo/GSE84133/GSE84133_RAW.tar"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(lambda: fetched(manifest), files[0]["sha256"], f"delete {path} and {manifest}")
    path.unlink()
    refused(lambda: fetched(manifest), f"{path} is gone", f"delete {manifest}")
    write_json(manifest, {"files": [{"name": "x"}]})
    with pytest.raises(ContractError, match="no list of files with name, path, url, size"):
        fetched(manifest)


def test_a_mirror_without_the_file_leads_to_its_own_address(server, tmp_path):
    place = "https://nowhere.invalid/geo"
    given = {"geo": place, "mirrors": {place: [f"{server.url}/empty", f"{server.url}/geo"]}}
    dataset = load(config_of(geo=GEO)).datasets["d"]
    (file,) = obtain(dataset, told(server, tmp_path, **given), "d")
    assert file["url"] == f"{server.url}/geo/series/GSE84nnn/GSE84133/suppl/GSE84133_RAW.tar"


# --- commands -----------------------------------------------------------------------------


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["morebench", *words])
    try:
        cli.main()
    except SystemExit as done:
        return done.code
    return 0


def test_the_files_of_a_series_are_listed(server, tmp_path, monkeypatch, capsys):
    config = tmp_path / "c.json"
    content = config_of({"downloads": downloads(server.url, "c", "l")}, geo=GEO)
    config.write_text(json.dumps(content))
    assert command(monkeypatch, "geo", "GSE96583", "--configfile", str(config)) == 0
    assert capsys.readouterr().out.split() == [
        "GSE96583_RAW.tar", "GSE96583_batch1.genes.tsv.gz", "GSE96583_batch1.total.tsne.df.tsv.gz",
        "GSE96583_batch2.genes.tsv.gz", "GSE96583_batch2.total.tsne.df.tsv.gz",
    ]  # fmt: skip
    for accession, word in (("GSE1000", "404"), ("PRJNA1", "no accession")):
        code = command(monkeypatch, "geo", accession, "--configfile", str(config))
        assert word in code and code.startswith("error: ")


def test_a_folder_without_files_is_an_error(server, tmp_path):
    page = Fault(body=b'<a href="/geo/">up</a> <a href="?C=N">by name</a> <a href="sub/">sub</a>')
    server.faults["geo/series/GSE96nnn/GSE96583/suppl"] = [page]
    with pytest.raises(DataError, match="has no files"):
        list_files("GSE96583", told(server, tmp_path))


def test_files_are_fetched_ahead_of_a_run(server, tmp_path, monkeypatch, capsys):
    config = tmp_path / "c.json"
    given = downloads(server.url, tmp_path / "cache", tmp_path / "l")
    content = config_of({"downloads": given}, geo=GEO)
    content["datasets"]["e"] = {"derive": {"from": "d", "depth": 0.5}}
    config.write_text(json.dumps(content))
    assert command(monkeypatch, "download", "--configfile", str(config)) == 0
    out = capsys.readouterr().out
    assert out.count("GSE84133_RAW.tar") == 1 and "bytes" in out
    content["downloads"]["offline"] = True
    config.write_text(json.dumps(content))
    server.faults["geo/series/GSE84nnn/GSE84133/suppl/GSE84133_RAW.tar"] = [Fault(status=500)]
    assert command(monkeypatch, "download", "--configfile", str(config)) == 0
