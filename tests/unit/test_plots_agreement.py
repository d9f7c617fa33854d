"""The figure of who calls what what."""

import numpy as np
import pandas as pd
import pytest

from morebench.errors import ContractError
from morebench.plots.agreement import draw_agreement, shares
from morebench.plots.style import save_figure

TABLE = pd.DataFrame(
    [
        ("one", "truth", "a", "a", 8), ("one", "truth", "b", "a", 2), ("one", "truth", "b", "b", 5),
        ("two", "truth", "a", "a", 10), ("two", "truth", "unknown", "b", 5),
        ("one", "two", "a", "a", 8), ("one", "two", "b", "a", 2), ("one", "two", "b", "unknown", 5),
    ],
    columns=["method", "other", "label", "other_label", "n_cells"],
)  # fmt: skip
PAIRS = [("one", "truth"), ("two", "truth"), ("two", "one")]


def test_rows_are_shares_of_the_other_ones_labels():
    found = shares(TABLE, "one", "truth")
    assert list(found.index) == list(found.columns) == ["a", "b"]
    np.testing.assert_allclose(found, [[0.8, 0.2], [0, 1]])


def test_a_pair_can_be_asked_for_both_ways():
    np.testing.assert_allclose(shares(TABLE, "one", "two"), [[0.8, 0.2], [0, 1]])
    turned = shares(TABLE, "two", "one")
    assert list(turned.index) == ["a", "b"] and list(turned.columns) == ["a", "unknown"]
    np.testing.assert_allclose(turned, [[1, 0], [2 / 7, 5 / 7]])


def test_what_is_not_there_is_named():
    with pytest.raises(ContractError, match="no pair one/three; valid: one/truth"):
        shares(TABLE, "one", "three")
    with pytest.raises(ContractError, match=r"lacks the columns \['n_cells'\]"):
        shares(TABLE.drop(columns="n_cells"), "one", "two")


def test_the_figure_shows_every_pair_and_its_shares(tmp_path):
    figure = draw_agreement(TABLE, PAIRS, {"one": "MoRE"}, "Data: held out")
    axes = figure.get_axes()
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("MoRE", "Truth"), ("two", "Truth"), ("two", "MoRE"),
    ]  # fmt: skip
    assert [t.get_text() for t in axes[0].texts] == ["0.80", "0.20", "1.00"]
    save_figure(figure, tmp_path / "a.svg", source={"table": "t.tsv"})
    text = (tmp_path / "a.svg").read_text()
    assert "unknown" in text and "Shares of each row" in text


def test_without_any_answer_the_figure_says_so(tmp_path):
    figure = draw_agreement(TABLE[:0], [], {}, "Data: held out")
    save_figure(figure, tmp_path / "a.svg", source={"table": "t.tsv"})
    assert "No method gave labels" in (tmp_path / "a.svg").read_text()
