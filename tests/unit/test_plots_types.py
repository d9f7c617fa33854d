"""The figure of F1 by cell type: values and words of the drawn artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb

from morebench.errors import ContractError
from morebench.plots.style import MISSING_COLOUR, save_figure, score_colour
from morebench.plots.types import draw_types, type_scores

TITLES = {"more_sup": "MoRE", "scvi": "scVI", "pca": "PCA, uncorrected", "other": "Another"}
TYPES = pd.DataFrame(
    [
        ("more_sup", 0, "b", 5, 5, 0.8), ("more_sup", 0, "t", 1200, 1200, 1.0),
        ("more_sup", 0, "rare", 5, 2, 0.0), ("more_sup", 1, "b", 5, 5, 0.6),
        ("more_sup", 1, "t", 1200, 1200, 0.9), ("more_sup", 1, "rare", 5, 2, 0.25),
        ("pca", 0, "b", 5, 5, 0.5), ("pca", 0, "t", 1200, 1200, 0.75),
        ("pca", 0, "rare", 5, 2, 0.0), ("scvi", 0, "b", 5, 5, 1.0),
        ("scvi", 0, "t", 1200, 1200, 1.0), ("scvi", 0, "rare", 5, 2, 1.0),
    ],
    columns=["method", "seed", "cell_type", "n_cells", "n_shown", "f1"],
)  # fmt: skip
POOLED = pd.DataFrame(
    [
        ("more_sup", "semi-supervised", 0, "ok"), ("more_sup", "semi-supervised", 1, "ok"),
        ("scvi", "unsupervised", 0, "ok"), ("scvi", "unsupervised", 1, "out_of_memory"),
        ("pca", "control", 0, "ok"),
    ],
    columns=["method", "track", "seed", "status"],
).assign(metric="macro_f1")  # fmt: skip
# a method without an embedding has no score by neighbours, and its types all the same
POOLED = pd.concat([POOLED, POOLED.assign(metric="macro_f1_knn", status="not_applicable")])


def test_values_are_means_over_seeds_and_a_lost_seed_leaves_none():
    found = type_scores(TYPES, POOLED, list(TITLES))
    assert list(found.f1.columns) == ["more_sup", "scvi", "pca"]
    assert found.n_cells.to_dict() == {"t": 1200, "b": 5, "rare": 5}
    assert list(found.f1.index) == ["t", "b", "rare"]  # most cells first, equals by name
    wanted = [[0.95, np.nan, 0.75], [0.7, np.nan, 0.5], [0.125, np.nan, 0.0]]
    np.testing.assert_allclose(found.f1, wanted)
    assert (found.unshown, found.states) == ({"rare"}, {"scvi": "out_of_memory"})
    assert found.controls == {"pca"}


def test_the_tiles_have_the_colours_and_numbers_of_the_table():
    figure = draw_types(TYPES, POOLED, TITLES, "Data: F1")
    (ax,) = figure.get_axes()
    written = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert written == {
        (0, 0): "0.95", (0, 1): "n/a", (0, 2): "0.75", (1, 0): "0.70", (1, 1): "n/a",
        (1, 2): "0.50", (2, 0): "0.12", (2, 1): "n/a", (2, 2): "0.00",
    }  # fmt: skip
    tiles = ax.images[0].get_array()
    assert tiles.shape == (3, 3, 3)
    np.testing.assert_allclose(tiles[0, 0], score_colour(0.95, "annotation"), atol=1e-6)
    np.testing.assert_allclose(tiles[2, 2], score_colour(0.0, "annotation"), atol=1e-6)
    assert {to_hex(tile).upper() for tile in tiles[:, 1]} == {MISSING_COLOUR}
    assert to_rgb(MISSING_COLOUR) != score_colour(0.0, "annotation")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["t (1,200)", "b (5)", "rare* (5)"]
    names = {t.get_text(): t.get_style() for t in ax.get_xticklabels()}
    assert names == {"MoRE": "normal", "scVI": "normal", "PCA, uncorrected": "italic"}


def test_the_notes_say_what_is_missing_marked_and_slanted(tmp_path):
    figure = draw_types(TYPES, POOLED, TITLES, "Data: F1")
    notes = " ".join(figure.get_supxlabel().split())
    assert "scVI (out of memory)" in notes and "* also scored where no cell" in notes
    assert "Controls are in italics." in notes
    save_figure(figure, tmp_path / "t.svg", source={"table": "t.tsv", "commit": "abc"})
    text = (tmp_path / "t.svg").read_text()
    assert "rare* (5)" in text and "table: t.tsv; commit: abc" in text
    first = (tmp_path / "t.svg").read_bytes()
    again = draw_types(TYPES, POOLED, TITLES, "Data: F1")
    save_figure(again, tmp_path / "t.svg", source={"table": "t.tsv", "commit": "abc"})
    assert (tmp_path / "t.svg").read_bytes() == first
    plain = TYPES[TYPES["method"] == "scvi"].assign(n_shown=TYPES["n_cells"])
    notes = draw_types(plain, POOLED[2:3], TITLES, "Data: F1").get_supxlabel()
    assert not any(word in notes for word in ("n/a", "*", "italics"))


def test_nothing_lies_outside_the_figure_or_on_something_else():
    many = pd.concat(
        [TYPES[TYPES["seed"] == 0].assign(cell_type=TYPES["cell_type"] + f" of kind {i}")
         for i in range(12)]
    )  # fmt: skip
    for table in (TYPES, many):
        figure = draw_types(table, POOLED[POOLED["seed"] == 0], TITLES, "D")
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        (ax,) = figure.get_axes()
        whole = figure.bbox
        texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), *figure.texts]
        boxes = [t.get_window_extent(renderer) for t in texts if t.get_text()]
        for box in boxes:
            assert whole.x0 - 1 <= box.x0 and box.x1 <= whole.x1 + 1
            assert whole.y0 - 1 <= box.y0 and box.y1 <= whole.y1 + 1
        note = next(t for t in figure.texts if "F1 of each type" in t.get_text())
        under = note.get_window_extent(renderer)
        assert all(t.get_window_extent(renderer).y0 >= under.y1 - 1 for t in ax.get_xticklabels())
        tile = ax.transData.transform([(0, 0), (1, 1)])
        assert abs(tile[1] - tile[0]).min() > 15  # points enough for a number of 5 points


def test_without_any_answer_the_figure_says_so():
    lost = POOLED.assign(status="failed")
    figure = draw_types(TYPES[:0], lost, TITLES, "Data")
    assert "No method gave labels for every held-out batch." in [t.get_text() for t in figure.texts]


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match=r"annotation_types: lacks the columns \['n_shown'\]"):
        type_scores(TYPES.drop(columns="n_shown"), POOLED, list(TITLES))
    with pytest.raises(ContractError, match=r"annotation_pooled: lacks the columns \['track'\]"):
        type_scores(TYPES, POOLED.drop(columns="track"), list(TITLES))
    with pytest.raises(ContractError, match=r"unknown methods \['scvi'\]; valid: more_sup, pca"):
        type_scores(TYPES, POOLED, ["more_sup", "pca"])
    alone = TYPES[TYPES["method"] != "pca"]
    with pytest.raises(ContractError, match="no row of pca, whose pooled scores are ok"):
        type_scores(alone, POOLED, list(TITLES))
