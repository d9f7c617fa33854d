"""The QC figure draws what it is given, and says what is not applicable."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from morebench.errors import ContractError
from morebench.plots.qc import draw_qc
from morebench.plots.style import save_figure

QUANTILES = ["q05", "q25", "q50", "q75", "q95"]
RATIO = np.array([0.3, 0.1, 0.05])
THRESHOLDS = [
    {"metric": "n_genes", "low": 300, "high": None, "rule": "fixed", "removed": 12},
    {"metric": "pct_mt", "low": float("nan"), "high": 9.5, "rule": "5 MAD", "removed": 7},
    {"metric": "total_counts", "low": None, "high": 9e7, "rule": "fixed", "removed": 0},
]


@pytest.fixture
def parts():
    rng = np.random.default_rng(1)
    n, g = 300, 120
    cells = pd.DataFrame(
        {
            "batch": np.repeat(["b1", "b2", "b10"], 100),
            "n_genes": rng.integers(200, 3000, n),
            "total_counts": rng.integers(500, 9000, n),
            "pct_mt": rng.uniform(0, 12, n),
            "pct_ribo": np.nan,
            "kept": np.arange(n) >= 19,
        }
    )
    genes = pd.DataFrame(
        {
            "gene": [f"g{i}" for i in range(g)],
            "mean": rng.uniform(0, 3, g),
            "dispersion": rng.normal(0, 1, g),
            "dispersion_norm": rng.normal(0, 1, g),
            "highly_variable": np.arange(g) < 30,
        }
    )
    genes.loc[110:, "dispersion"] = np.nan
    quantiles = np.sort(rng.uniform(0, 10, (20, 5)), axis=1)
    top = pd.DataFrame(quantiles, columns=QUANTILES).assign(gene=[f"top{i}" for i in range(20)])
    return cells, genes, top


def _axes(fig):
    return {ax.get_title().split("\n")[0]: ax for ax in fig.axes if ax.get_title()}


def test_violins_thresholds_and_counts(parts):
    fig = draw_qc(*parts, RATIO, THRESHOLDS, title="Tiny")
    axes = _axes(fig)
    assert fig._suptitle.get_text() == "Tiny: 281 of 300 cells kept"
    mt = axes["Mitochondrial"]
    assert mt.get_title() == "Mitochondrial\n7 removed (5 MAD)"
    assert [t.get_text() for t in mt.get_xticklabels()] == ["b1", "b2", "b10"]
    lines = [ln for ln in mt.lines if len(ln.get_ydata()) == 2 and ln.get_linestyle() != "None"]
    assert [list(ln.get_ydata()) for ln in lines] == [[9.5, 9.5]]
    medians = [ln.get_ydata()[0] for ln in mt.lines if ln.get_marker() == "o"]
    expected = parts[0].groupby("batch")["pct_mt"].median()
    np.testing.assert_allclose(medians, expected[["b1", "b2", "b10"]])
    genes = axes["Genes per cell"]
    level = [ln.get_ydata()[0] for ln in genes.lines if len(ln.get_ydata()) == 2]
    np.testing.assert_allclose(level, [np.log10(301)])


def test_a_threshold_far_off_the_data_is_named_and_does_not_squash_it(parts):
    ax = _axes(draw_qc(*parts, RATIO, THRESHOLDS))["Counts per cell"]
    assert "↑ 90M off scale" in [t.get_text() for t in ax.texts]
    assert ax.get_ylim()[1] < np.log10(20_000)


@pytest.mark.parametrize("absent", [True, False])
def test_a_metric_without_values_is_not_applicable(parts, absent):
    cells, genes, top = parts
    if absent:
        cells = cells.drop(columns="pct_ribo")
    ax = _axes(draw_qc(cells, genes, top, RATIO, []))["Ribosomal"]
    assert [t.get_text() for t in ax.texts] == ["not applicable:\nno ribosomal gene\nin the panel"]
    assert not ax.collections


def test_a_batch_without_values_has_no_violin(parts):
    cells, genes, top = parts
    cells.loc[cells["batch"] == "b2", "pct_mt"] = np.nan
    cells.loc[cells["batch"] == "b10", "pct_mt"] = 4.0
    ax = _axes(draw_qc(cells, genes, top, RATIO, []))["Mitochondrial"]
    assert len([ln for ln in ax.lines if ln.get_marker() == "o"]) == 2
    assert len(ax.get_xticklabels()) == 3


def test_many_cells_keep_their_quantiles(parts):
    _, genes, top = parts
    rng = np.random.default_rng(0)
    cells = pd.DataFrame({"batch": "b", "pct_mt": rng.gamma(2, 2, 20_000), "kept": True})
    ax = _axes(draw_qc(cells, genes, top, RATIO, []))["Mitochondrial"]
    body = next(c for c in ax.collections if hasattr(c, "get_paths") and len(c.get_paths()[0]) > 50)
    y = body.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([y.min(), y.max()], [cells["pct_mt"].min(), cells["pct_mt"].max()])


def test_variance_bars_and_running_sum(parts):
    fig = draw_qc(*parts, RATIO, [])
    ax = _axes(fig)["3 components: 45.0 % of variance"]
    np.testing.assert_allclose([p.get_height() for p in ax.patches], [30, 10, 5])
    (twin,) = [a for a in fig.axes if a.get_ylabel() == "Running sum (%)"]
    np.testing.assert_allclose(twin.lines[0].get_ydata(), [30, 40, 45])


def test_every_gene_with_a_dispersion_is_a_point(parts):
    ax = _axes(draw_qc(*parts, RATIO, []))["30 variable genes of 120"]
    assert [len(c.get_offsets()) for c in ax.collections][:2] == [80, 30]
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["other (90)", "highly variable (30)", "no dispersion, not drawn (10)"]
    assert all(c.get_rasterized() for c in ax.collections[:2])


def test_boxes_are_the_quantiles(parts):
    _, _, top = parts
    ax = _axes(draw_qc(*parts, RATIO, []))["The 20 most expressed genes"]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(top["gene"])
    boxes = np.array([p.get_path().vertices[:, 0] for p in ax.patches])
    np.testing.assert_allclose(boxes.min(axis=1), top["q25"])
    np.testing.assert_allclose(boxes.max(axis=1), top["q75"])
    assert ax.yaxis_inverted()


def test_no_top_genes_is_said(parts):
    cells, genes, top = parts
    ax = _axes(draw_qc(cells, genes, top.iloc[:0], RATIO, []))["Most expressed genes"]
    assert [t.get_text() for t in ax.texts] == ["no genes", "d"]
    assert not ax.patches


def test_svg_holds_text_and_equal_bytes(parts, tmp_path):
    for name in "ab":
        fig = draw_qc(*parts, RATIO, THRESHOLDS, title="Tiny")
        save_figure(fig, tmp_path / f"{name}.svg", source={"table": "qc.tsv"})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    texts = {
        "".join(t.itertext())
        for t in ET.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")
    }
    assert {
        "a",
        "b",
        "c",
        "d",
        "Tiny: 281 of 300 cells kept",
        "top0",
        "12 removed (fixed)",
    } <= texts


@pytest.mark.parametrize(("part", "column"), [(0, "kept"), (1, "dispersion"), (2, "q50")])
def test_a_missing_column_is_named(parts, part, column):
    broken = list(parts)
    broken[part] = broken[part].drop(columns=column)
    with pytest.raises(ContractError, match=column):
        draw_qc(*broken, RATIO, [])


def test_a_variance_that_is_not_finite_is_refused(parts):
    with pytest.raises(ContractError, match="finite"):
        draw_qc(*parts, np.array([0.3, np.nan]), [])
