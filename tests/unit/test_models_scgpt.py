"""The scGPT network, its tokens, its checkpoints and its training, against plain numpy."""

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from morebench.errors import ConfigError, DataError, Unsupported
from morebench.models.scgpt import checkpoint as files
from morebench.models.scgpt.binning import bin_values
from morebench.models.scgpt.embedding import embed_cells
from morebench.models.scgpt.network import ScGPT, Shape
from morebench.models.scgpt.tokens import PAD_VALUE, collate, tokenise
from morebench.models.scgpt.train import (
    Training,
    choose_masked,
    fit_masked,
    masked_error,
    predict_masked,
)
from morebench.models.scgpt.vocabulary import read_vocabulary, vocabulary_of

GENES = [f"GENE{i}" for i in range(70)]
ARGS = {
    "embsize": 16,
    "nheads": 2,
    "d_hid": 24,
    "nlayers": 3,
    "n_layers_cls": 3,
    "dropout": 0.2,
    "pad_token": "<pad>",
    "pad_value": -2,
    "mask_value": -1,
    "n_bins": 51,
    "input_emb_style": "continuous",
}


# --- an independent forward pass ------------------------------------------------------------


def norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def forward(weights, gene, value, n_heads):
    """Output (l, d) for one cell without padding, in float64, by official key names."""
    w = {k: v.double().numpy() for k, v in weights.items()}
    x = norm(
        w["encoder.embedding.weight"][gene],
        w["encoder.enc_norm.weight"],
        w["encoder.enc_norm.bias"],
    )
    v = np.minimum(np.asarray(value, dtype=float), 512)[:, None]
    v = np.maximum(v @ w["value_encoder.linear1.weight"].T + w["value_encoder.linear1.bias"], 0)
    v = v @ w["value_encoder.linear2.weight"].T + w["value_encoder.linear2.bias"]
    x = x + norm(v, w["value_encoder.norm.weight"], w["value_encoder.norm.bias"])
    d = x.shape[1] // n_heads
    n_layers = 1 + max(int(k.split(".")[2]) for k in w if k.startswith("transformer_encoder"))
    for i in range(n_layers):
        p = {
            k.removeprefix(f"transformer_encoder.layers.{i}."): a
            for k, a in w.items()
            if k.startswith(f"transformer_encoder.layers.{i}.")
        }
        q, k, u = np.split(x @ p["self_attn.Wqkv.weight"].T + p["self_attn.Wqkv.bias"], 3, axis=1)
        heads = []
        for h in range(n_heads):
            at = slice(h * d, (h + 1) * d)
            score = q[:, at] @ k[:, at].T / math.sqrt(d)
            score = np.exp(score - score.max(1, keepdims=True))
            heads.append(score / score.sum(1, keepdims=True) @ u[:, at])
        attended = (
            np.hstack(heads) @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]
        )
        x = norm(x + attended, p["norm1.weight"], p["norm1.bias"])
        hidden = np.maximum(x @ p["linear1.weight"].T + p["linear1.bias"], 0)
        x = norm(
            x + hidden @ p["linear2.weight"].T + p["linear2.bias"],
            p["norm2.weight"],
            p["norm2.bias"],
        )
    return x


def official_weights(n_tokens, args=ARGS, seed=0):
    """Random weights under the names and shapes of a published checkpoint (flash-attention)."""
    rng = torch.Generator().manual_seed(seed)
    d, hid = args["embsize"], args["d_hid"]
    shapes = {
        "encoder.embedding.weight": (n_tokens, d),
        "encoder.enc_norm.weight": (d,),
        "encoder.enc_norm.bias": (d,),
        "flag_encoder.weight": (2, d),
        "value_encoder.linear1.weight": (d, 1),
        "value_encoder.linear1.bias": (d,),
        "value_encoder.linear2.weight": (d, d),
        "value_encoder.linear2.bias": (d,),
        "value_encoder.norm.weight": (d,),
        "value_encoder.norm.bias": (d,),
        "decoder.fc.0.weight": (d, d),
        "mvc_decoder.gene2query.weight": (d, d),
        "mvc_decoder.W.weight": (d, d),
        "cls_decoder.out_layer.weight": (1, d),
    }
    for i in range(args["nlayers"]):
        layer = {
            "self_attn.Wqkv.weight": (3 * d, d),
            "self_attn.Wqkv.bias": (3 * d,),
            "self_attn.out_proj.weight": (d, d),
            "self_attn.out_proj.bias": (d,),
            "linear1.weight": (hid, d),
            "linear1.bias": (hid,),
            "linear2.weight": (d, hid),
            "linear2.bias": (d,),
            "norm1.weight": (d,),
            "norm1.bias": (d,),
            "norm2.weight": (d,),
            "norm2.bias": (d,),
        }
        shapes |= {f"transformer_encoder.layers.{i}.{k}": v for k, v in layer.items()}
    return {
        k: torch.randn(v, generator=rng) * 0.4 + (1 if "norm" in k and "weight" in k else 0)
        for k, v in shapes.items()
    }


def write(folder, *, args=ARGS, vocab=None, weights=None, genes=GENES):
    folder.mkdir(exist_ok=True)
    vocab = (
        {t: i for i, t in enumerate([*genes, "<pad>", "<cls>", "<eoc>"])}
        if vocab is None
        else vocab
    )
    weights = official_weights(len(vocab), ARGS) if weights is None else weights
    (folder / "args.json").write_text(json.dumps(args))
    (folder / "vocab.json").write_text(json.dumps(vocab))
    torch.save(weights, folder / "best_model.pt")
    return vocab, weights


def counts(n=30, g=70, seed=0, mean=1.5):
    return sp.csr_matrix(np.random.default_rng(seed).poisson(mean, (n, g)).astype(np.float32))


# --- binning ---------------------------------------------------------------------------------


def plain_bins(values, n_bins, rng):
    """Bin by looking at one value and one edge at a time."""
    if not len(values):
        return []
    ordered = sorted(float(v) for v in values)
    edges = []
    for i in range(n_bins - 1):
        place = i / (n_bins - 2) * (len(ordered) - 1)
        low = min(int(place), len(ordered) - 1)
        high = min(low + 1, len(ordered) - 1)
        edges.append(ordered[low] + (ordered[high] - ordered[low]) * (place - low))
    found = []
    for value, draw in zip(values, rng.random(len(values)), strict=True):
        below = sum(e < value for e in edges)
        upto = sum(e <= value for e in edges)
        found.append(upto if upto == below else math.ceil(upto - draw * (upto - below)))
    return found


@pytest.mark.parametrize("n_bins", [3, 11, 51])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [3.0],
        [1.0] * 40,
        [1.0, 2.0],
        np.random.default_rng(1).lognormal(0, 1, 300),
        1.0 + np.random.default_rng(2).poisson(0.7, 500),
    ],
    ids=["empty", "one", "equal", "two", "continuous", "counts"],
)
def test_bins_are_those_of_a_plain_version(values, n_bins):
    values = np.asarray(values, dtype=np.float32)
    found = bin_values(values, n_bins, np.random.default_rng(5))
    assert found.dtype == np.int64 and len(found) == len(values)
    np.testing.assert_array_equal(found, plain_bins(values, n_bins, np.random.default_rng(5)))
    assert not len(values) or (found.min() >= 1 and found.max() <= n_bins - 1)


def test_equal_values_are_spread_evenly_over_all_bins():
    found = bin_values(np.ones(50_000), 51, np.random.default_rng(0))
    share = np.bincount(found, minlength=51)[1:] / 50_000
    assert np.abs(share - 0.02).max() < 5 * math.sqrt(0.02 * 0.98 / 50_000)


def test_without_ties_bins_hold_equally_many_and_rise_with_the_value():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 491.0))
    found = bin_values(values, 51, np.random.default_rng(0))
    assert (np.diff(found[np.argsort(values)]) >= 0).all()
    share = np.bincount(found, minlength=51)[1:50]
    assert share.min() >= 9 and share.max() <= 11  # 490 values, 49 bins; the 50th is the maximum's
    assert (found == 50).sum() == 1 and found[values.argmax()] == 50


def test_normalising_or_logging_a_cell_does_not_change_its_bins():
    values = 1.0 + np.random.default_rng(3).poisson(2, 200)
    raw = bin_values(values, 51, np.random.default_rng(1))
    for other in (np.log1p(values), values * 1e4 / values.sum()):
        np.testing.assert_array_equal(raw, bin_values(other, 51, np.random.default_rng(1)))


# --- vocabulary and tokens --------------------------------------------------------------------


def test_vocabulary_of_genes_and_of_a_file(tmp_path):
    own = vocabulary_of(["B", "A"])
    assert own.numbers == {"<pad>": 0, "<cls>": 1, "<eoc>": 2, "B": 3, "A": 4}
    np.testing.assert_array_equal(own.of_genes(["A", "a", "B", "<cls>"]), [4, -1, 3, -1])
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"A": 1, "<cls>": 0}))
    read = read_vocabulary(path.read_bytes(), path)
    assert read.numbers == {"A": 1, "<cls>": 0, "<pad>": 2, "<eoc>": 3} and len(read) == 4
    assert (read.cls, read.pad) == (0, 2)


def test_a_gene_twice_is_named():
    with pytest.raises(DataError, match="more than once: B"):
        vocabulary_of(["A", "B", "B"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "holds a list"),
        ("{}", "holds nothing"),
        ('{"A": "x", "B": true}', "no whole number stands at A, B"),
        ('{"A": 0, "B": 2}', "numbers 0 to 2; valid: 0 to 1"),
        ('{"A": 0, "B": 0}', "each once"),
    ],
)
def test_bad_vocabulary(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_vocabulary(text.encode(), tmp_path / "vocab.json")


def test_tokens_are_the_expressed_known_genes():
    x = sp.csr_matrix(np.array([[0, 2, 5, 1.0], [0, 0, 0, 0], [7, 0, 0, 0], [1, 1, 1, 1]]))
    x.data[x.data == 7] = 0  # a stored zero is no expressed gene
    tokens = tokenise(x, np.array([9, -1, 8, 4]), n_bins=51, seed=0)
    np.testing.assert_array_equal(tokens.length_n, [2, 0, 0, 3])
    np.testing.assert_array_equal(tokens.gene_t, [8, 4, 9, 8, 4])
    np.testing.assert_array_equal(tokens.bin_t[:2], [50, 1])  # the greatest and the least
    alone = tokenise(x[[0]], np.array([9, -1, 8, 4]), n_bins=51, seed=0)
    np.testing.assert_array_equal(alone.bin_t, tokens.bin_t[:2])
    assert x.nnz == 8  # the input, its stored zero included, is left as it was


def test_collate_puts_cls_first_and_pads():
    tokens = tokenise(counts(4), np.arange(3, 73), n_bins=51, seed=0)
    gene, value = collate(tokens, np.array([2, 0]), cls=1, pad=0)
    longest = tokens.length_n[[2, 0]].max()
    assert gene.shape == value.shape == (2, 1 + longest)
    assert gene.dtype == torch.int64 and value.dtype == torch.float32
    for i, row in enumerate([2, 0]):
        part = slice(tokens.start_n[row], tokens.start_n[row + 1])
        k = part.stop - part.start
        np.testing.assert_array_equal(gene[i, 1 : 1 + k], tokens.gene_t[part])
        np.testing.assert_array_equal(value[i, 1 : 1 + k], tokens.bin_t[part])
        assert gene[i, 0] == 1 and (gene[i, 1 + k :] == 0).all()
        assert value[i, 0] == PAD_VALUE and (value[i, 1 + k :] == PAD_VALUE).all()


def test_longer_cells_lose_genes_at_random_after_binning():
    x, numbers = counts(20), np.arange(3, 73)
    whole = tokenise(x, numbers, n_bins=51, seed=4)
    cut = tokenise(x, numbers, n_bins=51, seed=4, max_length=21)
    np.testing.assert_array_equal(cut.length_n, np.minimum(whole.length_n, 20))
    assert cut.length_n.max() == 20 < whole.length_n.min()
    firsts = 0
    for i in range(20):
        every = slice(whole.start_n[i], whole.start_n[i + 1])
        value = dict(zip(whole.gene_t[every], whole.bin_t[every], strict=True))
        kept = cut.gene_t[cut.start_n[i] : cut.start_n[i + 1]]
        assert len(set(kept)) == 20
        assert [value[g] for g in kept] == list(cut.bin_t[cut.start_n[i] : cut.start_n[i + 1]])
        firsts += set(kept) == set(whole.gene_t[every][:20])
    assert firsts == 0
    other = tokenise(x, numbers, n_bins=51, seed=5, max_length=21)
    assert (other.gene_t != cut.gene_t).any()
    gene, _ = collate(
        whole, np.arange(5), cls=1, pad=0, max_length=11, rng=np.random.default_rng(0)
    )
    assert gene.shape == (5, 11)


# --- the network and the checkpoint -------------------------------------------------------------


def test_embedding_of_a_checkpoint_is_that_of_plain_matrix_products(tmp_path):
    vocab, weights = write(tmp_path / "m")
    loaded = files.load_checkpoint(tmp_path / "m")
    x = counts(25, mean=0.8).tolil()
    x[3] = 0
    x = x.tocsr()
    tokens = tokenise(x, loaded.vocabulary.of_genes(GENES), n_bins=51, seed=0, max_length=30)
    assert 0 == tokens.length_n.min() < tokens.length_n.max() == 29  # padding and cutting both
    found = embed_cells(loaded.network, tokens, loaded.vocabulary, batch_size=7)
    for i in range(25):
        part = slice(tokens.start_n[i], tokens.start_n[i + 1])
        gene = np.concatenate([[vocab["<cls>"]], tokens.gene_t[part]])
        value = np.concatenate([[-2], tokens.bin_t[part]])
        cell = forward(weights, gene, value, ARGS["nheads"])[0]
        np.testing.assert_allclose(found[i], cell / np.linalg.norm(cell), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01  # cells differ, by far more than the tolerance
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.dtype == np.float32
    for size in (1, 25):
        again = embed_cells(loaded.network, tokens, loaded.vocabulary, batch_size=size)
        np.testing.assert_allclose(again, found, atol=2e-6)


def test_values_are_clipped_at_512(tmp_path):
    _, weights = write(tmp_path / "m")
    network = files.load_checkpoint(tmp_path / "m").network
    gene, value = np.array([71, 2, 3]), np.array([-2.0, 513.0, 9e9])
    with torch.no_grad():
        found = network(torch.tensor(gene)[None], torch.tensor(value, dtype=torch.float32)[None])
    np.testing.assert_allclose(found[0], forward(weights, gene, value, 2), atol=1e-5)


def test_embedding_leaves_weights_and_switches_as_they_were(tmp_path):
    write(tmp_path / "m")
    loaded = files.load_checkpoint(tmp_path / "m")
    before = {k: v.clone() for k, v in loaded.network.state_dict().items()}
    fused = torch.backends.mha.get_fastpath_enabled()
    tokens = tokenise(counts(9), np.arange(70), n_bins=51, seed=0)
    embed_cells(loaded.network, tokens, loaded.vocabulary, batch_size=4)
    after = loaded.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before) and len(before) > 40
    assert not any(p.requires_grad for p in loaded.network.parameters())
    assert not loaded.network.training and torch.backends.mha.get_fastpath_enabled() == fused


def test_both_names_of_attention_weights_load_the_same(tmp_path):
    vocab, weights = write(tmp_path / "flash")
    plain = {k.replace("self_attn.Wqkv.", "self_attn.in_proj_"): v for k, v in weights.items()}
    assert len(plain.keys() - weights.keys()) == 2 * ARGS["nlayers"]
    write(tmp_path / "torch", weights=plain)
    a, b = (files.load_checkpoint(tmp_path / n).network.state_dict() for n in ("flash", "torch"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    write(tmp_path / "both", weights=weights | plain)
    with pytest.raises(DataError, match="both self_attn.Wqkv and self_attn.in_proj"):
        files.load_checkpoint(tmp_path / "both")


def test_heads_are_left_out_and_named(tmp_path):
    write(tmp_path / "m")
    loaded = files.load_checkpoint(tmp_path / "m")
    assert loaded.unused == (
        "cls_decoder.out_layer.weight", "decoder.fc.0.weight", "flag_encoder.weight",
        "mvc_decoder.W.weight", "mvc_decoder.gene2query.weight",
    )  # fmt: skip
    assert len(loaded.sha256) == 64 and loaded.network.decoder is None


def test_special_tokens_that_the_vocabulary_lacks_come_last(tmp_path):
    vocab = {g: i for i, g in enumerate(GENES)}
    write(tmp_path / "m", vocab=vocab, weights=official_weights(73))
    loaded = files.load_checkpoint(tmp_path / "m")
    assert (loaded.vocabulary.pad, loaded.vocabulary.cls) == (70, 71)


def test_missing_and_unknown_keys_are_named(tmp_path):
    _, weights = write(tmp_path / "m")
    del weights["value_encoder.norm.bias"]
    weights["batch_encoder.embedding.weight"] = torch.zeros(3, 16)
    write(tmp_path / "m", weights=weights)
    with pytest.raises(
        DataError,
        match=r"missing: value_encoder.norm.bias; unknown: batch_encoder.embedding.weight",
    ):
        files.load_checkpoint(tmp_path / "m")


def test_shapes_and_numbers_that_do_not_fit_are_named(tmp_path):
    _, weights = write(tmp_path / "m")
    write(tmp_path / "m", genes=GENES[:-1], weights=weights)
    with pytest.raises(DataError, match=r"embedding.weight: found \(73, 16\), valid: \(72, 16\)"):
        files.load_checkpoint(tmp_path / "m")
    weights["encoder.enc_norm.bias"][2] = float("nan")
    write(tmp_path / "m", weights=weights)
    with pytest.raises(DataError, match="not finite: encoder.enc_norm.bias"):
        files.load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embsize": None}, DataError, "embsize: found None"),
        ({"nlayers": "3"}, DataError, "nlayers: found '3'"),
        ({"nheads": 3}, DataError, "16 is not a multiple of nheads 3"),
        ({"pre_norm": True}, Unsupported, "pre_norm: found True; embedding needs False"),
        ({"pad_value": 0}, Unsupported, "pad_value: found 0; embedding needs -2"),
        ({"input_emb_style": "scaling"}, Unsupported, "found 'scaling'"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, change, error, message):
    write(tmp_path / "m", args=ARGS | change)
    with pytest.raises(error, match=message):
        files.load_checkpoint(tmp_path / "m")


class Runs:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_the_weights_is_refused_and_not_run(tmp_path):
    write(tmp_path / "m", weights={"encoder.embedding.weight": Runs(tmp_path / "ran")})
    with pytest.raises(DataError, match="best_model.pt: damaged, or holds more than weights"):
        files.load_checkpoint(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
def test_a_truncated_file_is_said_to_be_damaged(tmp_path, share):
    write(tmp_path / "m")
    path = tmp_path / "m" / "best_model.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="best_model.pt: damaged"):
        files.load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, torch.zeros(3)])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    write(tmp_path / "m", weights=content)
    with pytest.raises(DataError, match="valid: a dictionary of names and tensors"):
        files.load_checkpoint(tmp_path / "m")


def test_folder_and_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="none: no such folder; valid: a folder with args.json"):
        files.load_checkpoint(tmp_path / "none")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "args.json").write_text("{}")
    with pytest.raises(ConfigError, match="lacks vocab.json, best_model.pt"):
        files.load_checkpoint(tmp_path / "m")
    write(tmp_path / "m")
    for text, message in (("{", "args.json: not JSON"), ("[]", "args.json: holds a list")):
        (tmp_path / "m" / "args.json").write_text(text)
        with pytest.raises(DataError, match=message):
            files.load_checkpoint(tmp_path / "m")


# --- training ------------------------------------------------------------------------------------


def test_masks_hide_a_share_of_the_genes_and_nothing_else():
    gene = torch.full((200, 41), 5)
    gene[:, 0] = 1
    gene[100:, 11:] = 0
    gene[150:, 1:] = 0
    found = choose_masked(gene, 0, 0.4, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(found.sum(1), [16] * 100 + [4] * 50 + [0] * 50)
    assert not found[:, 0].any() and not found[gene == 0].any()
    rate = found[:100, 1:].float().mean(0)
    assert np.abs(rate - 0.4).max() < 5 * math.sqrt(0.4 * 0.6 / 100)
    one = choose_masked(gene[100:150], 0, 0.01, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(one.sum(1), 1)


def test_masked_error_is_the_mean_squared_difference_over_masked_places():
    rng = np.random.default_rng(0)
    x, x_hat = rng.normal(size=(2, 4, 6)).astype(np.float32)
    masked = rng.random((4, 6)) < 0.5
    found = masked_error(torch.tensor(x_hat), torch.tensor(x), torch.tensor(masked))
    expected = sum((x[i, j] - x_hat[i, j]) ** 2 for i, j in zip(*masked.nonzero(), strict=True))
    assert float(found) == pytest.approx(expected / masked.sum(), rel=1e-6)


def test_what_is_hidden_does_not_reach_the_prediction():
    torch.manual_seed(0)
    network = ScGPT(Shape(20, 8, 2, 1, 8, 0.0), 0, decoder=True).eval()
    gene = torch.tensor([[1, 4, 5, 6, 7]])
    masked = torch.tensor([[False, True, False, False, True]])
    value = torch.tensor([[-2.0, 10, 20, 30, 40]])
    with torch.no_grad():
        found = predict_masked(network, gene, value, masked)
        hidden = predict_masked(network, gene, torch.where(masked, 49.0, value), masked)
        shown = predict_masked(network, gene, torch.where(masked, value, 49.0), masked)
        asked = network.decoder(network(gene, torch.tensor([[-2.0, -1, 20, 30, -1]])))
    assert found.shape == (1, 5) and torch.equal(found, hidden) and torch.equal(found, asked)
    assert (found - shown).abs().max() > 1e-4


def planted(n=240, g=40, seed=0):
    """Four types of cells, each with genes of its own; every gene is expressed in every cell."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, n)
    profile = rng.lognormal(1.5, 1, g) * np.where(rng.random((4, g)) < 0.3, 6, 1)
    return sp.csr_matrix(1.0 + rng.poisson(profile[kind])), kind


TRAINING = Training(mask_ratio=0.4, max_length=41, steps=160, batch_size=32, learning_rate=1e-2)


def trained(x, cells, seed=0, training=TRAINING):
    vocabulary = vocabulary_of(f"g{i}" for i in range(x.shape[1]))
    tokens = tokenise(x, np.arange(3, 3 + x.shape[1]), n_bins=51, seed=0)
    torch.manual_seed(seed)
    network = ScGPT(Shape(len(vocabulary), 24, 4, 2, 24, 0.0), 0, decoder=True)
    errors = fit_masked(network, tokens, cells, vocabulary, training, seed=seed)
    return network, tokens, vocabulary, errors


def test_training_predicts_hidden_values_of_new_cells_better_than_the_mean_bin():
    x, kind = planted()
    network, tokens, vocabulary, errors = trained(x, np.arange(160))
    assert len(errors) == 160 and not network.training
    gene, value = collate(tokens, np.arange(160, 240), cls=vocabulary.cls, pad=vocabulary.pad)
    masked = choose_masked(gene, vocabulary.pad, 0.4, torch.Generator().manual_seed(9))
    with torch.no_grad():
        error = float(masked_error(predict_masked(network, gene, value, masked), value, masked))
    truth = value[masked]
    by_mean = float(((truth - truth.mean()) ** 2).mean())
    # every gene is expressed, so tokens stand in the order of the genes
    bins_ng = tokens.bin_t.reshape(240, 40)
    by_gene = ((bins_ng[160:] - bins_ng[:160].mean(0)) ** 2)[masked[:, 1:].numpy()].mean()
    assert by_gene < 0.6 * by_mean  # genes differ, but it takes the cell's type to do better
    assert error < 0.4 * by_mean and error < 0.7 * by_gene
    z = embed_cells(network, tokens, vocabulary, batch_size=64)
    middle = np.stack([z[:160][kind[:160] == k].mean(0) for k in range(4)])
    found = ((z[160:, None] - middle) ** 2).sum(-1).argmin(1)
    assert (found == kind[160:]).mean() > 0.95


def test_training_is_determined_by_its_seed_and_sees_its_cells_only():
    short = Training(0.4, 20, 4, 16, 1e-3)
    x, _ = planted(60)
    other = x.copy()
    other[40:] = 1  # cells that training must not see
    first = trained(x, np.arange(40), training=short)
    again = trained(other, np.arange(40), training=short)
    assert first[3] == again[3]
    for key, value in first[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[key]), key
    assert trained(x, np.arange(40), seed=1, training=short)[3] != first[3]


def test_cells_without_genes_are_no_cells_to_learn_from():
    x = planted(30)[0].tolil()
    x[:20] = 0
    x = x.tocsr()
    short = Training(0.4, 20, 3, 4, 1e-3)
    assert np.isfinite(trained(x, np.arange(30), training=short)[3]).all()
    with pytest.raises(DataError, match="none of 20 cells to train on has a count"):
        trained(x, np.arange(20), training=short)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: found 0"),
        ({"learning_rate": -1.0}, "learning_rate: found -1.0"),
        ({"mask_ratio": 1.0}, "mask_ratio: found 1.0; valid: above 0, below 1"),
    ],
)
def test_numbers_that_make_no_training(change, message):
    with pytest.raises(ConfigError, match=message):
        Training(**(TRAINING.__dict__ | change)).check()
