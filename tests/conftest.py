"""What many tests share: small valid files, small valid configurations, the real data."""

import copy
import os
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

REPOSITORY = Path(__file__).parents[1]
BATCHES = ("b1", "b2", "b3")
TYPES = ("T cell", "B cell", "NK cell", "Monocyte")


def pytest_collection_modifyitems(items):
    """Put what runs Snakemake first: with several workers the short tests fill the end."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several workers a file goes to one of them; all of tests/faults, which share a run."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return "tests/faults" if file.startswith("tests/faults/") else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def repository():
    """The folder that the Snakefile stands in."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """The configuration of a small whole run."""
    return yaml.safe_load((REPOSITORY / "tests/configs/tiny.yaml").read_text())


@pytest.fixture(scope="session")
def data_file():
    """Return the path of a real dataset's file; skip where there are none."""

    def find(name):
        folder = os.environ.get("MOREBENCH_DATA")
        if not folder:
            pytest.skip("MOREBENCH_DATA is not set: no real data")
        return Path(folder) / name

    return find


@pytest.fixture
def make_adata():
    """Return a function that makes a small valid AnnData: counts, batch, donor, cell_type."""

    def make(n_cells=60, n_genes=40, *, seed=0, genes=None, cells=None, **obs):
        rng = np.random.default_rng(seed)
        index = list(cells) if cells is not None else [f"cell-{i}" for i in range(n_cells)]
        n_cells = len(index)
        var = list(genes) if genes is not None else [f"gene{j}" for j in range(n_genes)]
        columns = {
            "batch": [BATCHES[i % 3] for i in range(n_cells)],
            "donor": [f"d{i % 5}" for i in range(n_cells)],
            "cell_type": [TYPES[(i // 3) % 4] for i in range(n_cells)],
            "is_doublet": [i % 10 == 0 for i in range(n_cells)],
            **obs,
        }
        frame = pd.DataFrame({k: v for k, v in columns.items() if v is not None}, index=index)
        counts = rng.poisson(1.5, (n_cells, len(var))).astype(np.float32)
        return anndata.AnnData(sp.csr_matrix(counts), obs=frame, var=pd.DataFrame(index=var))

    return make


@pytest.fixture
def h5ad(tmp_path, make_adata):
    """Return a function that writes a small h5ad and returns its path."""

    def write(name="data.h5ad", data=None, **changes):
        path = tmp_path / name
        (make_adata(**changes) if data is None else data).write_h5ad(path)
        return str(path)

    return write


@pytest.fixture
def h5mu(tmp_path):
    """Return a function that writes modalities, and obs of all their cells, as h5mu."""

    def write(modalities, obs=None, name="data.h5mu"):
        path = tmp_path / name
        with mudata.set_options(pull_on_update=False):
            data = mudata.MuData(modalities)
            if obs is not None:
                data.obs = obs.loc[data.obs_names]
            data.write(path)
        return str(path)

    return write


@pytest.fixture
def config_of():
    """Return a function that gives a valid configuration of one dataset ``d``, with changes.

    A change of None takes the dataset's key out.
    """

    def make(path="data.h5ad", *, methods=None, top=None, **dataset):
        content = {
            "datasets": {
                "d": {
                    "path": path,
                    "batch": "batch",
                    "labels": {"column": "cell_type", "source": "expert"},
                    "features": {"n_top": 30, "n_pcs": 5},
                    "tasks": ["integration"],
                    **dataset,
                }
            },
            "methods": {"pca": {}} if methods is None else methods,
            **(top or {}),
        }
        for key in [k for k, v in content["datasets"].get("d", {}).items() if v is None]:
            del content["datasets"]["d"][key]
        return copy.deepcopy(content)

    return make
