"""The import direction, and what each layer may import at all."""

import graphlib
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("import_map", ROOT / "docs/make_import_map.py")
import_map = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(import_map)

PACKAGE = import_map.PACKAGE
MODULES = import_map.modules(PACKAGE)
HEAVY = {
    "anndata", "faiss", "harmonypy", "igraph", "jax", "leidenalg", "lightning", "matplotlib",
    "mudata", "scanpy", "scib_metrics", "scrublet", "scvi", "sklearn", "torch", "transformers",
    "umap",
}  # fmt: skip
OF_MODELS = {"torch", "numpy", "scipy", "sklearn", "faiss", "transformers", "safetensors"}


def heads(path, lazy=True):
    return {name.split(".")[0] for name in import_map.imported(path, lazy)}


def package(folder, files):
    for name, text in files.items():
        path = folder / "morebench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "morebench"


# --- the library as it is ---------------------------------------------------------------


def test_imports_point_down():
    assert import_map.violations(PACKAGE) == []


def test_every_layer_is_there_once_and_modules_do_not_import_each_other_in_circles():
    assert len(set(import_map.GROUPS)) == len(import_map.GROUPS)
    graph = import_map.module_imports(PACKAGE)
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES) > 50


@pytest.mark.parametrize("name", sorted(MODULES))
def test_heavy_packages_are_imported_where_they_are_needed(name):
    eager = {"torch"} if name.startswith("models.") else set()  # networks are torch code
    assert heads(MODULES[name], lazy=False) & HEAVY <= eager


def test_the_library_never_imports_snakemake():
    assert [n for n, path in MODULES.items() if "snakemake" in heads(path)] == []


def test_registry_and_errors_rest_on_the_standard_library():
    for name in ("errors", "files", "provenance", "child"):
        own = heads(MODULES[name], lazy=False) - {"morebench"}
        assert own <= sys.stdlib_module_names, name
    registry = [name for name in MODULES if name.split(".")[0] == "registry"]
    assert len(registry) > 1
    for name in registry:
        assert heads(MODULES[name]) - {"morebench"} <= sys.stdlib_module_names, name


def test_models_run_where_scanpy_is_absent():
    allowed = OF_MODELS | sys.stdlib_module_names
    for name, path in MODULES.items():
        if name.split(".")[0] == "models":
            own = {n for n in import_map.imported(path) if n.split(".")[0] == "morebench"}
            assert heads(path) - {"morebench"} <= allowed, name
            below = ("morebench.models", "morebench.errors", "morebench.files")
            assert all(n.startswith(below) for n in own), name


def test_metrics_take_arrays_and_return_numbers():
    found = {n: path for n, path in MODULES.items() if n.split(".")[0] == "metrics"}
    assert len(found) > 5
    for name, path in found.items():
        banned = {"matplotlib", "seaborn", "pathlib", "io", "os", "anndata", "mudata", "h5py"}
        assert heads(path) & banned == set(), name
        assert not [n for n in import_map.imported(path) if n.startswith("morebench.io")], name


# --- the map and the rules themselves ------------------------------------------------------


def test_the_page_holds_the_map_of_the_real_imports():
    assert import_map.main(["--check"]) == 0, "run: python docs/make_import_map.py"


def test_check_fails_when_an_import_is_added(tmp_path, capsys):
    own = package(tmp_path, {"errors.py": '"""E."""', "config.py": '"""C."""'})
    page = tmp_path / "page.md"
    page.write_text(f"above\n{import_map.BEGIN}\n{import_map.END}\nbelow\n")
    assert import_map.main(["--check"], page, own) == 1
    assert "stale" in capsys.readouterr().out
    assert import_map.main([], page, own) == 0
    assert import_map.main(["--check"], page, own) == 0
    (own / "config.py").write_text('"""C."""\ndef f():\n    from morebench.errors import X\n')
    assert import_map.main(["--check"], page, own) == 1
    assert import_map.main([], page, own) == 0
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n")
    assert "  config --> errors" in text and "| 9 | `config` | C | `errors` |" in text


def test_an_upward_import_is_found_also_inside_a_function(tmp_path):
    own = package(
        tmp_path,
        {
            "registry.py": "def f():\n    import morebench.plots.style\n",
            "plots/__init__.py": "",
            "plots/style.py": "from morebench import registry\n",
            "io/__init__.py": "",
            "io/a.py": "from morebench.contract import MethodInput\n",
            "io/b.py": "from morebench.methods.pca import run\n",
            "methods/__init__.py": "",
            "contract.py": "",
            "methods/pca.py": "from morebench.io import a\n",
        },
    )
    assert import_map.violations(own) == [
        "io.b imports methods.pca, which is above it",
        "registry imports plots.style, which is above it",
    ]


def test_a_module_without_a_layer_and_a_relative_import_are_errors(tmp_path):
    own = package(tmp_path, {"novel.py": "import morebench.errors", "errors.py": ""})
    with pytest.raises(SystemExit, match="novel has no layer"):
        import_map.violations(own)
    own = package(tmp_path / "b", {"config.py": "from . import errors"})
    with pytest.raises(SystemExit, match="config.py:1: relative import"):
        import_map.violations(own)


def test_imports_at_import_time_are_told_from_later_ones(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import scanpy\nelse:\n    import jax\n"
        "try:\n    import torch\nexcept ImportError:\n    pass\n"
        "class A:\n    import faiss\n    def f(self):\n        import umap\n"
    )
    assert heads(path, lazy=False) == {"typing", "jax", "torch", "faiss"}
    assert heads(path) == {"typing", "scanpy", "jax", "torch", "faiss", "umap"}
