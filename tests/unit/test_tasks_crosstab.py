"""Who called what what: counts, types and agreement against scikit-learn."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support
from tests.unit.test_tasks_pooled import TYPES, N, batches, entrant, guess

from morebench.contract import MethodOutput
from morebench.tasks.contract import Candidate
from morebench.tasks.crosstab import TRUTH, agreement_table, crosstab, types_table

(ONE, ONE_SAID), (TWO, TWO_SAID) = guess(0.8, 1), guess(0.6, 2)
TABLE = crosstab(batches(entrant(ONE, "one"), entrant(TWO, "two")))


def test_counts_are_those_of_the_confusion_matrix():
    for method, other, said, against in (
        ("one", TRUTH, ONE_SAID, TYPES.astype(str)),
        ("two", TRUTH, TWO_SAID, TYPES.astype(str)),
        ("one", "two", ONE_SAID, TWO_SAID),
    ):
        rows = TABLE[(TABLE["method"] == method) & (TABLE["other"] == other)]
        names = sorted({*said, *against})
        found = rows.pivot(index="label", columns="other_label", values="n_cells")
        found = found.reindex(index=names, columns=names).fillna(0).to_numpy()
        np.testing.assert_array_equal(found, confusion_matrix(said, against, labels=names))
        assert rows["n_cells"].sum() == N
    assert set(TABLE["other"]) == {TRUTH, "two"}


def test_types_have_the_values_of_sklearn():
    table = types_table(TABLE)
    for method, said in (("one", ONE_SAID), ("two", TWO_SAID)):
        rows = table[table["method"] == method]
        names = ["t0", "t1", "t2"]
        assert rows["cell_type"].tolist() == names
        wanted = precision_recall_fscore_support(TYPES.astype(str), said, labels=names)
        for column, values in zip(["precision", "recall", "f1", "n_cells"], wanted, strict=True):
            np.testing.assert_allclose(rows[column], values)


def test_a_type_that_is_never_called_has_no_precision():
    labels = {b: np.full(N, "t0", dtype=object) for b in ONE}
    row = types_table(crosstab(batches(entrant(labels)))).set_index("cell_type").loc["t2"]
    assert np.isnan(row["precision"]) and row["recall"] == row["f1"] == 0


def test_agreement_is_share_and_kappa():
    row = agreement_table(TABLE)
    assert len(row) == 1 and row.iloc[0]["n_cells"] == N
    assert row.iloc[0]["share"] == pytest.approx((ONE_SAID == TWO_SAID).mean())
    assert row.iloc[0]["kappa"] == pytest.approx(cohen_kappa_score(ONE_SAID, TWO_SAID))
    same = {b: np.full(N, "t0", dtype=object) for b in ONE}
    alone = agreement_table(crosstab(batches(entrant(same, "one"), entrant(same, "two"))))
    assert alone.iloc[0]["share"] == 1 and np.isnan(alone.iloc[0]["kappa"])


def test_methods_without_randomness_pair_with_every_seed():
    runs = batches(entrant(ONE, "a", 0), entrant(TWO, "a", 1), entrant(ONE, "b", 7))
    pairs = agreement_table(crosstab(runs, fixed=["b"]))
    assert pairs[["method", "other", "seed"]].to_numpy().tolist() == [
        ["a", "b", 0], ["a", "b", 1],
    ]  # fmt: skip
    assert pairs["share"].iloc[0] == 1
    assert not len(agreement_table(crosstab(runs)))


def test_a_run_without_an_answer_is_left_out():
    lost = entrant(ONE, "lost")
    lost["b0"] = Candidate("lost", "semi-supervised", 0, "timeout", None, "60 min")
    bare = entrant(ONE, "bare")
    bare["b1"] = Candidate("bare", "semi-supervised", 0, "ok", MethodOutput(labels=TYPES[:5]))
    table = crosstab(batches(entrant(TWO, "good"), lost, bare))
    assert set(table["method"]) == {"good"} and set(table["other"]) == {TRUTH}
    empty = crosstab(batches(lost))
    assert not len(empty) and not len(types_table(empty)) and not len(agreement_table(empty))
    assert list(types_table(empty)) == list(types_table(TABLE))
    assert isinstance(empty, pd.DataFrame)


def test_cells_of_types_that_their_split_does_not_show_are_counted_apart():
    parts = batches(entrant(ONE, "one"), entrant(TWO, "two"))
    parts[0] = dataclasses.replace(parts[0], taught=parts[0].taught - {"t1"})
    table = crosstab(parts)
    hidden = int((parts[0].truth == "t1").sum())
    assert hidden > 0
    for _, rows in table.groupby(["method", "other"]):
        assert rows["n_cells"].sum() == N and rows["n_shown"].sum() == N - hidden
    types = types_table(table).set_index(["method", "cell_type"])
    lost = types["n_cells"] - types["n_shown"]
    assert lost.xs("one").to_dict() == lost.xs("two").to_dict() == {"t0": 0, "t1": hidden, "t2": 0}
    assert (TABLE["n_shown"] == TABLE["n_cells"]).all()
