"""Files of weights that hold code, are cut short or know other genes: refused, never run."""

import contextlib
import os
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.refusals import refused
from tests.unit import test_models_scgpt as official

from morebench.contract import MethodInput
from morebench.errors import MorebenchError
from morebench.methods import scgpt
from morebench.models.more.backbone import load_backbone
from morebench.registry import METHODS

pytestmark = pytest.mark.faults

# --- checkpoints ------------------------------------------------------------------------


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def by_torch(path, sprung):
    torch.save({"encoder.embedding.weight": Trap(sprung)}, path)


def by_torch_of_old(path, sprung):
    content = {"encoder.embedding.weight": Trap(sprung)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def by_pickle(path, sprung):
    path.write_bytes(pickle.dumps({"encoder.embedding.weight": Trap(sprung)}))


def beside_weights(path, sprung):
    """A sound file whose pickle was exchanged."""
    with zipfile.ZipFile(path) as sound:
        parts = {i: sound.read(i) for i in sound.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for info, content in parts.items():
            changed = pickle.dumps(Trap(sprung), protocol=2)
            file.writestr(info, changed if info.filename.endswith("/data.pkl") else content)


TRAPS = [by_torch, by_torch_of_old, by_pickle, beside_weights]


def run_scgpt(folder, genes=official.GENES):
    n = 30
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(genes),
        counts_ng=sp.csr_matrix(official.counts(n, len(genes))),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": np.repeat("a", n)}),
        fit_visible=np.ones(n, dtype=bool),
    )
    params = {**METHODS["scgpt"].params, "checkpoint": str(folder)}
    return scgpt.run(data, seed=0, threads=1, **params)


@pytest.fixture
def checkpoint(tmp_path):
    """A small checkpoint of the official format."""
    official.write(tmp_path / "m")
    return tmp_path / "m"


def test_a_sound_checkpoint_embeds(checkpoint):
    """Else the tests below could be right for a wrong reason."""
    output = run_scgpt(checkpoint)
    np.testing.assert_allclose(np.linalg.norm(output.embedding, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("trap", TRAPS)
def test_code_in_a_checkpoint_is_not_run(trap, checkpoint, tmp_path):
    sprung = tmp_path / "sprung"
    trap(checkpoint / "best_model.pt", sprung)
    refused(lambda: run_scgpt(checkpoint), str(checkpoint / "best_model.pt"), "never run")
    assert not sprung.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch, once it has run
        torch.load(checkpoint / "best_model.pt", weights_only=False)
    assert sprung.is_dir()  # the trap works


@pytest.mark.parametrize("name", ["best_model.pt", "vocab.json", "args.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(name, share, checkpoint):
    path = checkpoint / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(lambda: run_scgpt(checkpoint), str(path))


def test_a_flipped_weight_that_is_no_number_is_refused(checkpoint):
    path = checkpoint / "best_model.pt"
    weights = torch.load(path, weights_only=True)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    torch.save(weights, path)
    refused(lambda: run_scgpt(checkpoint), str(path), "not finite")


@pytest.mark.parametrize("known", [0, 20, 49])
def test_a_vocabulary_that_shares_few_genes_is_refused(known, tmp_path):
    genes = [f"g{i}" for i in range(150)]
    official.write(tmp_path / "m", genes=[*genes[:known], *(f"other{i}" for i in range(100))])
    words = f"knows {known} of the 150 genes", "at least 50 genes and 30%"
    refused(lambda: run_scgpt(tmp_path / "m", genes), *words)


def test_a_backbone_that_is_a_pickle_or_cut_short_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    sound = BertModel(BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1,
                                 num_attention_heads=2, intermediate_size=16))  # fmt: skip
    sound.save_pretrained(tmp_path / "m")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(97, 123))]
    (tmp_path / "m" / "vocab.txt").write_text("\n".join(words))
    assert load_backbone(str(tmp_path / "m")).n_parameters > 0
    weights = tmp_path / "m" / "model.safetensors"
    content = weights.read_bytes()
    for share in (0, 0.5, 0.99):
        weights.write_bytes(content[: int(len(content) * share)])
        one_line(lambda: load_backbone(str(tmp_path / "m")), str(tmp_path / "m"))
    weights.unlink()
    sprung = tmp_path / "sprung"
    by_torch(tmp_path / "m" / "pytorch_model.bin", sprung)
    one_line(lambda: load_backbone(str(tmp_path / "m")), str(tmp_path / "m"))
    assert not sprung.exists()


def one_line(call, *words):
    """Assert that a call raises one of our errors, in one line that holds the words."""
    with pytest.raises(MorebenchError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_which_methods_read_files_of_weights():
    """A new one needs a trap of its own; celltypist's is in its tests."""
    named = {
        key: {name for name, spec in METHODS.items() if key in spec.params}
        for key in ("checkpoint", "model", "backbone")
    }
    assert named["backbone"] >= {"more", "genept_w"}
    assert named["checkpoint"] == {"scgpt"} and named["model"] == {"celltypist"}
