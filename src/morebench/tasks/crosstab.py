"""What methods say of the same cells, beside the truth and beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from morebench.tasks.held_out import Answer, HeldOut, check_batches, join

TRUTH = "truth"
CROSSTAB_COLUMNS = ("method", "other", "seed", "label", "other_label", "n_cells", "n_shown")
TYPE_COLUMNS = ("method", "seed", "cell_type", "n_cells", "n_shown", "precision", "recall", "f1")
AGREEMENT_COLUMNS = ("method", "other", "seed", "share", "kappa", "n_cells")


def crosstab(batches: Sequence[HeldOut], *, fixed: Collection[str] = ()) -> pd.DataFrame:
    """Count the cells of every pair of labels, over all held-out batches.

    Parameters
    ----------
    batches
        One a held-out batch, with the same runs in the same order.
    fixed
        Methods without randomness, which pair with every seed of the others.

    Returns
    -------
    DataFrame
        ``CROSSTAB_COLUMNS``: ``other`` is another method, or ``truth``; ``n_shown`` counts the
        cells whose true type their split shows, so that a method could know it. Runs without
        an answer in one of the batches are left out, as they have no pooled score either.
    """
    check_batches(batches)
    truth = np.concatenate([b.truth for b in batches])
    shown = np.concatenate([np.isin(b.truth, sorted(b.taught)) for b in batches])
    answers = [join(batches, at) for at in range(len(batches[0].answers))]
    given = [a for a in answers if a.predicted is not None]
    rows = [row for a in given for row in _counts(a.method, TRUTH, a.seed, _said(a), truth, shown)]
    for one, two, seed in _pairs(given, fixed):
        rows += _counts(one.method, two.method, seed, _said(one), _said(two), shown)
    return pd.DataFrame(rows, columns=list(CROSSTAB_COLUMNS))


def _said(answer: Answer) -> np.ndarray:
    assert answer.predicted is not None
    return answer.predicted.astype(str)


def _pairs(
    answers: Sequence[Answer], fixed: Collection[str]
) -> Iterator[tuple[Answer, Answer, int]]:
    for one, two in combinations(answers, 2):
        if one.method == two.method:
            continue
        if one.seed == two.seed or one.method in fixed or two.method in fixed:
            yield one, two, two.seed if one.method in fixed else one.seed


def _counts(
    method: str,
    other: str,
    seed: int,
    label: np.ndarray,
    other_label: np.ndarray,
    shown: np.ndarray,
) -> Iterator[tuple[str, str, int, str, str, int, int]]:
    known = Counter(zip(label[shown], other_label[shown], strict=True))
    for (one, two), n in sorted(Counter(zip(label, other_label, strict=True)).items()):
        yield method, other, seed, str(one), str(two), n, known[one, two]


def types_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return precision, recall and F1 of every true type, from a ``crosstab``.

    Precision is NaN for a type that is never called; its F1 is 0. A type with fewer
    ``n_shown`` than ``n_cells`` is scored in splits that do not show it: never right there.
    """
    rows = []
    against_truth = table[table["other"] == TRUTH]
    for (method, seed), group in against_truth.groupby(["method", "seed"], sort=False):
        n = group["n_cells"]
        right = group["label"] == group["other_label"]
        for name in sorted(group["other_label"].unique()):
            true, called = group["other_label"] == name, group["label"] == name
            hit, of, said = n[true & right].sum(), n[true].sum(), n[called].sum()
            shown = group.loc[true, "n_shown"].sum()
            precision = hit / said if said else np.nan
            rows.append((method, seed, name, of, shown, precision, hit / of, 2 * hit / (of + said)))
    return pd.DataFrame(rows, columns=list(TYPE_COLUMNS))


def agreement_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of equal labels and Cohen's kappa (1960, eq. 1) of every two methods.

    Kappa is NaN where both give all cells one and the same label.
    """
    rows = []
    for (method, other, seed), group in table[table["other"] != TRUTH].groupby(
        ["method", "other", "seed"], sort=False
    ):
        n = group["n_cells"].sum()
        same = group.loc[group["label"] == group["other_label"], "n_cells"].sum() / n
        one = group.groupby("label")["n_cells"].sum() / n
        two = group.groupby("other_label")["n_cells"].sum() / n
        chance = float(one.mul(two, fill_value=0).sum())
        kappa = (same - chance) / (1 - chance) if chance < 1 else np.nan
        rows.append((method, other, seed, same, kappa, n))
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))
