"""The cache of frozen features: keys, resuming, damage, and values."""

import errno
import json
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.seal import seal

from morebench.errors import ContractError, Damaged, DataError, NoRoom
from morebench.models.more import cache, extract
from morebench.models.more.backbone import Backbone
from morebench.models.more.tokens import background, choose_tokens

N, G, K = 90, 30, 6
GENES = [f"G{j}" for j in range(G)]
TEXTS = [f"G{j}: gene number {j}" for j in range(G)]
VISIBLE = np.arange(N) % 4 > 0


def tiny(weights="w", words="t", wanted="float32"):
    """A backbone of 1 layer and width 16 that counts the cells that it encodes."""
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, initializer_range=0.3,
        )  # fmt: skip
        model = BertModel(config)
    found = Backbone("random", model, None, weights_sha256=weights, tokeniser_sha256=words)
    found.wanted = wanted
    encode, found.encoded = found.encode, 0

    def counted(e, mask=None):
        found.encoded += len(e)
        return encode(e, mask)

    found.encode = counted
    return found


def counts(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.poisson(0.25, size=(N, G)).astype(np.float32)
    x[11] = 0
    return sp.csr_matrix(x)


def run(folder, backbone=None, x=None, genes=GENES, texts=TEXTS, visible=VISIBLE, **options):
    options = {"k": K, "batch_size": 8, **options}
    return cache.frozen_features(
        counts() if x is None else x, genes, texts,
        fit_visible=visible, backbone=backbone or tiny(), directory=folder, **options,
    )  # fmt: skip


def test_features_are_the_two_ends_of_the_backbone(tmp_path):
    backbone = tiny()
    found = run(tmp_path, backbone)
    assert found.shape == (N, 32) and found.dtype == np.float16
    chosen = choose_tokens(counts(), background(counts(), VISIBLE), K)
    assert len(set(chosen.n_tokens_n.tolist())) > 3  # lengths differ, so batches are sorted
    vectors = backbone.embed_texts(TEXTS)
    for i in range(N):  # one cell at a time, in the order of the cells
        m = chosen.n_tokens_n[i]
        if not m:
            assert i == 11 and not found[i].any()
            continue
        g, w = vectors[chosen.index_nk[i, :m]], chosen.weight_nk[i, :m, None]
        e = torch.from_numpy(g * w)[None] * backbone.token_scale
        with torch.inference_mode():
            hidden = backbone.model(inputs_embeds=e).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[i, :16], hidden, atol=2e-3)
        np.testing.assert_allclose(found[i, 16:], (g * w).sum(0) / w.sum(), atol=1e-3)


def test_the_same_content_is_never_encoded_again(tmp_path):
    first = run(tmp_path)
    backbone = tiny()
    x = sp.csr_matrix(counts().astype(np.int64))
    again = run(tmp_path, backbone, x)
    assert backbone.encoded == 0
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 1


def test_whatever_changes_the_values_changes_the_key(tmp_path):
    x, genes, texts, hidden = counts(), [*GENES], [*TEXTS], VISIBLE.copy()
    x.data[3] += 1
    genes[0], texts[0], hidden[0] = "H0", "G0: another", not hidden[0]
    base = (counts(), GENES, TEXTS, VISIBLE, tiny(), K)
    changed = [
        base,
        (x, *base[1:]),
        (counts()[:, ::-1].tocsr(), *base[1:]),
        (base[0], genes, *base[2:]),
        (*base[:2], texts, *base[3:]),
        (*base[:3], hidden, *base[4:]),
        (*base[:4], tiny(weights="v"), K),
        (*base[:4], tiny(words="u"), K),
        (*base[:4], tiny(wanted="bfloat16"), K),
        (*base[:5], K + 1),
    ]
    keys = [cache.feature_key(*parts)[0] for parts in changed]
    assert len(set(keys)) == len(changed)
    assert keys[0] == cache.feature_key(*base)[0]
    # Two caches share a folder; each run finds its own.
    first, second = run(tmp_path).copy(), run(tmp_path, x=x).copy()
    assert np.abs(first.astype(float) - second).max() > 0
    np.testing.assert_array_equal(run(tmp_path), first)
    with pytest.raises(ContractError, match="2 complete caches"):
        cache.find_features(tmp_path)


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.faults
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BATCHES", 2)
    whole = run(tmp_path / "whole").copy()
    seen = []

    def kill(done, n):
        seen.append((done, n))
        if done == 48:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "part", progress=kill)
    assert seen == [(16, N), (32, N), (48, N)]
    with pytest.raises(ContractError, match="0 complete caches"):
        cache.find_features(tmp_path / "part")
    backbone = tiny()
    found = run(tmp_path / "part", backbone)
    # The probe of a precision that was asked for by name encodes cells, too: twice a third.
    probe = 2 * len(range(2, int((VISIBLE & (counts().sum(1).A1 > 0)).sum()), 3))
    assert backbone.encoded - probe == N - 48
    np.testing.assert_array_equal(found, whole)
    assert sorted(p.suffixes[0] for p in (tmp_path / "part").glob("*.f16")) == [".features"]


@pytest.mark.faults
@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk_is_one_line_and_no_crash(tmp_path, monkeypatch, full):
    """The file is written through memory: without its room, a full disk would be a signal."""
    texts = tmp_path / "texts"
    whole = run(tmp_path / "whole", text_directory=texts).copy()
    (size,) = {p.stat().st_size for p in (tmp_path / "whole").glob("*.f16")}

    def no_room(file, start, length):
        assert (start, length) == (0, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if full:
        monkeypatch.setattr(os, "posix_fallocate", no_room)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with pytest.raises(NoRoom, match=r"partial.f16: there is no room .* run again$") as stop:
            run(tmp_path / "none", text_directory=texts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.ENOSPC if full else errno.EFBIG) in str(stop.value)
    assert [p.suffix for p in (tmp_path / "none").iterdir()] == [".lock"]
    monkeypatch.undo()
    np.testing.assert_array_equal(run(tmp_path / "none", text_directory=texts), whole)


def test_the_room_of_features_is_taken_before_the_first_is_made(tmp_path):
    taken = []

    def look(done, n):
        (file,) = tmp_path.glob("*.partial.f16")
        taken.append(512 * file.stat().st_blocks >= file.stat().st_size == 2 * N * 32)

    run(tmp_path, progress=look)
    assert taken and all(taken)


def test_a_partial_file_of_another_precision_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK_BATCHES", 2)

    def kill(done, n):
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, progress=kill)
    (progress,) = tmp_path.glob("*.partial.json")
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "precision": "int8"}))
    seen = []
    run(tmp_path, progress=lambda done, n: seen.append(done))
    assert seen[0] == 16


@pytest.mark.faults
@pytest.mark.parametrize("where", ["rows", "hashes"])
def test_a_partial_file_that_was_damaged_is_not_continued(tmp_path, monkeypatch, where):
    monkeypatch.setattr(cache, "CHUNK_BATCHES", 2)
    whole = run(tmp_path / "whole").copy()

    def kill(done, n):
        if done == 32:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "part", progress=kill)
    (rows,) = (tmp_path / "part").glob("*.partial.f16")
    (progress,) = (tmp_path / "part").glob("*.partial.json")
    if where == "rows":
        x_nf = np.memmap(rows, dtype=np.float16, mode="r+", shape=whole.shape)
        x_nf[np.flatnonzero(np.asarray(x_nf).any(1))[-1], 3] += 1
        x_nf.flush()
    else:
        state = json.loads(progress.read_text())
        progress.write_text(json.dumps({**state, "sha256": state["sha256"][:1]}))
    seen = []
    found = run(tmp_path / "part", progress=lambda done, n: seen.append(done))
    assert seen[0] == 16, "it went on from what was damaged"
    np.testing.assert_array_equal(found, whole)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))


def damage_remove(path):
    path.unlink()


@pytest.mark.faults
@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove])
def test_a_damaged_cache_is_refused_and_rebuilt(tmp_path, damage):
    whole = run(tmp_path).copy()
    (path,) = tmp_path.glob("*.features.f16")
    damage(path)
    with pytest.raises(Damaged, match=r"features.f16: (\d+ bytes|its SHA-256)"):
        cache.find_features(tmp_path)
    backbone = tiny()
    np.testing.assert_array_equal(run(tmp_path, backbone), whole)
    assert backbone.encoded >= N
    np.testing.assert_array_equal(cache.find_features(tmp_path), whole)


def test_a_sidecar_of_another_key_is_refused(tmp_path):
    run(tmp_path)
    (path,) = tmp_path.glob("*.features.json")
    sidecar = json.loads(path.read_text())
    assert sidecar["done"] == N and sidecar["shape"] == [N, 32]
    other = sidecar["key"][:16] + "0" * 48
    with pytest.raises(ContractError, match="key is"):
        cache.open_features(tmp_path, other)
    path.write_text("{")
    with pytest.raises(Damaged, match="features.json: its SHA-256"):
        cache.open_features(tmp_path, sidecar["key"])
    seal(path)
    with pytest.raises(ContractError, match="not JSON"):
        cache.open_features(tmp_path, sidecar["key"])
    assert run(tmp_path).shape == (N, 32)


def test_of_two_at_once_one_encodes_and_one_waits(tmp_path):
    whole = run(tmp_path / "alone").copy()
    backbones = [tiny(), tiny()]
    # The lock belongs to the open file, so it parts threads as it parts processes.
    start = threading.Barrier(2)

    def work(backbone):
        start.wait(60)
        return run(tmp_path / "two", backbone)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, backbones))
    assert sorted(b.encoded > 0 for b in backbones) == [False, True]
    for features in (*found, cache.find_features(tmp_path / "two")):
        np.testing.assert_array_equal(features, whole)


def test_texts_are_embedded_once_and_only_those_of_tokens(tmp_path, monkeypatch):
    asked = []
    embed = Backbone.embed_texts

    def counted(self, texts):
        asked.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(Backbone, "embed_texts", counted)
    x = counts().toarray()
    x[:, 5] = 0
    run(tmp_path / "a", x=sp.csr_matrix(x), text_directory=tmp_path / "texts")
    assert sorted(asked) == sorted(t for j, t in enumerate(TEXTS) if j != 5)
    run(tmp_path / "b", text_directory=tmp_path / "texts")
    assert asked[len(TEXTS) - 1 :] == [TEXTS[5]]
    (kept,) = (tmp_path / "texts").glob("*.npz")
    damage_truncate(kept)
    asked.clear()
    extract.text_vectors(TEXTS[:3], tiny(), tmp_path / "texts")
    assert asked == sorted(TEXTS[:3])


def test_precision_is_chosen_on_fit_visible_cells(tmp_path, monkeypatch):
    seen = []

    def calibrate(self, e_nkb, mask_nk=None, *, without=()):
        seen.append((e_nkb, without))
        return {"precision": self.precision, "min_cosine": {}}

    monkeypatch.setattr(Backbone, "calibrate", calibrate)
    monkeypatch.setattr(extract, "MIN_CELLS", {"int8": 1000, "bfloat16": 50})
    x = counts().toarray()
    run(tmp_path / "a", tiny(wanted="auto"))
    x[~VISIBLE] = x[~VISIBLE][::-1] * 3
    run(tmp_path / "b", tiny(wanted="auto"), x=sp.csr_matrix(x))
    (first, without), (second, _) = seen
    assert without == ("int8",)
    assert torch.equal(first, second)  # other hidden cells, the same probe
    monkeypatch.setattr(extract, "MIN_CELLS", {"int8": 1000, "bfloat16": 91})
    run(tmp_path / "c", tiny(wanted="auto"))
    assert len(seen) == 2


def test_lengths_that_disagree_are_named(tmp_path):
    with pytest.raises(DataError, match="29 genes, 30 texts and 90 entries"):
        run(tmp_path, genes=GENES[1:])
    with pytest.raises(DataError, match="3 entries of fit_visible for 90 cells"):
        run(tmp_path, visible=VISIBLE[:3])
