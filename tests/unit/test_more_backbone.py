"""The frozen backbone against transformers, its precisions, and that nothing trains it."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from morebench.errors import Unavailable, Unsupported
from morebench.models.more import backbone as backbones
from morebench.models.more.backbone import load_backbone
from morebench.models.more.encoder import BertEncoder
from morebench.models.more.int8 import int8_supported

TEXTS = ["CD3E: CD3 epsilon subunit of T-cell receptor complex", "ACTB", "albumin", "CD3D"]


@pytest.fixture(scope="module")
def minilm():
    return load_backbone("minilm", dtype="float32")


@pytest.fixture(scope="module")
def tokens(minilm):
    """Token embeddings (48, 12, b): texts of genes, scaled softly."""
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(
        minilm.embed_texts([f"gene {i} of family {i % 7}" for i in range(60)])
    )
    index = torch.from_numpy(rng.integers(0, 60, size=(48, 12)))
    return vectors[index] * torch.linspace(1, 0.2, 12)[:, None] * minilm.token_scale


def test_the_encoder_gives_what_transformers_gives(minilm, tokens):
    with torch.inference_mode():
        theirs = minilm.model(inputs_embeds=tokens).last_hidden_state
        ours = minilm.encoder(tokens)
    assert float((theirs - ours).abs().max()) < 1e-5
    np.testing.assert_allclose(minilm.encode(tokens), theirs.mean(1), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_padding_changes_nothing(minilm, tokens, precision):
    encoder = BertEncoder(minilm.model)
    encoder.set_precision(precision)
    mask = torch.ones(48, 12, dtype=torch.bool)
    mask[:, 8:] = False
    with torch.inference_mode():
        whole, cut = encoder(tokens, mask)[:, :8], encoder(tokens[:, :8])
        theirs = minilm.model(inputs_embeds=tokens, attention_mask=mask.long()).last_hidden_state[
            :, :8
        ]
    tolerance = 1e-5 if precision == "float32" else 0.05
    assert float((whole - cut).abs().max()) < tolerance
    assert float((whole - theirs).abs().max()) < tolerance


def test_a_cell_without_tokens_is_zero(minilm, tokens):
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1] = False
    found = minilm.encode(tokens[:2], mask)
    assert not found[1].any()
    np.testing.assert_allclose(found[0], minilm.encode(tokens[:1])[0], atol=1e-5)


def test_texts_are_embedded_as_sentence_transformers_does(minilm):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(backbones._minilm_folder()), device="cpu").encode(TEXTS)
    ours = minilm.embed_texts(TEXTS)
    assert ours.shape == (4, 384) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
    assert ours[0] @ ours[3] > ours[0] @ ours[2]


def test_nothing_can_be_trained(minilm):
    assert minilm.n_parameters == 22_713_216
    assert not [name for name, p in minilm.named_parameters() if p.requires_grad]
    outer = nn.Sequential(minilm, nn.Dropout())
    outer.train()
    assert outer.training and outer[1].training
    assert not [name for name, m in minilm.named_modules() if m.training]
    assert not minilm.encode(torch.zeros(1, 2, 384)).requires_grad


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_lower_precision_stays_close_on_cells_it_was_not_calibrated_on(minilm, tokens, precision):
    encoder = BertEncoder(minilm.model)
    if precision == "int8" and not int8_supported():
        with pytest.raises(Unsupported, match="int8"):
            encoder.set_precision("int8", tokens)
        return
    with torch.inference_mode():
        exact = encoder(tokens[32:]).mean(1)
        encoder.set_precision(precision, tokens[:32])
        found = encoder(tokens[32:]).mean(1)
    cosine = torch.cosine_similarity(found, exact)
    assert float(cosine.min()) > (0.998 if precision == "int8" else 0.9999)
    assert float((found - exact).abs().max()) > 0  # it is another precision


def test_a_precision_that_turns_vectors_is_refused(minilm, tokens, monkeypatch):
    backbone = backbones.Backbone(
        "x", minilm.model, None, weights_sha256="w", tokeniser_sha256="t", wanted="auto"
    )
    report = backbone.calibrate(tokens)
    chosen = report["precision"]
    assert report["min_cosine"][chosen] >= 0.999
    assert backbone.precision == chosen == backbone.encoder.precision

    plain = BertEncoder.__call__

    def spoiled(self, e, mask=None):
        h = plain(self, e, mask)
        return h if self.precision == "float32" else h.roll(1, dims=-1)

    monkeypatch.setattr(BertEncoder, "__call__", spoiled)
    report = backbone.calibrate(tokens)
    assert report["precision"] == "float32" and report["min_cosine"]["float32"] >= 0.999
    assert all(v < 0.999 for name, v in report["min_cosine"].items() if name != "float32")
    assert set(report["min_cosine"]) == set(backbone.encoder.precisions())


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (load_backbone("random", seed=s) for s in (1, 1, 2))
    assert (torch.random.get_rng_state() == state).all()
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert first.tokeniser_sha256 != other.tokeniser_sha256
    x = first.embed_texts(TEXTS)
    np.testing.assert_array_equal(x[::-1], again.embed_texts(TEXTS[::-1]))
    assert np.abs(x - other.embed_texts(TEXTS)).max() > 0.01
    np.testing.assert_allclose(x @ x.T, np.eye(4), atol=0.25)
    assert first.n_parameters == 22_713_216


def test_none_is_no_backbone():
    assert load_backbone("none") is None


def test_a_folder_is_loaded_and_equals_the_package(minilm):
    folder = backbones._minilm_folder()
    found = load_backbone(str(folder), dtype="float32")
    assert found.weights_sha256 == minilm.weights_sha256 == backbones.MINILM_SHA256
    assert found.tokeniser_sha256 == minilm.tokeniser_sha256


def test_an_encoder_of_another_kind_takes_the_same_way(tmp_path):
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nactb\nalbumin\n")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = DistilBertConfig(vocab_size=7, dim=16, n_heads=2, n_layers=1, hidden_dim=32)
    DistilBertModel(config).save_pretrained(tmp_path)
    found = load_backbone(str(tmp_path))
    assert found.encoder is None and found.width == 16 and found.precision == "float32"
    x = found.embed_texts(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    e = torch.randn(3, 5, 16)
    with torch.inference_mode():
        exact = found.model(inputs_embeds=e).last_hidden_state.mean(1)
    np.testing.assert_allclose(found.encode(e), exact, atol=1e-6)
    assert found.calibrate(e) == {
        "precision": "float32", "min_cosine": {}, "min_cosine_centred": {},
    }  # fmt: skip


@pytest.fixture
def small():
    """Return a function that writes a small encoder and gives the hash of its weights."""
    from transformers import BertConfig, BertModel, BertTokenizer

    def write(folder, seed):
        folder.mkdir(parents=True)
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nactb\nalbumin\n")
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
        torch.manual_seed(seed)
        config = BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=1,
                            num_attention_heads=2, intermediate_size=16)  # fmt: skip
        BertModel(config).save_pretrained(folder)
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    return write


def test_a_folder_that_is_pinned_has_the_weights_of_its_hash(small, tmp_path):
    folder = tmp_path / "m"
    digest = small(folder, 0)
    found = load_backbone(f"{folder}@{digest}")
    assert found.weights_sha256 == digest == load_backbone(str(folder)).weights_sha256
    other = small(tmp_path / "other", 1)
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    assert load_backbone(str(folder)).weights_sha256 == other != digest  # nothing else tells
    with pytest.raises(Unavailable, match=f"weights is {other}, expected {digest}; restore"):
        load_backbone(f"{folder}@{digest}")
    with pytest.raises(Unavailable, match="valid: the SHA-256 of its weights, 64 hex"):
        load_backbone(f"{folder}@{digest[:40]}")
    with pytest.raises(Unavailable, match="no such folder"):
        load_backbone(f"{folder}@{digest[:63]}")


def test_a_folder_whose_own_name_looks_pinned_is_that_folder(small, tmp_path):
    folder = tmp_path / f"m@{'0' * 64}"
    digest = small(folder, 0)
    assert load_backbone(str(folder)).weights_sha256 == digest
    assert load_backbone(f"{folder}@{digest}").weights_sha256 == digest


def test_an_id_of_the_hub_is_pinned_by_a_commit_or_by_its_weights(small, tmp_path):
    """In a cache of the hub, laid out as it is there, without a network."""
    commits = ["a" * 40, "b" * 40]
    model = tmp_path / "hub" / "models--org--m"
    hashes = [small(model / "snapshots" / c, i) for i, c in enumerate(commits)]
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commits[0])
    names = ["org/m", f"org/m@{commits[1]}", f"org/m@{hashes[0]}", f"org/m@{hashes[1]}"]
    code = """
        import json, sys
        from morebench.errors import Unavailable
        from morebench.models.more.backbone import load_backbone
        found = []
        for name in sys.argv[1:]:
            try:
                found.append(load_backbone(name).weights_sha256)
            except Unavailable as error:
                found.append(str(error))
        print(json.dumps(found))
    """
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code), *names]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *loaded, refused = json.loads(done.stdout.splitlines()[-1])
    assert loaded == [hashes[0], hashes[1], hashes[0]]
    assert f"weights is {hashes[0]}, expected {hashes[1]}" in refused


def test_other_weights_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "fake_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backbones, "MINILM_PACKAGE", "fake_minilm")
    with pytest.raises(Unavailable, match=r"SHA-256 is [0-9a-f]{64}, expected 53aa5117"):
        load_backbone("minilm")
    monkeypatch.setattr(backbones, "MINILM_PACKAGE", "not_there_at_all")
    with pytest.raises(Unavailable, match="not installed"):
        load_backbone("minilm")


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(Unavailable, match="no such folder"):
        load_backbone("../somewhere/else")
    with pytest.raises(Unavailable, match="dtype 'float8'"):
        load_backbone("minilm", dtype="float8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Unavailable, match="safetensors"):
        load_backbone(str(tmp_path))
