"""The figure of robustness curves: every point where it belongs, every hole marked."""

import numpy as np
import pandas as pd
import pytest

from morebench.errors import ContractError
from morebench.io.tables import read_tsv, write_tsv
from morebench.plots.robustness import draw_robustness
from morebench.plots.style import save_figure
from morebench.robustness.table import COLUMNS

METHODS = {"more": ("MoRE", "unsupervised"), "pca": ("PCA", "control")}
LEVELS = {
    "dropout": (0.0, 0.3, 0.9),
    "depth": (1.0, 0.25, 0.0625),
    "label_missing": (0.0, 0.5, 0.98),
    "titration": (0.0743, 0.01, 0.0005),
}


@pytest.fixture
def table():
    rows = []
    for change, levels in LEVELS.items():
        measures = [("all", "integration", "total"), ("lobo", "annotation", "macro_f1")]
        measures.append(("all", "integration", "bras"))  # in the table, not in the figure
        if change == "label_missing":
            measures = measures[1:2]
        if change == "titration":
            measures = [("lobo", "annotation", f"type_{m}") for m in ("f1", "recall")]
        for split, task, metric in measures:
            for method, (title, track) in METHODS.items():
                for i, level in enumerate(levels):
                    mean = 0.8 - 0.2 * i + 0.05 * (method == "pca")
                    row = {
                        "dataset": "d", "change": change, "level": level, "split": split,
                        "cell_type": "NK cells" if change == "titration" else "", "task": task,
                        "metric": metric, "method": method, "title": title, "track": track,
                        "mean": mean, "low": mean - 0.1, "high": mean + 0.05, "n": 1,
                        "n_cells": 100, "status": "ok", "reason": "",
                    }  # fmt: skip
                    rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def panels(fig):
    """Return the drawn panels by what stands above and below them."""
    return {(ax.get_title("left"), ax.get_xlabel()): ax for ax in fig.axes if ax.axison}


def test_a_row_of_panels_a_change_with_all_points_in_their_places(table, tmp_path):
    write_tsv(tmp_path / "robustness.tsv", table)  # as the workflow's script reads it
    fig = draw_robustness(read_tsv(tmp_path / "robustness.tsv"), "Kang")
    found = panels(fig)
    assert [key[0] for key in found] == [
        "Integration: total", "Annotation: macro F1", "Integration: total", "Annotation: macro F1",
        "Annotation: macro F1", "F1 of NK cells", "Recall of NK cells",
    ]  # fmt: skip
    for (title, below), step in (
        (("Integration: total", "Counts above 0 that are lost"), (0, 0.3, 0.9)),
        (("Integration: total", "Share of molecules kept"), (0, 2, 4)),
        (("Annotation: macro F1", "Shown labels that are hidden"), (0, 1, np.log2(50))),
        (("F1 of NK cells", "Share of NK cells in all cells"), -np.log2(LEVELS["titration"])),
    ):
        ax = found[title, below]
        assert list(ax.get_xticks()) == pytest.approx(list(step))
        lines = {line.get_label(): line for line in ax.lines}
        np.testing.assert_allclose(lines["more"].get_ydata(), [0.8, 0.6, 0.4])
        np.testing.assert_allclose(lines["pca"].get_ydata(), [0.85, 0.65, 0.45])
        reach = 0.05 * (max(step) - min(step))
        np.testing.assert_allclose(lines["more"].get_xdata(), step, atol=reach)
        assert lines["pca"].get_linestyle() == "--" and lines["more"].get_linestyle() == "-"
        bars = [s for c in ax.collections for s in c.get_segments()]
        assert len(bars) == 6 and bars[0][:, 1] == pytest.approx([0.7, 0.85])
    words = [t.get_text() for t in found["F1 of NK cells", below].get_xticklabels()]
    assert words == ["7.43 %", "1 %", "0.05 %"]
    # one range for a measure, whatever the change
    totals = {ax.get_ylim() for key, ax in found.items() if key[0] == "Integration: total"}
    assert len(totals) == 1


def test_a_missing_point_is_a_hole_and_a_mark_never_a_zero(table):
    gone = (table["method"] == "more") & (table["level"] == 0.3)
    table.loc[gone, ["mean", "low", "high"]] = np.nan
    table.loc[gone, ["status", "reason"]] = ["failed", "it crashed"]
    absent = (table["method"] == "pca") & (table["level"] == 0.3)  # not asked for: no mark
    fig = draw_robustness(table[~absent], "Kang")
    ax = panels(fig)["Integration: total", "Counts above 0 that are lost"]
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    np.testing.assert_array_equal(np.isnan(lines["more"].get_ydata()), [False, True, False])
    np.testing.assert_array_equal(np.isnan(lines["pca"].get_ydata()), [False, True, False])
    marks = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert len(marks) == 1 and marks[0].get_ydata()[0] == ax.get_ylim()[0]
    assert marks[0].get_color() == lines["more"].get_color()


def test_nothing_is_drawn_off_the_page_and_equal_tables_are_equal_files(table, tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fig = draw_robustness(table, "A title")
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw_without_rendering()
    boxes = [ax.get_tightbbox(renderer) for ax in fig.axes]
    boxes += [legend.get_window_extent(renderer) for legend in fig.legends]
    for box in (b for b in boxes if b is not None):
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1
    for name in ("one", "two"):
        figure = draw_robustness(table, "A title")
        save_figure(figure, tmp_path / f"{name}.svg", source={"table": "robustness.tsv"})
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_table_without_a_drawn_metric_says_so(table):
    for rows in (table.iloc[:0], table[table["metric"] == "bras"]):
        fig = draw_robustness(rows, "Kang")
        assert [t.get_text() for t in fig.texts][-1] == "No split has a score to draw."


def test_points_without_any_value_leave_marks_only(table):
    table[["mean", "low", "high"]] = np.nan
    ax = panels(draw_robustness(table, "Kang"))["F1 of NK cells", "Share of NK cells in all cells"]
    assert ax.get_ylim() == pytest.approx((-0.1, 1.1))
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "x") == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="level"), r"robustness: lacks the columns \['level'\]"),
        (lambda t: t.assign(change="heat"), r"change \['heat'\] has no title; valid: dropout"),
    ],
)
def test_a_broken_table_is_refused(table, change, message):
    with pytest.raises(ContractError, match=message):
        draw_robustness(change(table), "Title")
