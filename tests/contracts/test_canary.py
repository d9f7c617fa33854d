"""The leak canary: planted cheats are caught, and every registered method passes."""

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.quick import QUICK
from tests.seal import seal
from tests.unit.test_models_scgpt import write

from morebench import canary, canary_world, runner
from morebench.config import Method, methods_of
from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError
from morebench.io.inputs import read_input
from morebench.io.prepared import read_truth
from morebench.registry import METHODS, MethodSpec

ROOT = Path(__file__).resolve().parents[2]

CHEATS = """
from pathlib import Path
import numpy as np
import pandas as pd
from morebench.contract import MethodOutput

def _labelled(codes):
    codes = np.unique(np.asarray(codes, dtype=str), return_inverse=True)[1]
    return MethodOutput(embedding=np.eye(codes.max() + 2)[codes].astype(np.float32))

def reads_truth(data, *, seed, threads, path):
    return _labelled(pd.read_parquet(path)["cell_type"])

def reads_source(data, *, seed, threads, path):
    import h5py
    from anndata.io import read_elem
    with h5py.File(path) as file:
        ids = read_elem(file["obs"]).index  # they end in the type
    place = [i.split("_", 1)[1] for i in ids]
    return _labelled(place[: data.n_cells])

def reads_ids(data, *, seed, threads):
    return _labelled([i.split("_", 1)[-1] for i in data.cell_ids])

def reads_beside(data, *, seed, threads):
    for file in Path.cwd().glob("*.parquet"):
        return _labelled(pd.read_parquet(file)["cell_type"])
    return MethodOutput(embedding=np.zeros((data.n_cells, 2), np.float32))

def honest(data, *, seed, threads):
    return MethodOutput(embedding=data.pca_np[:, :3])

def reads_later(data, *, seed, threads, path, features=True):
    # honest, until it starts from a fitted model
    if data.pretrained_file is None:
        model = {"weight": np.ones(1, np.float32)}
        return MethodOutput(embedding=data.pca_np[:, :3], model=model)
    codes = pd.read_parquet(path)["cell_type"].astype("category").cat.codes
    return MethodOutput(embedding=np.eye(9, dtype=np.float32)[codes[: data.n_cells]])

def reads_digits(data, *, seed, threads):
    return _labelled([int(i[1:]) % 10 for i in data.cell_ids])

def refuses(data, *, seed, threads, path, types):
    from morebench.errors import Unsupported
    if "".join(pd.read_parquet(path)["cell_type"]) != types:
        raise Unsupported("not these")
    return honest(data, seed=seed, threads=threads)

def boom(data, *, seed, threads):
    raise ValueError("boom")
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with the cheats, on the path of every method's process."""
    folder = tmp_path_factory.mktemp("cheats")
    (folder / "cheats.py").write_text(textwrap.dedent(CHEATS))
    with pytest.MonkeyPatch.context() as patch:
        given = runner.child_environment

        def with_cheats(*args):
            environment = given(*args)
            return environment | {"PYTHONPATH": f"{environment['PYTHONPATH']}:{folder}"}

        patch.setattr(runner, "child_environment", with_cheats)
        yield folder


def cheat(name, entry="", outputs=("embedding",), **params):
    entry = f"cheats:{entry or name}"
    spec = MethodSpec(name, name, entry, "unsupervised", outputs, "", "", params=params)
    return Method(name, spec, params)


def verdicts(tmp_path, *methods):
    world = tmp_path / "world"
    config = canary_world.canary_config(world, {"pca": {}})
    found = canary.watch_methods({m.name: m for m in methods}, world, config, root=ROOT)
    return {v.method: v for v in found}


def test_planted_cheats_are_caught_and_honest_methods_pass(planted, tmp_path):
    results = tmp_path / "world" / "results"
    truth = str(results / "truth" / f"{canary_world.DATASET}.parquet")
    source = str(tmp_path / "world" / "source.h5ad")
    found = verdicts(
        tmp_path, cheat("reads_truth", path=truth), cheat("reads_source", path=source),
        cheat("reads_ids"), cheat("reads_beside"), cheat("honest"), cheat("boom"),
    )  # fmt: skip
    assert found["reads_truth"].outcome == found["reads_source"].outcome == "caught"
    assert "embedding by" in found["reads_truth"].reason
    assert found["honest"].outcome == "passed"
    # opaque ids and an empty folder give nothing away
    assert found["reads_ids"].outcome == found["reads_beside"].outcome == "passed"
    assert found["boom"].outcome == "failed" and "boom" in found["boom"].reason


def test_cheats_in_ranges_of_cells_and_in_what_starts_from_a_model_are_caught(planted, tmp_path):
    path = str(tmp_path / "world" / "results" / "truth" / f"{canary_world.DATASET}.parquet")
    outputs = ("embedding", "model")
    whole, ranges = (cheat(name, "reads_later", outputs, path=path) for name in ("whole", "ranges"))
    start = cheat("start", "reads_later", path=path)
    ranges = replace(ranges, spec=replace(ranges.spec, sharded=True))
    start = replace(start, spec=replace(start.spec, pretrained="whole"))
    found = verdicts(tmp_path, start, whole, ranges)
    outcomes = {name: verdict.outcome for name, verdict in found.items()}
    assert outcomes == {"start": "caught", "whole": "passed", "ranges": "caught"}


def test_a_truth_file_beside_the_input_is_caught(planted, tmp_path, monkeypatch):
    given = canary.files_of
    monkeypatch.setitem(runner.INPUT_NAMES, "aside", "aside.parquet")
    monkeypatch.setattr(
        canary,
        "files_of",
        lambda method, paths: given(method, paths) | {"aside": paths.truth(canary_world.DATASET)},
    )
    assert verdicts(tmp_path, cheat("reads_beside"))["reads_beside"].outcome == "caught"


def test_ids_whose_numbers_tell_the_label_are_caught(planted, tmp_path, monkeypatch):
    """Such ids look opaque; only a method that reads them differs."""
    import anndata

    make = canary.make_world

    def numbered(*args, **options):
        paths = make(*args, **options)
        file = paths.input(canary_world.DATASET, "all")
        data = anndata.read_h5ad(file)
        truth = read_truth(paths.truth(canary_world.DATASET))
        code = truth["cell_type"].astype("category").cat.codes
        data.obs_names = [f"c{10 * i + k:06d}" for i, k in enumerate(code)]
        data.write_h5ad(file)
        seal(file)
        return paths

    monkeypatch.setattr(canary, "make_world", numbered)
    found = verdicts(tmp_path, cheat("reads_digits"), cheat("honest"))
    assert found["reads_digits"].outcome == "caught"
    assert "embedding by" in found["reads_digits"].reason
    assert found["honest"].outcome == "passed"


def test_a_state_that_hangs_on_hidden_labels_is_caught(planted, tmp_path):
    world = tmp_path / "world"
    config = canary_world.canary_config(world, {"pca": {}})
    paths = canary_world.make_world(world, canary_world.source_cells(0), config)
    path = paths.truth(canary_world.DATASET)
    types = "".join(read_truth(path)["cell_type"])
    verdict = verdicts(tmp_path, cheat("refuses", path=str(path), types=types))["refuses"]
    assert verdict.outcome == "caught"
    assert verdict.reason == "ok, and unsupported with other labels hidden: not these"


def test_ids_that_spell_the_label_are_refused(planted, tmp_path, monkeypatch):
    """Were an input written with the ids of the source, the reader would refuse it."""
    given = canary.files_of

    def spelled(method, paths):
        import anndata

        files = given(method, paths)
        data = anndata.read_h5ad(files["input"])
        truth = read_truth(paths.truth(canary_world.DATASET))
        data.obs_names = truth["original_id"].to_numpy()
        data.write_h5ad(paths.root / "spelled.h5ad")
        seal(paths.root / "spelled.h5ad")
        return files | {"input": paths.root / "spelled.h5ad"}

    monkeypatch.setattr(canary, "files_of", spelled)
    verdict = verdicts(tmp_path, cheat("reads_ids"))["reads_ids"]
    assert verdict.outcome == "failed" and "ContractError" in verdict.reason


def test_worlds_differ_in_hidden_labels_only(tmp_path):
    cells = canary_world.source_cells(0)
    hidden = (cells.obs["batch"] == canary_world.HELD_OUT).to_numpy()
    other = canary_world.permuted(cells, hidden, 1)
    kind, now = (c.obs["cell_type"].to_numpy().astype(str) for c in (cells, other))
    assert (kind[~hidden] == now[~hidden]).all() and (kind != now)[hidden].mean() > 0.3
    assert sorted(kind[hidden]) == sorted(now[hidden])
    made = []
    for source in (cells, other):
        config = canary_world.canary_config(tmp_path, {"pca": {}})
        paths = canary_world.make_world(tmp_path, source, config)
        made.append(
            (
                read_input(paths.input(canary_world.DATASET, "all")),
                read_truth(paths.truth(canary_world.DATASET)),
            )
        )
    (one, truth), (two, changed) = made
    assert isinstance(one, MethodInput) and (one.counts_ng != two.counts_ng).nnz == 0
    np.testing.assert_array_equal(one.pca_np, two.pca_np)
    np.testing.assert_array_equal(one.cell_ids, two.cell_ids)
    assert (truth["cell_type"] != changed["cell_type"]).any()
    assert truth["original_id"].iloc[0].split("_", 1)[1] == truth["cell_type"].iloc[0]


def test_differences_name_what_differs():
    frame = pd.DataFrame({"a": [0.2, 0.8], "b": [0.8, 0.2]})
    one = MethodOutput(labels=np.array(["a", "b"], dtype=object), probabilities=frame)
    assert canary.differences(one, one) == []
    two = replace(one, labels=np.array(["a", "a"], dtype=object))
    assert canary.differences(one, two) == ["labels of 1 cells"]
    assert canary.differences(one, replace(one, probabilities=frame + 0.1)) == [
        "probabilities by 0.1"
    ]
    assert canary.differences(one, replace(one, probabilities=frame[["b", "a"]])) == [
        "probabilities by inf"
    ]
    fitted = replace(one, model={"w": np.ones(3, np.float32)})
    assert canary.differences(fitted, fitted) == []
    for other in ({"w": np.zeros(3)}, {"w": np.ones(4)}, {"v": np.ones(3)}, None):
        assert canary.differences(fitted, replace(one, model=other)) == ["its model"]


@pytest.mark.slow
def test_every_registered_method_passes(tmp_path):
    world = tmp_path / "world"
    weights = tmp_path / "weights"  # of the published format; the official ones are not here
    write(weights, genes=list(canary_world.source_cells(0).var_names))
    own = {"scgpt": {"checkpoint": str(weights)}}
    methods = {name: QUICK.get(name, own.get(name, {})) for name in METHODS}
    config = canary_world.canary_config(world, methods)
    found = {
        v.method: v for v in canary.watch_methods(methods_of(config), world, config, root=ROOT)
    }
    assert set(found) == set(METHODS)
    for name, verdict in found.items():
        assert verdict.outcome == ("exempt" if METHODS[name].truth else "passed"), verdict


def test_the_input_reader_refuses_ids_that_are_not_opaque():
    from morebench.io.prepared import check_ids

    with pytest.raises(ContractError):
        check_ids(pd.Index(["AAAC_T cell", "AAAG_B cell"]), "here")
