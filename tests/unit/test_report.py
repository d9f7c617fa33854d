"""The report shows every figure, failure and score, escaped, and needs no network."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from tests.seal import names

from morebench.errors import ContractError, DataError
from morebench.plots.style import save_figure
from morebench.report.build import build_report
from morebench.report.context import ReportContext

EVIL = "Kang <script>alert('x')</script> & co"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects elements with their text, and checks that tags are balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[dict] = []
        self.all: list[dict] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "path": [e["tag"] for e in self.open], **dict(attrs)}
        self.all.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def tags(self, *names):
        return [e for e in self.all if e["tag"] in names]

    def texts(self, *names):
        return [" ".join(e["text"].split()) for e in self.tags(*names)]


def _svg(path: Path) -> Path:
    from matplotlib.figure import Figure

    save_figure(Figure(figsize=(2, 1)), path, source={"table": "t.tsv"})
    return path


@pytest.fixture
def context(tmp_path):
    manifest = pd.DataFrame(
        [
            {"dataset": "kang", "split": split, "method": method, "seed": seed, "state": "ok"}
            for split in ("all", "lobo-b1")
            for method in ("harmony", "scvi", "pca")
            for seed in (0, 1)
        ]
    )
    manifest.loc[2, "state"] = "failed"
    manifest.loc[3, "state"] = "unavailable"
    manifest.loc[9, "state"] = "timeout"
    failures = manifest.loc[[2, 3]].assign(
        reason=["ValueError: <b>bad</b>", "no weights"], log=["logs/scvi/0.log", np.nan]
    )
    rows = []
    for method, title, track, value in (
        ("pca", "PCA", "control", 0.9),
        ("harmony", "Harmony", "unsupervised", 0.7),
        ("scvi", "scVI", "unsupervised", np.nan),
    ):
        for metric, aspect in (("bras", "batch"), ("total", "total")):
            rows.append(
                {
                    "dataset": "kang", "split": "all", "task": "integration", "method": method,
                    "title": title, "track": track, "metric": metric, "aspect": aspect,
                    "mean": value, "sd": 0.02, "n_seeds": 1 if method == "pca" else 2,
                    "status": "failed" if method == "scvi" else "ok",
                }
            )  # fmt: skip
    summary = pd.DataFrame(rows)
    scores = summary.assign(
        seed=0, value=summary["mean"], ci_low=summary["mean"] - 0.05, n_cells=100,
        ci_high=summary["mean"] + 0.05, coverage=1.0, reason="",
    )  # fmt: skip
    scores.loc[scores["method"] == "scvi", ["coverage", "reason"]] = [0.0, "the run failed"]
    scores.loc[(scores["method"] == "pca") & (scores["metric"] == "bras"), "coverage"] = 0.875
    runtime = manifest.assign(
        wall_s=np.arange(12.0), cpu_s=20.0, peak_rss_mb=[1500.0] * 11 + [np.nan],
        parameters_trained=1_234_567, parameters_frozen=0, hardware="2 cores",
    )  # fmt: skip
    figures = tmp_path / "figures"
    return ReportContext(
        datasets=pd.DataFrame(
            [
                {
                    "name": "kang", "title": EVIL, "cells": 6530, "genes": 1287, "batches": 8,
                    "types": 8, "label_source": "expert", "use": "development",
                }
            ]
        ),
        methods=pd.DataFrame(
            [
                {
                    "name": name, "title": title, "track": "unsupervised", "source": "paper",
                    "version": "1.0", "licence": "MIT", "params": {"theta": None, "k": 30},
                }
                for name, title in (("harmony", "Harmony"), ("scvi", "scVI"), ("pca", "PCA"))
            ]
        ),
        manifest=manifest,
        failures=failures,
        scores=scores,
        summary=summary,
        runtime=runtime,
        metric_titles={"bras": "BRAS", "total": "Total"},
        task_titles={"integration": "Integration"},
        thresholds={
            "kang": pd.DataFrame(
                [{"metric": "pct_mt", "low": None, "high": 9.5, "rule": "5 MAD", "removed": 7}]
            )
        },
        qc_figures={"kang": _svg(figures / "kang qc#1.svg")},
        umap_figures={("kang", "all"): _svg(figures / "umap.svg")},
        score_figures={("kang", "all", "integration"): _svg(figures / "score.svg")},
        tables={"scores.tsv": tmp_path / "tables" / "scores.tsv"},
        settings_yaml="seeds: [0, 1]\nname: '</code><script>'\n",
        provenance={"commit": "deadbeef"},
    )  # fmt: skip


def _build(context, tmp_path, **options):
    out = tmp_path / "report" / "index.html"
    build_report(out, title="Results", context=context, **options)
    return out, Page(out.read_text(encoding="utf-8"))


def _rows(page, caption):
    """Return the body rows of the table whose caption starts with ``caption``."""
    rows, inside = [], False
    for element in page.all:
        if element["tag"] == "caption":
            inside = " ".join(element["text"].split()).startswith(caption)
        elif inside and element["tag"] == "tr" and "tbody" in element["path"]:
            rows.append([])
        elif inside and element["tag"] in ("td", "th") and "tbody" in element["path"]:
            rows[-1].append(" ".join(element["text"].split()))
    return rows


def test_every_figure_is_there_and_linked_relative_to_the_page(context, tmp_path):
    out, page = _build(context, tmp_path)
    images = page.tags("img")
    assert len(images) == 3
    for image in images:
        assert image["alt"] and (int(image["width"]), int(image["height"])) == (192, 96)
        assert (out.parent / unquote(image["src"])).resolve().is_file()
    links = {a["href"] for a in page.tags("a") if not a["href"].startswith("#")}
    svgs = {(out.parent / unquote(h)).resolve() for h in links if h.endswith(".svg")}
    wanted = [context.qc_figures, context.umap_figures, context.score_figures]
    assert svgs == {path.resolve() for figures in wanted for path in figures.values()}
    assert "../tables/scores.tsv" in links


def test_curves_stand_with_their_base(context, tmp_path):
    figure = _svg(tmp_path / "figures" / "robustness.svg")
    _, without = _build(context, tmp_path)
    assert "Robustness" not in without.texts("h3")
    _, page = _build(dataclasses.replace(context, curve_figures={"kang": figure}), tmp_path)
    assert page.texts("h3").index("Robustness") < page.texts("h3").index("Split all")
    assert "../figures/robustness.svg" in [a["href"] for a in page.tags("a")]


def test_annotation_figures_stand_with_their_dataset(context, tmp_path):
    title = "Annotation of all held-out batches"
    _, without = _build(context, tmp_path)
    assert title not in without.texts("h3")
    own = {
        "type_figures": {"kang": _svg(tmp_path / "figures" / "types.svg")},
        "agreement_figures": {"kang": _svg(tmp_path / "figures" / "agreement.svg")},
    }
    _, page = _build(dataclasses.replace(context, **own), tmp_path)
    heads = page.texts("h3")
    assert heads.index("Quality control") < heads.index(title) < heads.index("Split all")
    links = [a["href"] for a in page.tags("a")]
    assert links.index("../figures/types.svg") < links.index("../figures/agreement.svg")
    captions = " ".join(page.texts("figcaption"))
    assert "F1 of the cell types of" in captions and "Who calls what what in" in captions
    _, page = _build(dataclasses.replace(context, agreement_figures={}, **{
        "type_figures": own["type_figures"]}), tmp_path)  # fmt: skip
    assert "../figures/types.svg" in [a["href"] for a in page.tags("a")]
    for field in own:
        unknown = {field: {"other": own[field]["kang"]}}
        with pytest.raises(ContractError, match=f"{field}: datasets .'other'. are not in"):
            _build(dataclasses.replace(context, **unknown), tmp_path)


def test_nothing_comes_from_a_network(context, tmp_path):
    out, page = _build(context, tmp_path)
    assert not page.tags("script", "link", "iframe", "object")
    text = out.read_text()
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert "@import" not in text


def test_content_is_escaped(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert EVIL in " ".join(page.texts("h2"))
    assert not page.tags("script", "b-evil") and "alert" not in "".join(page.texts("script"))
    assert "<b>bad</b>" in _rows(page, "Runs that are not ok")[0][5]
    assert page.texts("pre") == ["seeds: [0, 1] name: '</code><script>'"]


def test_status_counts_and_every_failure(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert "2 of 12 expected runs failed." in page.texts("p")
    (counts,) = [e for e in page.tags("ul") if e.get("class") == "counts"]
    assert counts["text"].split() == "12 expected 9 ok 1 failed 1 timeout 1 unavailable".split()
    assert _rows(page, "Runs that are not ok") == [
        ["failed", "kang", "all", "scvi", "0", "ValueError: <b>bad</b>", "logs/scvi/0.log"],
        # In the manifest only: shown all the same.
        ["timeout", "kang", "lobo-b1", "scvi", "1", "no reason recorded", "no log"],
        ["unavailable", "kang", "all", "scvi", "1", "no weights", "no log"],
    ]


def test_a_failure_that_the_manifest_calls_ok_is_shown(context, tmp_path):
    extra = context.failures.iloc[[0]].assign(method="harmony", seed=1, state="failed")
    context.failures = pd.concat([context.failures, extra])
    _, page = _build(context, tmp_path)
    assert ["failed", "kang", "all", "harmony", "1"] in [
        row[:5] for row in _rows(page, "Runs that are not ok")
    ]


def test_a_clean_run_says_so(context, tmp_path):
    context.manifest["state"] = "ok"
    context.failures = context.failures.iloc[:0]
    _, page = _build(context, tmp_path)
    assert "All 12 expected runs are accounted for; none failed." in page.texts("p")
    assert _rows(page, "Runs that are not ok") == []


def test_score_table_marks_controls_and_missing(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert _rows(page, f"Integration: {EVIL}, split all") == [
        ["Unsupervised (no labels in the input)"],
        ["1", "Harmony", "2", "0.70 ±0.02", "0.70 ±0.02"],
        ["", "scVI", "2", "failed", "failed"],
        ["Controls (not ranked)"],
        ["", "PCA", "1", "0.90 [0.85, 0.95]", "0.90 [0.85, 0.95]"],
    ]


def test_scores_with_a_caveat_have_their_reason(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert _rows(page, "Scores that are missing") == [
        ["PCA", "BRAS", "0", "ok", "88 %", "no reason recorded"],
        ["scVI", "BRAS, Total", "0", "failed", "0 %", "the run failed"],
    ]


def test_what_ran_thresholds_and_cost(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert _rows(page, "Datasets")[0][1:6] == ["kang", "6,530", "1,287", "8", "8"]
    assert _rows(page, "Methods")[0][-1] == "theta=None, k=30"
    lobo = "fitted on all cells; the labels of all batches but this one are shown"
    assert _rows(page, "Splits")[1] == ["kang", "lobo-b1", lobo, "3", "0, 1", "6"]
    assert _rows(page, "QC thresholds") == [["pct_mt", "open", "9.5", "5 MAD", "7"]]
    cost = _rows(page, "Cost")
    assert cost[1] == [
        "kang", "all", "scVI", "failed, unavailable", "2", "2.5", "20.0", "1,500", "1,234,567",
        "0", "2 cores",
    ]  # fmt: skip
    assert len(cost) == 6


@pytest.fixture
def selftest():
    return pd.DataFrame(
        [
            ("bras", "overcorrection", 0.98, 0.021, 0.4, "does not rise", "wrong way", True),
            ("total", "overcorrection", np.nan, np.nan, np.nan, "falls", "undefined", False),
        ],
        columns=["metric", "titration", "spearman", "range", "half_at", "expected", "verdict",
                 "rises_with_overcorrection"],
    )  # fmt: skip


def test_metrics_that_rise_with_over_correction_are_marked(context, selftest, tmp_path):
    _, page = _build(context, tmp_path)  # no self-test of its own: the registry's word
    assert "BRAS†" in page.texts("th") and "#selftest" not in {a["href"] for a in page.tags("a")}
    calm = selftest.assign(rises_with_overcorrection=False)
    _, page = _build(dataclasses.replace(context, selftest=calm), tmp_path)
    assert "BRAS" in page.texts("th") and "BRAS†" not in page.texts("th")
    figure = _svg(tmp_path / "figures" / "selftest.svg")
    marked = dataclasses.replace(context, selftest=selftest, selftest_figure=figure)
    _, page = _build(marked, tmp_path)
    heads = page.texts("th")
    assert "BRAS†" in heads and "BRAS" not in heads and "Total" in heads
    note = "† rises when cell types are merged (self-test of the metrics)."
    assert page.texts("p").count(note) == 1
    assert any("selftest.png" in image["src"] for image in page.tags("img"))
    assert "#selftest" in {a["href"] for a in page.tags("a")}


def test_the_self_tests_verdicts_are_shown(context, selftest, tmp_path):
    _, page = _build(dataclasses.replace(context, selftest=selftest), tmp_path)
    assert _rows(page, "Verdicts") == [
        ["BRAS†", "Types are merged", "0.98", "0.02", "0.40", "not rise", "wrong way"],
        ["Total", "Types are merged", "n/a", "n/a", "n/a", "fall", "undefined"],
    ]
    bad = [e["text"] for e in page.tags("td") if e.get("class") == "bad"]
    assert "wrong way" in bad and "undefined" not in bad
    odd = selftest.assign(metric="new")
    with pytest.raises(ContractError, match=r"selftest: metric \['new'\] have no title"):
        _build(dataclasses.replace(context, selftest=odd), tmp_path)


def test_structure_is_accessible(context, tmp_path):
    _, page = _build(context, tmp_path)
    assert page.tags("html")[0]["lang"] == "en"
    assert page.texts("h1") == ["Results"]
    levels = [int(e["tag"][1]) for e in page.tags("h1", "h2", "h3", "h4")]
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [e["id"] for e in page.all if "id" in e]
    assert len(ids) == len(set(ids))
    for link in page.tags("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in ids
    assert len(page.tags("caption")) == len(page.tags("table"))
    assert all(e["scope"] for e in page.tags("th"))
    for table in page.tags("table"):
        assert table["path"][-1] == "div"
    assert any(e.get("name") == "viewport" for e in page.tags("meta"))


def test_equal_inputs_give_an_equal_file(context, tmp_path):
    first = _build(context, tmp_path)[0].read_bytes()
    assert _build(context, tmp_path)[0].read_bytes() == first
    assert names(tmp_path / "report") == ["index.html"]


def test_embedded_previews_travel_in_the_page(context, tmp_path):
    import base64

    _, page = _build(context, tmp_path, embed=True)
    head = "data:image/png;base64,"
    for image in page.tags("img"):
        assert image["src"].startswith(head)
        assert base64.b64decode(image["src"][len(head) :]).startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_that_does_not_exist_is_named(context, tmp_path, suffix):
    context.umap_figures["kang", "all"].with_suffix(suffix).unlink()
    with pytest.raises(DataError, match=rf"umap\{suffix}"):
        _build(context, tmp_path)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("manifest", "state"), ("failures", "log"), ("scores", "coverage"), ("summary", "task"),
        ("runtime", "cpu_s"), ("datasets", "use"), ("methods", "params"),
    ],
)  # fmt: skip
def test_a_missing_column_is_named(context, tmp_path, table, column):
    broken = dataclasses.replace(context, **{table: getattr(context, table).drop(columns=column)})
    with pytest.raises(ContractError, match=f"{table}: lacks the columns .*{column}"):
        _build(broken, tmp_path)


def test_an_unknown_dataset_is_refused(context, tmp_path):
    context.qc_figures = {"other": context.qc_figures["kang"]}
    with pytest.raises(ContractError, match=r"qc_figures: datasets \['other'\]"):
        _build(context, tmp_path)


def test_a_shared_run_tells_its_reason_on_every_split():
    from morebench.report.context import told_by_cell

    manifest = pd.DataFrame(
        {
            "dataset": "d",
            "method": ["m", "m", "n"],
            "seed": 0,
            "split": ["all", "partial", "partial"],
            "fitted_on": ["all", "all", "partial"],
            "state": ["failed", "failed", "ok"],
        }
    )
    failures = pd.DataFrame(
        {"dataset": ["d"], "split": ["all"], "method": ["m"], "seed": [0], "state": ["failed"],
         "reason": ["boom"], "log": ["a.log"]}
    )  # fmt: skip
    told = told_by_cell(manifest, failures)
    assert told[["split", "reason"]].to_numpy().tolist() == [["all", "boom"], ["partial", "boom"]]
