"""The tutorial runs as it stands; what it claims, its own cells assert."""

import contextlib
import io
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs/tutorials/more.ipynb"


@pytest.fixture(scope="module")
def notebook():
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def code_of(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def test_it_is_stored_without_outputs(notebook):
    assert [c.id for c in code_of(notebook) if c.outputs or c.execution_count] == []


def test_its_links_lead_somewhere(notebook):
    text = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert "](../methods/more.md)" in text
    assert (NOTEBOOK.parent / "../methods/more.md").is_file()


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg", force=True)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "tutorial"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in code_of(notebook):
            exec(compile(cell.source, f"{NOTEBOOK.name}, {cell.id}", "exec"), names)
    assert "hidden cells are right" in printed.getvalue() and "frozen" in printed.getvalue()
    # the notebook's own claims, so that an assertion taken out of it does not go unseen
    assert names["accuracy"] > 0.9 and names["accuracy_new"] > 0.85
    assert names["auroc_after"] > names["auroc_before"]
    assert (tmp_path / "my_model" / "model.safetensors").is_file()
    print(printed.getvalue())
