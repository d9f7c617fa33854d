"""Robustness curves: which datasets make them, and what stands at each of their points."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import f1_score, recall_score

from morebench.config import load
from morebench.evaluate import SCORE_COLUMNS
from morebench.registry import METRICS
from morebench.robustness.plan import Curve, Point, curves
from morebench.robustness.table import COLUMNS, robustness_table
from morebench.tasks.crosstab import CROSSTAB_COLUMNS
from morebench.tasks.pooled import METRICS as POOLED_METRICS
from morebench.tasks.pooled import SCORE_COLUMNS as POOLED_COLUMNS

BASE = {
    "path": "x.h5ad", "batch": "batch", "title": "The data",
    "labels": {"column": "cell_type", "source": "expert"},
    "splits": {"lobo": ["b1", "b2"]}, "tasks": ["integration", "annotation"],
}  # fmt: skip
RARE = {"type": "NK", "share": 0.01}


def config_of(seeds=(0,), base=(), **derived):
    """Return a configuration of ``d``, with datasets derived of it unless they say otherwise."""
    entries = {
        name: {**entry, "derive": {"from": "d", **entry["derive"]}}
        for name, entry in derived.items()
    }
    return load(
        {
            "seeds": list(seeds),
            "datasets": {"d": {**BASE, **dict(base)}, **entries},
            "methods": {"harmony": None, "pca": None, "logreg": None, "more_sup": None},
        }
    )


# --- which datasets make a curve -----------------------------------------------------------


def test_a_curve_goes_from_the_base_to_the_largest_change():
    config = config_of(
        sixteenth={"derive": {"depth": 0.0625}},
        half={"derive": {"depth": 0.5}},
        rarer={"derive": {"titrate": RARE}},
        again={"derive": {"titrate": RARE, "seed": 1}},
        rare={"derive": {"titrate": {**RARE, "share": 0.05}}},
        other={"derive": {"titrate": {**RARE, "type": "B"}}},
        lost={"derive": {"dropout": 0.3}},
    )
    assert curves(config) == [
        Curve("d", "dropout", "", (Point(0.0, ("d",)), Point(0.3, ("lost",)))),
        Curve("d", "depth", "",
              (Point(1.0, ("d",)), Point(0.5, ("half",)), Point(0.0625, ("sixteenth",)))),
        Curve("d", "titration", "B", (Point(None, ("d",)), Point(0.01, ("other",)))),
        Curve("d", "titration", "NK",
              (Point(None, ("d",)), Point(0.05, ("rare",)), Point(0.01, ("rarer", "again")))),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "entry",
    [
        {"derive": {"dropout": 0.3, "depth": 0.5}},  # two changes
        {"derive": {"dropout": 0.0}},  # none
        {"derive": {"dropout": 0.3}, "features": {"n_top": 500}},  # another change in secret
    ],
)
def test_what_differs_by_more_or_less_than_one_change_lies_on_no_curve(entry):
    assert curves(config_of(odd=entry)) == []


def test_without_derived_datasets_there_is_no_curve_and_no_row():
    config = config_of()
    assert curves(config) == []
    table = robustness_table(config, *results(config), {})
    assert list(table.columns) == list(COLUMNS) and not len(table)


# --- the table -----------------------------------------------------------------------------


def results(config, value=lambda *_: 0.5, bad=(), calls=None, without=(), showing=True):
    """Return scores, pooled scores and crosstab of everything that is expected.

    ``value`` gives a value by dataset, method, metric and seed; ``bad`` are (dataset, method)
    that failed; ``calls`` gives (truth, predicted) of a dataset, method and seed; ``showing``
    is whether the splits show the types that they score.
    """
    from morebench.plan import expected

    scores, pooled, crossed = [], {}, []
    for cell in expected(config):
        name, method, seed = cell.run.dataset, cell.run.method, cell.run.seed
        status = "failed" if (name, method) in bad else "ok"
        if name in without:
            continue
        for metric in (m.name for m in METRICS.values() if m.task == cell.task):
            one = value(name, method, metric, seed) if status == "ok" else np.nan
            row = {
                "dataset": name, "split": cell.split, "task": cell.task, "method": method,
                "track": "", "seed": seed, "metric": metric, "value": one, "ci_low": one - 0.1,
                "ci_high": one + 0.2, "n_cells": 50, "coverage": 1.0, "status": status,
                "reason": "it crashed" if status == "failed" else np.nan,
            }  # fmt: skip
            scores.append(row)
            if cell.split.startswith("lobo"):
                row = {**row, "value": one + 0.01, "n_cells": 100, "n_batches": 2}
                pooled[name, method, metric, seed] = row
        key = (name, method, seed)
        if cell.split == "lobo-b1" and status == "ok" and calls is not None:
            truth, said = calls(*key)
            counts = pd.crosstab(pd.Series(said), pd.Series(truth)).stack()
            key = (name, method, "truth", seed)
            crossed += [(*key, a, b, n, n * showing) for (a, b), n in counts.items() if n]
    names = ["dataset", *CROSSTAB_COLUMNS]
    return (
        pd.DataFrame(scores, columns=list(SCORE_COLUMNS)),
        pd.DataFrame(list(pooled.values()), columns=["dataset", *POOLED_COLUMNS]),
        pd.DataFrame(crossed, columns=names),
    )


def chosen(table, **values):
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def test_every_point_has_its_level_and_its_value_and_the_base_is_the_first():
    config = config_of(
        lost={"derive": {"dropout": 0.5}}, most={"derive": {"dropout": 0.9}, "methods": ["pca"]}
    )
    at = {"d": 0.8, "lost": 0.6, "most": 0.2}
    table = robustness_table(config, *results(config, lambda name, *_: at[name]), {})
    pca = chosen(table, method="pca", metric="total")
    assert list(zip(pca["level"], pca["mean"], strict=True)) == [(0, 0.8), (0.5, 0.6), (0.9, 0.2)]
    assert set(pca["split"]) == {"all"} and set(pca["title"]) == {"PCA, uncorrected"}
    np.testing.assert_allclose(pca["low"], pca["mean"] - 0.1)
    np.testing.assert_allclose(pca["high"], pca["mean"] + 0.2)
    assert set(table["dataset"]) == {"d"} and set(table["n"]) == {1}
    # harmony has no point at 0.9: it was not asked for there
    assert list(chosen(table, method="harmony", metric="total")["level"]) == [0, 0.5]
    # annotation is of all held-out batches together, whose scores are other ones
    pooled = chosen(table, method="logreg", metric="macro_f1")
    assert set(pooled["split"]) == {"lobo"} and set(pooled["n_cells"]) == {100}
    np.testing.assert_allclose(pooled["mean"], [0.81, 0.61])
    assert set(chosen(table, split="lobo")["metric"]) == set(POOLED_METRICS)
    assert not table.duplicated(["change", "level", "split", "metric", "method"]).any()


def test_seeds_and_draws_are_averaged_and_their_range_is_shown():
    config = config_of(
        seeds=(0, 1), one={"derive": {"depth": 0.5}}, two={"derive": {"depth": 0.5, "seed": 7}}
    )
    at = {("d", 0): 0.9, ("d", 1): 0.7, ("one", 0): 0.5, ("one", 1): 0.3, ("two", 0): 0.2,
          ("two", 1): 0.6}  # fmt: skip
    table = robustness_table(config, *results(config, lambda n, m, _, seed: at[n, seed]), {})
    rows = chosen(table, method="more_sup", metric="accuracy")
    np.testing.assert_allclose(rows["mean"], [0.81, 0.41])
    np.testing.assert_allclose(rows["low"], [0.71, 0.21])
    np.testing.assert_allclose(rows["high"], [0.91, 0.61])
    assert list(rows["n"]) == [2, 4]
    # PCA has no randomness: one run, but two draws of the counts
    assert list(chosen(table, method="pca", metric="total")["n"]) == [1, 2]


def test_a_missing_value_is_typed_and_never_averaged_over():
    config = config_of(
        one={"derive": {"depth": 0.5}},
        two={"derive": {"depth": 0.5, "seed": 1}},
        gone={"derive": {"depth": 0.25}},
    )
    found = results(config, bad={("two", "pca"), ("d", "logreg")}, without={"gone"})
    table = robustness_table(config, *found, {}).fillna({"reason": ""})
    pca = chosen(table, method="pca", metric="total")
    assert list(pca["status"]) == ["ok", "failed", "missing"]
    assert list(pca["reason"]) == ["", "it crashed", "it was not scored"]
    assert pca[["mean", "low", "high"]].iloc[1:].isna().all(axis=None)
    logreg = chosen(table, method="logreg", metric="macro_f1")
    assert list(logreg["status"]) == ["failed", "ok", "missing"]
    assert (table["mean"].isna() == (table["status"] != "ok")).all()
    assert (table["reason"] != "").eq(table["status"] != "ok").all()


def test_other_held_out_batches_than_the_bases_are_not_compared():
    config = config_of(
        fewer={"derive": {"dropout": 0.5}, "splits": {"lobo": ["b1"]}},
        same={"derive": {"dropout": 0.7}, "splits": {"lobo": ["b2", "b1"]}},
        base={"splits": {"lobo": ["b1", "b2"], "partial": {}}},
    )
    table = robustness_table(config, *results(config), {})
    assert set(chosen(table, split="lobo")["level"]) == {0, 0.7}
    assert set(chosen(table, split="all")["level"]) == {0, 0.5, 0.7}
    assert "partial" not in set(table["split"])


def wilson(k, n, z=1.959963984540054):
    """The interval by its definition: |share - p| = z sqrt(p (1 - p) / n), solved for p."""

    def edge(p):
        return abs(k / n - p) - z * np.sqrt(p * (1 - p) / n)

    low = 0.0 if k == 0 else brentq(edge, 1e-12, k / n)
    return low, 1.0 if k == n else brentq(edge, k / n, 1 - 1e-12)


def test_a_titrated_type_is_counted_over_all_draws():
    config = config_of(
        one={"derive": {"titrate": RARE}}, two={"derive": {"titrate": RARE, "seed": 1}}
    )
    said = {
        "d": (["NK"] * 40 + ["T"] * 60, ["NK"] * 30 + ["T"] * 12 + ["NK"] * 2 + ["T"] * 56),
        "one": (["NK"] * 1 + ["T"] * 60, ["NK"] * 3 + ["T"] * 58),
        "two": (["NK"] * 2 + ["T"] * 60, ["T"] * 62),
    }
    facts = {
        "d": {"cells": 160},
        "one": {"cells": 121, "derived": {"cells_of_type": [40, 1]}},
    }
    found = results(config, calls=lambda name, *_: said[name])
    table = robustness_table(config, *found, facts)
    assert set(table["metric"]) == {"type_f1", "type_recall"}
    assert set(table["cell_type"]) == {"NK"} and set(table["change"]) == {"titration"}
    rows = chosen(table, method="logreg")
    assert list(rows["level"]) == [0.25, 0.01] * 2 and list(rows["n_cells"]) == [40, 3] * 2
    truth = [t == "NK" for name in ("one", "two") for t in said[name][0]]
    called = [t == "NK" for name in ("one", "two") for t in said[name][1]]
    f1, recall = (chosen(rows, metric=m, level=0.01).iloc[0] for m in ("type_f1", "type_recall"))
    assert f1["mean"] == pytest.approx(f1_score(truth, called))
    assert recall["mean"] == pytest.approx(recall_score(truth, called))
    assert (recall["low"], recall["high"]) == pytest.approx(wilson(1, 3))
    share = wilson(1, 5)  # 3 cells of the type, 3 called so, 1 both
    assert (f1["low"], f1["high"]) == pytest.approx([2 * j / (1 + j) for j in share])


@settings(deadline=None, max_examples=20)
@given(hit=st.integers(0, 5), missed=st.integers(0, 5), false=st.integers(0, 5))
def test_the_interval_of_a_few_cells_holds_its_value(hit, missed, false):
    config = config_of(one={"derive": {"titrate": RARE}})
    truth = ["NK"] * (hit + missed) + ["T"] * (false + 3)
    said = ["NK"] * hit + ["T"] * missed + ["NK"] * false + ["T"] * 3
    table = robustness_table(config, *results(config, calls=lambda *_: (truth, said)), {})
    assert table["level"].isna().sum() == (table["level"] != 0.01).sum() > 0  # of the base
    if not hit + missed:
        assert set(table["status"]) == {"not_applicable"} and table["mean"].isna().all()
        assert set(table["reason"]) == {"no scored cell is of type 'NK'"}
        return
    assert set(table["status"]) == {"ok"}
    for metric, value in (("type_f1", 2 * hit / (2 * hit + missed + false)),
                          ("type_recall", hit / (hit + missed))):  # fmt: skip
        row = chosen(table, metric=metric).iloc[0]
        assert row["mean"] == pytest.approx(value)
        assert 0 <= row["low"] <= row["mean"] + 1e-12
        assert row["mean"] - 1e-12 <= row["high"] <= 1
        assert row["high"] - row["low"] > 0.01  # never a certainty


def test_a_type_left_in_the_batches_that_score_it_alone_has_no_score():
    """Where no split shows it, nobody can be right: 0 would blame the method."""
    config = config_of(one={"derive": {"titrate": RARE}})
    calls = {"calls": lambda *_: (["NK", "T"], ["T", "T"])}
    table = robustness_table(config, *results(config, **calls, showing=False), {})
    assert set(table["status"]) == {"not_applicable"} and table["mean"].isna().all()
    assert set(table["reason"]) == {"no split shows a cell of type 'NK' where it scores one"}
    assert set(table["n_cells"]) == {1}
    shown = robustness_table(config, *results(config, **calls), {})
    assert set(shown["status"]) == {"ok"} and set(shown["mean"]) == {0.0}


def test_a_draw_without_an_answer_leaves_its_level_without_one():
    config = config_of(
        one={"derive": {"titrate": RARE}}, two={"derive": {"titrate": RARE, "seed": 1}}
    )
    said = (["NK", "T"], ["NK", "T"])
    found = results(config, bad={("two", "logreg")}, calls=lambda *_: said)
    table = robustness_table(config, *found, {})
    assert list(chosen(table, method="logreg", metric="type_f1")["status"]) == ["ok", "failed"]
    assert list(chosen(table, method="pca", metric="type_f1")["status"]) == ["ok", "ok"]
    lost = (found[0], found[1], found[2].iloc[:0])
    assert set(chosen(robustness_table(config, *lost, {}), method="pca")["status"]) == {"missing"}
