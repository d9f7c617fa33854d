"""The self-test's figure shows every curve, marks what rises, and types what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morebench.errors import ContractError
from morebench.plots.selftest import (
    DAGGER,
    MARK_NOTE,
    TITRATION_TITLES,
    draw_selftest,
    marked_titles,
    rising_metrics,
)
from morebench.plots.style import save_figure

TITLES = {"bras": "BRAS", "ilisi": "iLISI", "isolated": "Isolated", "absent": "Absent"}
LEVELS = (0.0, 0.5, 1.0)


@pytest.fixture
def curves():
    rows = []
    for metric, start in (("bras", 0.2), ("ilisi", 0.9), ("isolated", np.nan)):
        for i, titration in enumerate(TITRATION_TITLES):
            for seed in (0, 1):
                for level in LEVELS:
                    value = start - (i + 1) * 0.2 * level + 0.1 * seed
                    rows.append((titration, level, seed, metric, value))
    return pd.DataFrame(rows, columns=["titration", "level", "seed", "metric", "value"])


@pytest.fixture
def summary():
    rows = [
        (metric, titration, "responds", metric == "bras")
        for metric in ("bras", "ilisi", "isolated")
        for titration in TITRATION_TITLES
    ]
    columns = ["metric", "titration", "verdict", "rises_with_overcorrection"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.loc[1, "verdict"] = "wrong way"
    return frame


def test_rising_metrics_and_their_titles(summary):
    assert rising_metrics(summary) == {"bras"}
    assert marked_titles(TITLES, {"bras"}) == {**TITLES, "bras": f"BRAS{DAGGER}"}
    assert marked_titles(TITLES, ()) == TITLES
    assert rising_metrics(summary.iloc[:0]) == frozenset()


def test_marks_survive_the_table_on_disk(summary, tmp_path):
    from morebench.io.tables import read_tsv, write_tsv

    write_tsv(tmp_path / "selftest.tsv", summary)
    assert rising_metrics(read_tsv(tmp_path / "selftest.tsv")) == {"bras"}


def test_every_curve_is_the_mean_over_seeds(curves, summary):
    fig = draw_selftest(curves, summary, TITLES, "Title")
    panels = {ax.get_title(loc="left"): ax for ax in fig.axes if ax.get_title(loc="left")}
    assert list(panels) == [f"BRAS{DAGGER}", "iLISI", "Isolated"]
    lines = [line for line in panels["iLISI"].lines if len(line.get_xdata()) == 3]
    for i, line in enumerate(lines):
        np.testing.assert_allclose(line.get_xdata(), LEVELS)
        expected = 0.95 - (i + 1) * 0.2 * np.array(LEVELS)
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert len(lines) == 3
    # One scale for all, down to the lowest seed: .2 - .6 at level 1.
    assert (
        panels["iLISI"].get_ylim() == panels["Isolated"].get_ylim() == pytest.approx((-0.45, 1.05))
    )
    thick = [line.get_linewidth() for line in panels[f"BRAS{DAGGER}"].lines[1:]]
    assert thick[1] > 2 * thick[0] == 2 * thick[2]
    assert [t.get_text() for t in panels["Isolated"].texts] == ["n/a"]


def test_the_dagger_is_explained_only_where_it_is_used(curves, summary, tmp_path):
    save_figure(
        draw_selftest(curves, summary, TITLES, "T"), tmp_path / "a.svg", source={"table": "c.tsv"}
    )
    text = (tmp_path / "a.svg").read_text()
    assert MARK_NOTE in text and f"BRAS{DAGGER}" in text and "c.tsv" in text
    for title in TITRATION_TITLES.values():
        assert title in text
    none = summary.assign(rises_with_overcorrection=False)
    save_figure(
        draw_selftest(curves, none, TITLES, "T"), tmp_path / "b.svg", source={"table": "c.tsv"}
    )
    assert DAGGER not in (tmp_path / "b.svg").read_text()


def test_nothing_is_drawn_off_the_page(curves, summary):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fig = draw_selftest(curves, summary, TITLES, "A title")
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw_without_rendering()
    boxes = [ax.get_tightbbox(renderer) for ax in fig.axes]
    boxes += [legend.get_window_extent(renderer) for legend in fig.legends]
    for box in (b for b in boxes if b is not None):
        assert box.x0 >= -1 and box.y0 >= -1
        assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, s: (c.drop(columns="seed"), s), r"curves: lacks the columns \['seed'\]"),
        (lambda c, s: (c, s.drop(columns="verdict")), r"selftest: lacks the columns \['verdict'\]"),
        (lambda c, s: (c.assign(metric="new"), s), r"curves: metric \['new'\] have no title"),
        (lambda c, s: (c, s.assign(titration="heat")), r"selftest: titration \['heat'\] have no"),
        (
            lambda c, s: (c, s.assign(rises_with_overcorrection="perhaps")),
            "holds 'perhaps'; valid: True or False",
        ),
    ],
)
def test_a_broken_table_is_refused(curves, summary, change, message):
    with pytest.raises(ContractError, match=message):
        draw_selftest(*change(curves, summary), TITLES, "Title")
