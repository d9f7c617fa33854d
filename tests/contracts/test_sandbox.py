"""Nothing of the truth is in what a method's process is given: tested on values.

The same tests run on small files made here and on real ones (with MOREBENCH_DATA): sorted
PBMC whose cell ids end in the label, SNARE-seq which repeats labels per modality, and the
Kang donors, which carry a published t-SNE.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from anndata.io import read_elem
from scipy import stats
from tests.seal import names

from morebench import runner
from morebench.config import load, methods_of
from morebench.data.features import make_input
from morebench.data.prepare import prepare
from morebench.data.spec import splits_of
from morebench.data.splits import make_split
from morebench.io.inputs import write_input
from morebench.io.outputs import Status
from morebench.io.prepared import read_prepared, read_truth, write_prepared, write_truth
from morebench.io.splits import read_split, write_split

TYPES = ("Alveolar", "Basal-like", "Club cells", "Deuterosomal")
N, G = 240, 60


# --- the files ----------------------------------------------------------------------------


def _counts(n_genes, seed=0):
    return sp.csr_matrix(np.random.default_rng(seed).poisson(1.5, (N, n_genes)).astype(np.float32))


def _obs(ids):
    """The tables of a file sorted by type, one column of which is a code of the labels."""
    types = np.repeat(TYPES, N // 4)
    return pd.DataFrame(
        {
            "batch": pd.Categorical([f"b{i % 3}" for i in range(N)]),
            "donor": pd.Categorical([f"d{i % 5}" for i in range(N)]),
            "cell_type": pd.Categorical(types),
            "cluster": np.repeat(np.arange(4), N // 4),
        },
        index=ids,
    )


def ids_that_end_in_the_label(folder):
    """A file sorted by type; cell ids and var columns spell the label."""
    types = np.repeat(TYPES, N // 4)
    obs = _obs([f"ACGTACGT{i:04d}-1-{t}" for i, t in enumerate(types)])
    var = pd.DataFrame(
        {"gene_id": [f"ENSG{j}" for j in range(G)], "marker_of": np.resize(TYPES, G)},
        index=[f"gene{j}" for j in range(G)],
    )
    data = anndata.AnnData(_counts(G), obs=obs, var=var)
    data.uns["cell_type_colors"] = list(TYPES)
    data.raw = data.copy()
    data.layers["logged"] = data.X.copy()
    data.write_h5ad(folder / "data.h5ad")
    return {"path": str(folder / "data.h5ad")}


def labels_in_every_modality(folder):
    """Labels stand in the global table, in each modality, and prefixed by it."""
    obs = _obs([f"b{i % 3}_ACGTACGT{i:04d}" for i in range(N)])
    parts = {}
    for name, n_genes in (("rna", G), ("atac", 30)):
        var = pd.DataFrame(index=[f"{name}{j}" for j in range(n_genes)])
        parts[name] = anndata.AnnData(_counts(n_genes, seed=1), obs=obs.copy(), var=var)
        parts[name].obsm["by_type"] = pd.get_dummies(obs["cell_type"]).to_numpy(dtype=float)
        parts[name].uns["types"] = list(TYPES)
    parts["atac"] = parts["atac"][: N - 40].copy()
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(parts)
        data.obs = obs.assign(**{"rna:cell_type": obs["cell_type"]})
        data.uns["types"] = list(TYPES)
        data.write(folder / "data.h5mu")
    return {"path": str(folder / "data.h5mu")}


def a_published_embedding(folder):
    """A t-SNE in obsm and obs, distances in obsp."""
    obs = _obs([f"ACGTACGT{i:04d}-1" for i in range(N)])
    rng = np.random.default_rng(2)
    tsne = np.repeat(rng.normal(scale=20, size=(4, 2)), N // 4, axis=0) + rng.normal(size=(N, 2))
    obs["tsne1"], obs["tsne2"] = tsne.T
    var = pd.DataFrame(index=[f"gene{j}" for j in range(G)])
    data = anndata.AnnData(_counts(G, seed=3), obs=obs, var=var)
    data.obsm["X_tsne_published"] = tsne
    data.obsp["distances"] = sp.csr_matrix(np.eye(N))
    data.write_h5ad(folder / "data.h5ad")
    return {"path": str(folder / "data.h5ad")}


SMALL = {
    "labels": {"column": "cell_type", "source": "expert"},
    "batch": "batch",
    "donor": "donor",
    "features": {"n_top": 40, "n_pcs": 10},
    "splits": {"lobo": ["b1"]},
}
REAL = {"batch": "batch", "features": {"n_top": 500, "n_pcs": 20}}
CASES = {
    "ids": (ids_that_end_in_the_label, SMALL),
    "newtype": (ids_that_end_in_the_label, {**SMALL, "splits": {"newtype": [TYPES[1]]}}),
    "modalities": (labels_in_every_modality, SMALL),
    "tsne": (a_published_embedding, SMALL),
    "zheng": (
        "pbmc_facs_zheng2017.h5ad",
        {
            **REAL, "splits": {"partial": {}},
            "labels": {"column": "cell_type", "fine": "celltype_fine", "source": "assay"},
        },
    ),
    "snare": (
        "snareseq_mouse_cortex_rna_atac.h5mu",
        {
            **REAL, "splits": {"lobo": ["09A"]},
            "labels": {
                "column": "cell_type", "fine": "cell_type_fine", "source": "expert",
                "missing": ["Mis"],
            },
        },
    ),
    "kang": (
        "kang2018_pbmc_ctrl_8donors.h5ad",
        {
            **REAL, "donor": "donor", "splits": {"lobo": ["donor_101"]},
            "labels": {"column": "cell_type", "source": "expert"},
        },
    ),
}  # fmt: skip


# --- what is given, and what must not be in it --------------------------------------------


@dataclass
class Secrets:
    """What the source file holds beyond what methods may see."""

    obs: pd.DataFrame
    labels: set[str]
    ids: set[str]
    features: set[str]
    embedding: np.ndarray | None


@dataclass
class Given:
    """What each kind of method found in its work directory."""

    folders: dict[str, Path]
    task: dict[str, Any]
    truth: pd.DataFrame
    split: pd.DataFrame
    secrets: Secrets
    prepared: Path


def secrets_of(path: Path, levels: list[str]) -> Secrets:
    with h5py.File(path) as file:
        obs = read_elem(file["obs"])
        groups = list(file["mod"].values()) if "mod" in file else [file]
        features = {str(g) for m in groups for g in read_elem(m["var"]).index}
        features |= {str(v) for m in groups for v in read_elem(m["var"]).get("gene_id", ())}
        names = [k for k in file["obsm"] if "tsne" in k]
        embedding = np.asarray(read_elem(file["obsm"][names[0]])) if names else None
    labels = {str(v) for c in levels for v in obs[c].dropna().unique()}
    return Secrets(obs, labels, set(obs.index.astype(str)), features, embedding)


def watched(command, environment, limits, log, *others):
    """Stand in for ``runner.watch``: keep a copy of the work directory, run nothing."""
    shutil.copytree(command[-1], log.with_suffix(""))
    return runner.Watched(1, "", 0.0, 0.0, 0.0)


def run_case(folder: Path, source: Any, settings: dict[str, Any], patch: Any) -> Given:
    """Take a file through prepare, split and input to three methods' work directories."""
    content = {
        "datasets": {"d": {**source, **settings}},
        "methods": {"harmony": {}, "scanvi": {}, "scrublet": {}},
    }
    config = load(content)
    dataset = config.datasets["d"]
    levels = [settings["labels"][k] for k in ("column", "fine") if k in settings["labels"]]
    result = prepare("d", dataset)
    write_truth(folder / "truth.parquet", result.truth)
    write_prepared(folder / "prepared.h5mu", result.data, result.truth)
    data, truth = read_prepared(folder / "prepared.h5mu"), read_truth(folder / "truth.parquet")
    split, held = list(splits_of(dataset).items())[-1]
    batch = data.obs["batch"].astype(str).to_numpy()
    table, facts = make_split(split, held, truth, batch, dataset.splits.partial)
    write_split(folder / "split.parquet", table, facts)
    given = make_input(data, table["fit_visible"].to_numpy(), dataset.features, "d")
    write_input(folder / "input.h5ad", given.data)

    patch.setattr(runner, "watch", watched)
    folders = {}
    shown = read_split(folder / "split.parquet")
    for name, method in methods_of(config).items():
        files = {runner.INPUT_NAMES["input"]: folder / "input.h5ad"}
        if method.spec.all_genes:
            files[runner.INPUT_NAMES["all_genes"]] = folder / "prepared.h5mu"
        labels = None
        if method.spec.track == "semi-supervised":
            labels = tuple(shown[k].to_numpy(dtype=object) for k in ("cell_id", "label"))
        status = Status("d", split, name, 0, "failed", log=str(folder / "seen" / f"{name}.log"))
        runner.run(
            method.settings(), status, files=files, labels=labels,
            output=folder / "out" / name, limits=runner.Limits(1, 1000, 60),
        )  # fmt: skip
        folders[name] = folder / "seen" / name
    path = Path(source["path"])
    return Given(folders, content, truth, shown, secrets_of(path, levels), folder / "prepared.h5mu")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(c, marks=[pytest.mark.slow] if c in list(CASES)[4:] else []) for c in CASES
    ],
)
def given(request, tmp_path_factory, data_file):
    """One dataset, taken to the work directories of three methods."""
    source, settings = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    found = {"path": str(data_file(source))} if isinstance(source, str) else source(folder)
    with pytest.MonkeyPatch.context() as patch:
        return run_case(folder, found, settings, patch)


def texts(path: Path) -> list[str]:
    """Every text of an HDF5 file: names, attributes, values."""
    found: list[str] = []

    def take(value: Any) -> None:
        values = np.asarray(value).ravel()
        if values.dtype.kind in "OSU":
            found.extend(v.decode() if isinstance(v, bytes) else str(v) for v in values)

    def visit(name: str, item: Any) -> None:
        found.append(name)
        for key, value in item.attrs.items():
            found.append(key)
            take(value)
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSU":
            take(item[()])

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def numbers(path: Path, n_cells: int) -> dict[str, np.ndarray]:
    """Every numeric column of an HDF5 file with one row a cell."""
    columns = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
            return
        if item.shape and item.shape[0] == n_cells:
            values = item[()].reshape(n_cells, -1).astype(float)
            columns.update({f"{name}[{j}]": values[:, j] for j in range(values.shape[1])})

    with h5py.File(path) as file:
        file.visititems(visit)
    return columns


def hdf5_files(folders):
    return [p for f in folders.values() for p in sorted(f.iterdir()) if p.suffix[:3] == ".h5"]


# --- the tests ----------------------------------------------------------------------------


def test_the_work_directory_holds_what_the_spec_declares(given):
    found = {name: names(folder) for name, folder in given.folders.items()}
    assert found == {
        "harmony": ["input.h5ad", "task.json"],
        "scanvi": ["input.h5ad", "labels.parquet", "task.json"],
        "scrublet": ["all_genes.h5mu", "input.h5ad", "task.json"],
    }
    seen = (given.folders["scrublet"] / "all_genes.h5mu").read_bytes()
    assert seen == given.prepared.read_bytes()


def test_no_text_holds_a_label_or_an_original_id(given):
    secrets = given.secrets
    pieces = {p for i in secrets.ids for p in re.split(r"[^A-Za-z0-9]+", i) if len(p) >= 10}
    assert len(secrets.labels) >= 4
    assert len(pieces) > len(secrets.ids) / 2
    for path in hdf5_files(given.folders):
        found = texts(path)
        assert len(found) > len(given.truth)  # the ids were walked
        own = [t for t in found if t not in secrets.features]
        assert not secrets.labels & set(own)
        assert not secrets.ids & set(own)
        whole = "\n".join(own)
        assert not [v for v in secrets.labels if len(v) > 3 and v in whole]
        assert not [p for p in pieces if p in whole]


def test_no_byte_string_holds_a_label_or_an_original_id(given):
    """Also where no reader looks: free space, caches, headers."""
    allowed = "\n".join(given.secrets.features)
    labels = [v for v in given.secrets.labels if len(v) > 4 and v not in allowed]
    assert labels
    some = sorted(given.secrets.ids)[:: max(1, len(given.secrets.ids) // 60)]
    for path in [*hdf5_files(given.folders), *(f / "task.json" for f in given.folders.values())]:
        content = path.read_bytes()
        assert not [v for v in labels if v.encode() in content]
        assert not [v for v in some if v.encode() in content]


def test_the_task_names_neither_dataset_nor_paths(given):
    for folder in given.folders.values():
        text = (folder / "task.json").read_text()
        source = Path(given.task["datasets"]["d"]["path"])
        for word in (
            source.stem,
            str(source.parent),
            str(given.prepared.parent),
            "lobo",
            "partial",
        ):
            assert word not in text


def test_shown_labels_are_the_truth_of_shown_cells(given):
    path = given.folders["scanvi"] / "labels.parquet"
    table = pq.read_table(path)
    assert table.column_names == ["cell_id", "label"]
    frame = table.to_pandas()
    truth = given.truth.set_index("cell_id")["cell_type"]
    shown = given.split.loc[given.split["label"].notna(), "cell_id"]
    assert frame["cell_id"].tolist() == shown.tolist()
    assert 0 < len(frame) < truth.notna().sum()
    assert (frame["label"].to_numpy() == truth.loc[frame["cell_id"]].to_numpy()).all()
    scored = set(given.split.loc[given.split["scored"], "cell_id"])
    assert scored and not scored & set(frame["cell_id"])
    meta = str(table.schema.metadata)
    assert not [v for v in (*given.secrets.labels, *given.secrets.ids) if len(v) > 3 and v in meta]


def test_a_type_that_only_hidden_cells_have_is_not_named(given):
    truth = given.truth.set_index("cell_id")["cell_type"]
    shown = set(pd.read_parquet(given.folders["scanvi"] / "labels.parquet")["label"])
    assert shown <= set(truth.dropna())
    hidden = set(given.secrets.labels) - shown
    content = (given.folders["scanvi"] / "labels.parquet").read_bytes()
    assert not [v for v in hidden if len(v) > 3 and v.encode() in content and
                not any(v in s for s in shown)]  # fmt: skip


def test_ids_are_opaque(given):
    wanted = [f"c{i:06d}" for i in range(1, len(given.truth) + 1)]
    assert given.truth["cell_id"].tolist() == wanted
    for path in hdf5_files(given.folders):
        with h5py.File(path) as file:
            assert read_elem(file["obs"]).index.tolist() == wanted
            for part in file.get("mod", {}).values():
                assert set(read_elem(part["obs"]).index) <= set(wanted)


def test_no_column_is_a_code_of_the_labels(given):
    """A column of few values must not go one to one with a level of the labels."""
    order = given.truth["original_id"]
    levels = [c for c in given.secrets.obs if given.secrets.obs[c].nunique() > 1]
    levels = [c for c in levels if c in ("cell_type", "celltype_fine", "cell_type_fine")]
    assert levels
    for path in hdf5_files(given.folders):
        for name, values in numbers(path, len(given.truth)).items():
            if not 1 < len(np.unique(values)) <= 50:
                continue
            for level in levels:
                labels = given.secrets.obs.loc[order, level].astype(str).to_numpy()
                pairs = set(zip(values, labels, strict=True))
                assert len(pairs) > max(len(np.unique(values)), len(np.unique(labels))), name


def test_what_fitting_saw_does_not_tell_scored_cells_apart(given):
    scored = given.split[given.split["scored"]]
    assert len(scored) and scored["fit_visible"].nunique() == 1


def test_no_numbers_encode_a_published_embedding(given):
    if given.secrets.embedding is None:
        assert "tsne" not in "\n".join(given.secrets.obs.columns)  # nothing to look for
        return
    place = given.secrets.obs.index.get_indexer(given.truth["original_id"])
    published = given.secrets.embedding[place]
    published = (published - published.mean(0)) / published.std(0)
    for path in hdf5_files(given.folders):
        columns = {k: v for k, v in numbers(path, len(given.truth)).items() if np.ptp(v) > 0}
        assert any("total_counts" in k or "X_pca" in k for k in columns)
        for name, values in columns.items():
            for axis in published.T:
                assert abs(np.corrcoef(values, axis)[0, 1]) < 0.95, name
                assert abs(stats.spearmanr(values, axis)[0]) < 0.95, name
        # Together they must not give it either, beyond what expression says of any cell.
        x = np.column_stack([np.ones(len(published)), *columns.values()])
        rest = published - x @ np.linalg.lstsq(x, published, rcond=None)[0]
        assert (1 - (rest**2).mean(0) < 0.98).all()


def test_the_order_of_cells_is_not_that_of_the_file(given):
    place = given.secrets.obs.index.get_indexer(given.truth["original_id"])
    assert sorted(place) == list(range(len(place)))
    n = len(place)
    limit = 4 / np.sqrt(n)  # four standard deviations of a random order
    assert abs(stats.spearmanr(place, np.arange(n))[0]) < limit
    assert (np.abs(np.diff(place)) == 1).mean() < 4 * 2 / n + 0.01
    labels = given.secrets.obs["cell_type"].astype(str).to_numpy()
    chance = sum((c / n) ** 2 for c in Counter(labels).values())
    now = (labels[place][1:] == labels[place][:-1]).mean()
    assert abs(now - chance) < 4 * np.sqrt(chance * (1 - chance) / n)


def test_the_order_is_the_same_each_time(given, tmp_path):
    again = prepare("d", load(given.task).datasets["d"])
    assert again.truth["original_id"].tolist() == given.truth["original_id"].tolist()


def test_the_small_files_do_hold_what_is_looked_for(tmp_path):
    """The searches above find the labels, ids and embeddings in the files they come from."""
    for source in (ids_that_end_in_the_label, labels_in_every_modality, a_published_embedding):
        folder = tmp_path / source.__name__
        folder.mkdir()
        path = Path(source(folder)["path"])
        secrets = secrets_of(path, ["cell_type"])
        found = texts(path)
        assert secrets.labels <= set(found)
        assert secrets.ids <= set(found)
        assert any(v.encode() in path.read_bytes() for v in secrets.labels)
        columns = numbers(path, N)
        labels = secrets.obs["cell_type"].astype(str)
        spelled = [k for k, v in columns.items() if len(set(zip(v, labels, strict=True))) == 4]
        assert any("cluster" in k for k in spelled)
        if secrets.embedding is not None:
            same = [k for k, v in columns.items() if np.allclose(v, secrets.embedding[:, 0])]
            assert len(same) == 2
