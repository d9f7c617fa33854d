"""Every dataset of config/paper.yaml, from files of its layout to counts and labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.geo import downloads, lay_out
from tests.servers import Server

from morebench.config import load, load_file
from morebench.data.obtain import obtain
from morebench.data.prepare import prepare
from morebench.io.prepared import read_prepared, write_prepared

CONFIG = Path(__file__).parents[2] / "config" / "paper.yaml"
NAMES = list(yaml.safe_load(CONFIG.read_text())["datasets"])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The files on a server, and paper.yaml pointed at it; genes and hashes fit small files."""
    folder = tmp_path_factory.mktemp("geo")
    made = lay_out(folder / "files")
    content = yaml.safe_load(CONFIG.read_text())
    for dataset in content["datasets"].values():
        dataset["features"] = {"n_top": 40, "n_pcs": 5, "min_cells": 1}
        dataset["sha256"] = {}
    with Server(folder / "files") as server:
        content["downloads"] = downloads(server.url, folder / "cache", folder / "data.lock")
        yield load(content), made


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_of_the_paper_is_read_as_it_was_written(world, name, tmp_path):
    config, made = world
    files = [Path(f["path"]) for f in obtain(config.datasets[name], config.downloads, name)]
    result = prepare(name, config.datasets[name], files)
    write_prepared(tmp_path / "d.h5mu", result.data, result.truth)
    truth = result.truth.set_index("cell_id")["original_id"]
    counts = pd.concat(
        [
            pd.DataFrame(part.X.toarray(), index=truth[part.obs_names], columns=part.var_names)
            for part in read_prepared(tmp_path / "d.h5mu").mod.values()
        ],
        axis=1,
    )
    expected = made[name].counts
    assert sorted(counts.index) == sorted(expected.index)
    assert sorted(counts.columns) == sorted(expected.columns)
    np.testing.assert_array_equal(counts.loc[expected.index, expected.columns], expected)
    if config.datasets[name].labels is not None:
        labels = result.truth.set_index("original_id")["cell_type"].loc[expected.index]
        wanted = made[name].labels.loc[expected.index]
        assert labels.fillna("-").tolist() == wanted.fillna("-").tolist()


def test_what_else_the_files_say_is_mapped(world):
    config, _ = world

    def prepared(name):
        files = [Path(f["path"]) for f in obtain(config.datasets[name], config.downloads, name)]
        return prepare(name, config.datasets[name], files)

    assert prepared("baron").facts["batches"] == 4
    muraro = prepared("muraro")
    assert set(muraro.data.obs["batch"]) == {"D28", "D29", "D30", "D31"}
    assert muraro.facts["cells_before_qc"] == 160 and muraro.facts["cells"] == 156
    donors = prepared("kang_donors")
    assert set(donors.data.obs["batch"]) == set(config.datasets["kang_donors"].splits.lobo)
    doublet = donors.truth["is_doublet"]
    assert [(doublet == 1).sum(), (doublet == 0).sum(), doublet.isna().sum()] == [4, 88, 4]
    cite = prepared("bmmc_cite").data
    assert {k: v.n_vars for k, v in cite.mod.items()} == {"rna": 60, "adt": 20}
    assert set(cite.mod["rna"].var["gene_id"]) == {f"ENSG{i:011d}" for i in range(60)}
    assert set(prepared("bmmc_multiome").data.mod) == {"rna", "atac"}
    snare = prepared("snare").data
    assert {k: v.n_vars for k, v in snare.mod.items()} == {"rna": 60, "atac": 30}


def test_every_dataset_says_where_it_comes_from_and_why():
    config = load_file(CONFIG)
    for name, dataset in config.datasets.items():
        assert dataset.about is not None and dataset.geo is not None, name
        assert dataset.geo.accession in str(dataset.about.accession).split(", ")
        assert dataset.labels is None or dataset.about.labels
