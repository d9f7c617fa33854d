"""scGPT adapters: a checkpoint as it is, and the small network trained on a split."""

import inspect
import json
import subprocess

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.unit.test_models_scgpt import (
    ARGS,
    GENES,
    forward,
    official_weights,
    plain_bins,
    write,
)

from morebench.contract import MethodInput
from morebench.errors import ConfigError, DataError, Unavailable
from morebench.methods import scgpt
from morebench.registry import METHODS

SCRATCH = {
    "d_model": 24,
    "n_heads": 4,
    "n_layers": 2,
    "d_hid": 24,
    "n_bins": 51,
    "max_length": 60,
    "train_length": 41,
    "mask_ratio": 0.4,
    "steps": 160,
    "batch_size": 32,
    "learning_rate": 0.01,
    "dropout": 0.0,
}


def make_input(n=60, genes=GENES, seed=0, types=3, mean=1):
    """Cells of a few types, each with genes of its own, in two batches."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, types, n)
    profile = rng.lognormal(mean, 1, len(genes)) * np.where(
        rng.random((types, len(genes))) < 0.3, 6, 1
    )
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(genes),
        counts_ng=sp.csr_matrix(rng.poisson(profile[kind]).astype(np.float32)),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": rng.choice(["a", "b"], n)}),
        fit_visible=np.ones(n, dtype=bool),
    )
    return data, kind


def embed(data, folder, seed=0, max_length=1200, batch_size=64, checkpoint_sha256=None):
    return scgpt.run(
        data, seed=seed, threads=1, checkpoint=str(folder), checkpoint_sha256=checkpoint_sha256,
        max_length=max_length, batch_size=batch_size,
    )  # fmt: skip


def scratch(data, seed=0, **changes):
    return scgpt.run_scratch(data, seed=seed, threads=1, **(SCRATCH | changes))


# --- a published checkpoint --------------------------------------------------------------------


def test_embedding_is_that_of_the_checkpoint_for_the_genes_it_knows(tmp_path):
    vocab, weights = write(tmp_path / "m")
    data, _ = make_input(genes=[*GENES[:60], "OTHER1", "OTHER2"])
    whole = data.counts_ng.toarray()
    whole[:, :60] = np.random.default_rng(1).permuted(np.tile(np.arange(60.0), (60, 1)), axis=1)
    whole[:, 60:] = 1000  # genes outside the vocabulary change nothing, bins included
    data.counts_ng = sp.csr_matrix(whole.astype(np.float32))
    out = embed(data, tmp_path / "m")
    for i in range(5):
        seen = np.flatnonzero(whole[i, :60])  # 59 counts without ties: nothing is drawn
        bins = plain_bins(whole[i, seen], 51, np.random.default_rng(99))
        gene = np.concatenate([[vocab["<cls>"]], seen])
        cell = forward(weights, gene, np.concatenate([[-2], bins]), ARGS["nheads"])[0]
        np.testing.assert_allclose(out.embedding[i], cell / np.linalg.norm(cell), atol=1e-5)
    assert out.embedding.shape == (60, 16) and out.embedding.dtype == np.float32
    assert out.notes["genes_known"] == "60 of 62" and len(out.notes["checkpoint_sha256"]) == 64
    assert "cut" not in out.notes and "empty" not in out.notes
    skipped = ("decoder", "mvc_decoder", "cls_decoder", "flag_encoder")
    used = sum(v.numel() for k, v in weights.items() if not k.startswith(skipped))
    assert (out.parameters_frozen, out.parameters_trained) == (used, 0)
    json.dumps(out.notes)


def test_the_same_seed_gives_the_same_embedding_and_files_stay_as_they_are(tmp_path):
    write(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    data, _ = make_input()
    first = embed(data, tmp_path / "m", max_length=20)
    np.testing.assert_array_equal(
        first.embedding, embed(data, tmp_path / "m", max_length=20).embedding
    )
    other = embed(data, tmp_path / "m", seed=1, max_length=20).embedding
    assert np.abs(first.embedding - other).max() > 1e-3  # other genes, other ties
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == before
    assert first.notes["cut"].startswith("60 of 60 cells have more genes than 19")


def test_cells_that_fitting_does_not_see_are_embedded_all_the_same(tmp_path):
    write(tmp_path / "m")
    data, _ = make_input()
    every = embed(data, tmp_path / "m").embedding
    data.fit_visible[30:] = False
    np.testing.assert_array_equal(embed(data, tmp_path / "m").embedding, every)


def test_an_empty_cell_is_embedded_and_noted(tmp_path):
    vocab, weights = write(tmp_path / "m")
    data, _ = make_input()
    counts = data.counts_ng.toarray()
    counts[7] = 0
    data.counts_ng = sp.csr_matrix(counts)
    out = embed(data, tmp_path / "m")
    cell = forward(weights, np.array([vocab["<cls>"]]), [-2.0], ARGS["nheads"])[0]
    np.testing.assert_allclose(out.embedding[7], cell / np.linalg.norm(cell), atol=1e-5)
    assert out.notes["empty"] == "1 cells without a count in known genes"


def test_without_a_checkpoint_it_is_unavailable_and_says_what_to_configure():
    data, _ = make_input()
    with pytest.raises(Unavailable, match="absolute path of the folder that holds its args.json"):
        scgpt.run(data, seed=0, threads=1, **METHODS["scgpt"].params)


def digest_of(folder):
    """Return what ``cat args.json vocab.json best_model.pt | sha256sum`` prints."""
    files = [folder / name for name in ("args.json", "vocab.json", "best_model.pt")]
    printed = subprocess.run(
        f"cat {' '.join(map(str, files))} | sha256sum", shell=True, capture_output=True, text=True
    )
    return printed.stdout.split()[0]


@pytest.mark.faults
@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_other_files_than_the_pinned_are_refused_before_loading(tmp_path, monkeypatch, name):
    write(tmp_path / "m")
    data, _ = make_input()
    digest = digest_of(tmp_path / "m")
    free = embed(data, tmp_path / "m")
    pinned = embed(data, tmp_path / "m", checkpoint_sha256=digest.upper())
    np.testing.assert_array_equal(pinned.embedding, free.embedding)
    assert free.notes["checkpoint_sha256"] == pinned.notes["checkpoint_sha256"] == digest

    path = tmp_path / "m" / name  # as valid a file as before
    if name == "best_model.pt":
        weights = torch.load(path, weights_only=True)
        weights["encoder.enc_norm.bias"][0] += 1
        torch.save(weights, path)
    elif name == "vocab.json":  # two genes have each other's embeddings
        numbers = json.loads(path.read_text())
        one, two = [token for token in numbers if not token.startswith("<")][:2]
        numbers[one], numbers[two] = numbers[two], numbers[one]
        path.write_text(json.dumps(numbers))
    else:  # as many heads would fit the weights, and give other numbers
        path.write_text(json.dumps({**json.loads(path.read_text()), "nheads": 1}))
    other = digest_of(tmp_path / "m")
    assert embed(data, tmp_path / "m").notes["checkpoint_sha256"] == other != digest
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was loaded"))
    with pytest.raises(ConfigError) as error:
        embed(data, tmp_path / "m", checkpoint_sha256=digest)
    for word in (str(tmp_path / "m"), digest, other, "checkpoint_sha256 says", "not loaded"):
        assert word in str(error.value)


@pytest.mark.parametrize("found", ["", "abc", 7, "g" * 64, "0" * 65])
def test_a_pin_that_is_no_hash_is_refused(tmp_path, found):
    write(tmp_path / "m")
    with pytest.raises(ConfigError, match=f"checkpoint_sha256: found {found!r}; valid: the SHA"):
        embed(make_input()[0], tmp_path / "m", checkpoint_sha256=found)


def test_a_pin_without_a_checkpoint_is_unavailable():
    params = {**METHODS["scgpt"].params, "checkpoint_sha256": "0" * 64}
    with pytest.raises(Unavailable, match="checkpoint: none is configured"):
        scgpt.run(make_input()[0], seed=0, threads=1, **params)


def test_paths_that_cannot_be(tmp_path):
    data, _ = make_input()
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        embed(data, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="found 'models/scgpt'; valid: an absolute path"):
        embed(data, "models/scgpt")


@pytest.mark.parametrize(
    ("known", "of", "message"),
    [
        (49, 60, r"knows 49 of the 60 genes \(82%\), not x0"),
        (60, 220, r"60 of the 220 genes \(27%\)"),
    ],
)
def test_a_vocabulary_of_other_genes_is_refused(tmp_path, known, of, message):
    write(tmp_path / "m")
    data, _ = make_input(genes=[*GENES[:known], *(f"x{i}" for i in range(of - known))])
    with pytest.raises(DataError, match=message):
        embed(data, tmp_path / "m")


def test_just_enough_genes_will_do(tmp_path):
    write(tmp_path / "m")
    data, _ = make_input(n=5, genes=[*GENES[:60], *(f"x{i}" for i in range(140))])
    assert embed(data, tmp_path / "m").notes["genes_known"] == "60 of 200"
    data, _ = make_input(n=5, genes=GENES[:50])
    assert embed(data, tmp_path / "m").notes["genes_known"] == "50 of 50"


@pytest.mark.faults
def test_a_damaged_checkpoint_is_a_data_error(tmp_path):
    write(tmp_path / "m", weights=official_weights(73))
    path = tmp_path / "m" / "best_model.pt"
    path.write_bytes(path.read_bytes()[:3000])
    data, _ = make_input()
    with pytest.raises(DataError, match="best_model.pt: damaged"):
        embed(data, tmp_path / "m")


@pytest.mark.parametrize("change", [{"max_length": 1}, {"batch_size": 0}])
def test_numbers_that_cannot_be(tmp_path, change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: found"):
        embed(make_input()[0], tmp_path, **change)


# --- from scratch ------------------------------------------------------------------------------


def test_scratch_learns_types_that_it_is_not_told():
    data, kind = make_input(n=200, mean=2.5)
    data.fit_visible[140:] = False
    out = scratch(data)
    assert out.notes["masked_error_last"] < 0.6 * out.notes["masked_error_first"]
    np.testing.assert_allclose(np.linalg.norm(out.embedding, axis=1), 1, atol=1e-6)
    assert out.embedding.shape == (200, 24) and out.embedding.dtype == np.float32
    middle = np.stack([out.embedding[:140][kind[:140] == k].mean(0) for k in range(3)])
    found = ((out.embedding[140:, None] - middle) ** 2).sum(-1).argmin(1)
    assert (found == kind[140:]).mean() > 0.9
    assert out.parameters_frozen == 0 and out.parameters_trained > 73 * 24
    json.dumps(out.notes)


def test_scratch_is_determined_by_seed_and_fit_visible_cells():
    data, _ = make_input(n=40)
    data.fit_visible[25:] = False
    state = torch.get_rng_state()
    first = scratch(data, steps=3).embedding
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers go on as before
    np.testing.assert_array_equal(first, scratch(data, steps=3).embedding)
    assert np.abs(first - scratch(data, steps=3, seed=1).embedding).max() > 1e-3
    changed, _ = make_input(n=40)
    changed.fit_visible = data.fit_visible
    counts = changed.counts_ng.toarray()
    counts[25:] = counts[25:][:, ::-1]
    changed.counts_ng = sp.csr_matrix(counts)
    again = scratch(changed, steps=3).embedding
    np.testing.assert_allclose(again[:25], first[:25], atol=2e-6)
    assert np.abs(again[25:] - first[25:]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, "n_heads: found 5; valid: a divisor of d_model, 24"),
        ({"dropout": 1.0}, "dropout: found 1.0"),
        ({"n_bins": 2}, "n_bins: found 2; valid: 3 or more"),
        ({"max_length": 1}, "max_length: found 1"),
        ({"train_length": 1}, "train_length: found 1"),
        ({"mask_ratio": 0.0}, "mask_ratio: found 0.0"),
        ({"steps": 0}, "steps: found 0"),
    ],
)
def test_scratch_says_which_number_is_wrong(change, message):
    with pytest.raises(ConfigError, match=message):
        scratch(make_input()[0], **change)


def test_scratch_needs_a_count():
    data, _ = make_input(n=10)
    data.counts_ng = sp.csr_matrix(data.counts_ng.shape, dtype=np.float32)
    with pytest.raises(DataError, match="none of 10 cells to train on has a count"):
        scratch(data)


@pytest.mark.parametrize("name", ["scgpt", "scgpt_scratch"])
def test_adapters_take_the_registered_parameters_and_no_others(name):
    spec = METHODS[name]
    function = getattr(scgpt, spec.entry.split(":")[1])
    keywords = inspect.signature(function).parameters
    assert set(keywords) == {"data", "seed", "threads", *spec.params}
    assert all(p.default is inspect.Parameter.empty for p in keywords.values())
    assert (spec.track, spec.outputs, spec.inductive) == ("unsupervised", ("embedding",), True)
