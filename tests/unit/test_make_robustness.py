"""The page of robustness curves says what the tables say."""

import importlib.util
import json
import sys

import pandas as pd
import pytest

from morebench.robustness.table import COLUMNS


@pytest.fixture
def script(repository, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "docs"))
    spec = importlib.util.spec_from_file_location(
        "make_robustness", repository / "docs/make_robustness.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(module, "PAGE", tmp_path / "docs" / "robustness.md")
    return module


def test_every_point_stands_in_the_page_and_a_missing_one_has_its_word(
    script, tmp_path, monkeypatch
):
    results = tmp_path / "copied"
    (results / "tables").mkdir(parents=True)
    (results / "figures" / "d").mkdir(parents=True)
    (results / "figures/d/robustness.png").write_bytes(b"a preview")
    (results / "config.yaml").write_text("results: results/own\n")
    facts = {"config_hash": "abc", "commit": "def", "python": "3", "packages": {}}
    (results / "tables/run.json").write_text(json.dumps(facts))
    common = {"dataset": "d", "task": "annotation", "split": "lobo", "track": "x", "n": 1}
    rows = [
        ("dropout", "", 0, "macro_f1", "MoRE", 0.9, 0.85, 0.95, 100, "ok"),
        ("dropout", "", 0.9, "macro_f1", "MoRE", None, None, None, 0, "out_of_memory"),
        ("titration", "NK", 0.0743, "type_f1", "MoRE", 0.5, 0.5, 0.5, 300, "ok"),
        ("titration", "NK", 0.0005, "type_f1", "MoRE", 0.25, 0.1, 0.6, 5, "ok"),
    ]
    names = [
        "change", "cell_type", "level", "metric", "title", "mean", "low", "high", "n_cells",
        "status",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=names).assign(method="more", reason="", **common)
    tables = {
        "robustness": table[list(COLUMNS)],
        "datasets": pd.DataFrame({"name": ["d"], "title": ["The data"]}),
        "runtime": pd.DataFrame({"cpu_s": [60.0, 120.0]}),
        "manifest": pd.DataFrame({"dataset": ["d", "d"], "split": ["all", "lobo-b1"]}),
    }
    for name, frame in tables.items():
        frame.to_csv(results / f"tables/{name}.tsv", sep="\t", index=False)
    monkeypatch.setattr(sys, "argv", ["make_robustness.py", str(results), "--note", "Beware."])
    script.main()
    page = (tmp_path / "docs/robustness.md").read_text()
    assert "| method | 0 % | 90 % |" in page
    assert "| MoRE | 0.900 (0.850 to 0.950) | out of memory |" in page
    assert "| MoRE | 0.500 | 0.250 (0.100 to 0.600) |" in page
    assert "300 at 7.43 %, 5 at 0.05 %" in page and "the share of NK in all cells" in page
    assert "Beware." in page and "make_robustness.py results/own`" in page
    assert "2 runs of methods took 3\nminutes" in page and "batches b1, together" in page
    assert str(tmp_path) not in page
    assert (tmp_path / "docs/images/robustness-d.png").read_bytes() == b"a preview"


def test_results_without_curves_are_refused(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_robustness.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"robustness.tsv: not there; valid"):
        script.main()
