"""The score figure ranks inside tracks, leaves controls out and types what is missing."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from morebench.errors import ContractError
from morebench.plots.ranking import ordered_metrics, rank_methods
from morebench.plots.score_table import draw_score_table
from morebench.plots.selftest import DAGGER, MARK_NOTE
from morebench.plots.style import save_figure, score_colour

TITLES = {"bras": "BRAS", "ilisi": "iLISI", "nmi": "NMI", "total": "Total", "extra": "Extra"}
ASPECTS = {"bras": "batch", "ilisi": "batch", "nmi": "bio", "total": "total"}
METHODS = {
    "random": ("Random", "control", 0.95),
    "scanvi": ("scANVI", "semi-supervised", 0.7),
    "harmony": ("Harmony", "unsupervised", 0.6),
    "more": ("MoRE", "unsupervised", 0.8),
    "scvi": ("scVI", "unsupervised", 0.8),
    "lost": ("Lost", "unsupervised", np.nan),
}


@pytest.fixture
def summary():
    rows = []
    for i, (method, (title, track, total)) in enumerate(METHODS.items()):
        for j, (metric, aspect) in enumerate(ASPECTS.items()):
            lost = method == "lost"
            mean = total if metric == "total" or lost else 0.11 + 0.1 * i + 0.01 * j
            rows.append(
                {
                    "method": method, "title": title, "track": track, "metric": metric,
                    "aspect": aspect, "mean": mean, "sd": np.nan if lost else 0.03,
                    "n_seeds": 0 if lost else 3, "status": "out_of_memory" if lost else "ok",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _set(summary, method, metric, **values):
    row = (summary["method"] == method) & (summary["metric"] == metric)
    for column, value in values.items():
        summary.loc[row, column] = value


def _texts(fig):
    return [(t.get_text(), *t.get_position()) for t in fig.axes[0].texts]


def _row_of(fig, title):
    (y,) = {round(y, 6) for text, _, y in _texts(fig) if text == title}
    return y


def _row_texts(fig, title):
    y = _row_of(fig, title)
    return [text for text, _, at in sorted(_texts(fig), key=lambda t: t[1]) if abs(at - y) < 0.15]


def test_ranks_are_inside_tracks_with_ties_and_without_controls(summary):
    ranked = rank_methods(summary)
    assert ranked["method"].tolist() == ["more", "scvi", "harmony", "lost", "scanvi", "random"]
    np.testing.assert_array_equal(ranked["rank"], [1, 1, 3, np.nan, 1, np.nan])


def test_a_score_that_is_not_ok_is_not_ranked(summary):
    _set(summary, "more", "total", status="failed")
    ranked = rank_methods(summary).set_index("method")["rank"]
    assert np.isnan(ranked["more"]) and ranked["scvi"] == 1 and ranked["harmony"] == 2


def test_without_the_ranking_metric_the_order_stays(summary):
    ranked = rank_methods(summary, "no_such_metric")
    assert ranked["rank"].isna().all()
    assert ranked["method"].tolist() == ["harmony", "more", "scvi", "lost", "scanvi", "random"]


def test_metrics_are_grouped_by_aspect(summary):
    extra = summary[summary["metric"] == "nmi"].assign(metric="extra", aspect="speed")
    both = pd.concat([extra, summary])
    assert ordered_metrics(both, TITLES) == [
        ("batch", ["bras", "ilisi"]),
        ("bio", ["nmi"]),
        ("total", ["total"]),
        ("speed", ["extra"]),
    ]


def test_cells_print_mean_and_sd(summary):
    fig = draw_score_table(summary, TITLES, "Title")
    row = _row_texts(fig, "Harmony")
    assert row[:3] == ["3", "Harmony", "3"]
    assert sorted(row[3:]) == sorted(["0.31", "0.32", "0.33", "0.60"] + 4 * ["±0.03"])


def test_one_seed_has_no_sd(summary):
    summary.loc[summary["method"] == "harmony", ["sd", "n_seeds"]] = [np.nan, 1]
    row = _row_texts(draw_score_table(summary, TITLES, "Title"), "Harmony")
    assert row == ["3", "Harmony", "1", "0.31", "0.32", "0.33", "0.60"]


def test_tiles_and_bars_show_the_value(summary):
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch, Rectangle

    fig = draw_score_table(summary, TITLES, "Title")
    y = _row_of(fig, "Harmony")
    mine = [p for p in fig.axes[0].patches if abs(p.get_y() - y) < 0.15]
    tiles = [p for p in mine if isinstance(p, FancyBboxPatch)]
    fills = [score_colour(v, a) for v, a in ((0.31, "batch"), (0.32, "batch"), (0.33, "bio"))]
    np.testing.assert_allclose([to_rgb(p.get_facecolor()) for p in tiles], fills)
    full, bar = [p for p in mine if isinstance(p, Rectangle)]
    assert bar.get_width() / full.get_width() == pytest.approx(0.60)


def test_missing_scores_show_their_status_and_no_number(summary):
    _set(summary, "random", "nmi", mean=np.nan, status="not_applicable")
    summary = summary[~((summary["method"] == "scanvi") & (summary["metric"] == "nmi"))]
    fig = draw_score_table(summary, TITLES, "Title")
    lost = _row_texts(fig, "Lost")
    assert lost[:2] == ["Lost", "0"]
    assert [t.replace("\n", " ") for t in lost[2:]] == 4 * ["out of memory"]
    assert "n/a" in _row_texts(fig, "Random")
    assert "missing" in _row_texts(fig, "scANVI")


def test_a_number_with_failed_seeds_says_so(summary):
    _set(summary, "more", "total", status="failed")
    assert _row_texts(draw_score_table(summary, TITLES, "T"), "MoRE")[-2:] == ["0.80", "failed"]


def test_controls_stand_below_and_are_not_ranked(summary):
    fig = draw_score_table(summary, TITLES, "Title")
    heads = {text: y for text, _, y in _texts(fig) if "(" in text}
    assert max(heads, key=heads.__getitem__) == "Controls (not ranked)"
    assert _row_of(fig, "Random") > heads["Controls (not ranked)"] > _row_of(fig, "scANVI")
    assert _row_texts(fig, "Random")[0] == "Random"


def test_nothing_is_drawn_off_the_page(summary):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    summary.loc[summary["method"] == "more", "title"] = "A method with quite a long title indeed"
    titles = {**TITLES, "total": "A total with a long name"}
    fig = draw_score_table(summary, titles, "Title")
    renderer = FigureCanvasAgg(fig).get_renderer()
    for text in fig.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0, text.get_text()
        assert box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1, text.get_text()


def test_annotation_without_totals_is_drawn(summary):
    few = summary[summary["metric"] == "nmi"].assign(metric="f1", aspect="annotation")
    fig = draw_score_table(few, {"f1": "Macro F1"}, "Annotation", rank_by="f1")
    assert _row_texts(fig, "scVI")[0] == "1"
    assert any("Ranked by Macro F1" in text for text, _, _ in _texts(fig))


def test_structure_stands_beside_the_totals_with_its_own_scale(summary):
    scgraph = summary[summary["metric"] == "nmi"].assign(metric="extra", aspect="structure")
    fig = draw_score_table(pd.concat([summary, scgraph]), TITLES, "Title")
    places = {
        text: x for text, x, _ in _texts(fig) if text in ("Totals", "Structure", "Biology kept")
    }
    assert places["Biology kept"] < places["Totals"] < places["Structure"]
    texts = [text for text, *_ in _texts(fig)]
    assert "Extra" in texts and _row_texts(fig, "Harmony").count("0.33") == 2


def test_metrics_that_rise_with_over_correction_are_marked_and_explained(summary):
    texts = [text for text, *_ in _texts(draw_score_table(summary, TITLES, "T", rising={"bras"}))]
    assert f"BRAS{DAGGER}" in texts and "BRAS" not in texts and "iLISI" in texts
    assert any(MARK_NOTE in text for text in texts)
    # A mark that no column shows needs no line.
    texts = [text for text, *_ in _texts(draw_score_table(summary, TITLES, "T", rising={"extra"}))]
    assert not any(DAGGER in text for text in texts)


def test_svg_text_and_equal_bytes(summary, tmp_path):
    for name in "ab":
        fig = draw_score_table(summary, TITLES, "Kang: all")
        save_figure(fig, tmp_path / f"{name}.svg", source={"table": "summary.tsv"})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    tree = ET.parse(tmp_path / "a.svg")
    texts = ["".join(t.itertext()) for t in tree.iter("{http://www.w3.org/2000/svg}text")]
    for wanted in ("Kang: all", "BRAS", "MoRE", "0.80", "±0.03", "Controls (not ranked)"):
        assert wanted in texts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="sd"), "sd"),
        (lambda s: pd.concat([s, s.iloc[:1]]), "one row a method and metric"),
        (lambda s: s.assign(mean=np.nan), "status ok without a number"),
        (lambda s: s.assign(metric=s["metric"].replace("nmi", "new")), r"\['new'\] have no title"),
        (lambda s: s.assign(track=[f"t{i}" for i in range(len(s))]), "more than one track"),
    ],
)
def test_a_broken_summary_is_refused(summary, change, message):
    with pytest.raises(ContractError, match=message):
        draw_score_table(change(summary), TITLES, "Title")
