"""Annotation of all held-out batches together: pooled scores and paired differences.

Every cell is scored in the split that hides its batch, so the pooled predictions of a
method come from as many fits as there are batches, and no cell counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

import numpy as np

from morebench.metrics import classification
from morebench.metrics.resampling import percentile_interval, resamples
from morebench.tasks.held_out import Answer, HeldOut, check_batches, join, never_shown

#: Of which of an answer's labels, and what.
METRICS = {
    "accuracy": ("predicted", classification.accuracy),
    "macro_f1": ("predicted", classification.macro_f1),
    "balanced_accuracy": ("predicted", classification.balanced_accuracy),
    "macro_f1_voted": ("voted", classification.macro_f1),
    "macro_f1_knn": ("nearest", classification.macro_f1),
}
COMPARED = "macro_f1"  # the metric of the paired differences


@dataclass(frozen=True)
class PooledScore:
    """A metric over the cells of all batches, with its 95 % interval, or why there is none."""

    method: str
    track: str
    seed: int
    metric: str
    value: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    n_cells: int = 0
    n_batches: int = 0
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """``method`` minus ``other`` on the same cells and resamples, or why there is none."""

    method: str
    other: str
    seed: int
    metric: str
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    n_cells: int = 0
    status: str = "ok"
    reason: str = ""


SCORE_COLUMNS = tuple(f.name for f in fields(PooledScore))
DIFFERENCE_COLUMNS = tuple(f.name for f in fields(Difference))


@dataclass(frozen=True)
class _Pooled:
    """A run over all batches: values (k,) and resampled values (n_boot, k) of the metrics."""

    answer: Answer
    values: np.ndarray
    resampled: np.ndarray


def _measure(answer: Answer, truth: np.ndarray, n_boot: int, seed: int) -> _Pooled:
    """Compute all metrics from each confusion matrix; equal seeds give equal resamples."""
    k = len(METRICS)
    if answer.predicted is None:
        return _Pooled(answer, np.full(k, np.nan), np.full((n_boot, k), np.nan))
    said = {kind: getattr(answer, kind) for kind, _ in METRICS.values()}
    codes = {
        kind: classification.paired_codes(truth, labels)
        for kind, labels in said.items()
        if labels is not None
    }

    def values(indices: np.ndarray) -> np.ndarray:
        confusion = {
            kind: classification.confusions(*paired, indices) for kind, paired in codes.items()
        }
        lacking = np.full(len(indices), np.nan)
        return np.stack(
            [
                metric(confusion[kind]) if kind in confusion else lacking
                for kind, metric in METRICS.values()
            ],
            axis=1,
        )

    resampled = [values(indices) for indices in resamples(len(truth), n_boot, seed)]
    whole = values(np.arange(len(truth))[None, :])[0]
    return _Pooled(answer, whole, np.concatenate(resampled))


def _scores(run: _Pooled, n_cells: int, n_batches: int, note: str) -> Iterator[PooledScore]:
    a = run.answer
    for i, (metric, (kind, _)) in enumerate(METRICS.items()):
        if getattr(a, kind) is None:
            state, reason = a.state, a.reason
            if state == "ok":
                state, reason = "not_applicable", "the method gives no embedding"
            yield PooledScore(a.method, a.track, a.seed, metric, status=state, reason=reason)
            continue
        low, high = percentile_interval(run.resampled[:, i])
        yield PooledScore(
            a.method, a.track, a.seed, metric, float(run.values[i]), low, high, n_cells,
            n_batches, reason=note,
        )  # fmt: skip


def _pairs(
    runs: Sequence[_Pooled], fixed: Collection[str]
) -> Iterator[tuple[int, _Pooled, _Pooled]]:
    """Yield (seed, run, other run) of every two methods, in the order of the methods.

    Runs pair by seed. A method without randomness has one run, which pairs with every
    seed of the other.
    """
    methods = dict.fromkeys(r.answer.method for r in runs)
    for first, second in combinations(methods, 2):
        for one in (r for r in runs if r.answer.method == first):
            for two in (r for r in runs if r.answer.method == second):
                if first in fixed and second not in fixed:
                    yield two.answer.seed, one, two
                elif first in fixed or second in fixed or one.answer.seed == two.answer.seed:
                    yield one.answer.seed, one, two


def _difference(seed: int, one: _Pooled, two: _Pooled, n_cells: int) -> Difference:
    """Difference with its percentile interval, as ``stats.bootstrap.paired_bootstrap`` gives it.

    The resampled values are reused: resampling anew for each pair costs the square of the
    number of runs.
    """
    names = (one.answer.method, two.answer.method, seed, COMPARED)
    lost = [r.answer for r in (one, two) if r.answer.predicted is None]
    if lost:
        reason = "; ".join(f"{a.method}: {a.reason}" for a in lost)
        return Difference(*names, status=lost[0].state, reason=reason)
    i = list(METRICS).index(COMPARED)
    low, high = percentile_interval(one.resampled[:, i] - two.resampled[:, i])
    return Difference(*names, float(one.values[i] - two.values[i]), low, high, n_cells)


def score(
    batches: Sequence[HeldOut], *, fixed: Collection[str] = (), n_boot: int, seed: int
) -> tuple[list[PooledScore], list[Difference]]:
    """Score every run on the cells of all held-out batches together, and every two methods.

    Intervals are 95 % percentile intervals (Efron and Tibshirani 1993, section 13.3) over
    cells; every run is resampled alike, so the differences are paired. They say nothing of
    other batches or seeds, and are not adjusted for the number of pairs.

    Parameters
    ----------
    batches
        One a held-out batch, with the same runs in the same order.
    fixed
        Methods without randomness, which have one run.
    n_boot
        Resamples of the pooled cells.
    seed
        Of the resamples.

    Returns
    -------
    list of PooledScore
        Accuracy, macro F1 (also after voting, and of the nearest shown cells in the embedding)
        and balanced accuracy of each run. A run without an answer in one batch has no value:
        scores on other cells are not comparable.
    list of Difference
        In macro F1, for every two methods and seed.

    Raises
    ------
    ContractError
        If no cell is held out, one is held out twice, or the batches differ in their runs.
    """
    check_batches(batches)
    truth = np.concatenate([b.truth for b in batches])
    answers = [join(batches, at) for at in range(len(batches[0].answers))]
    runs = [_measure(answer, truth, n_boot, seed) for answer in answers]
    n, used, note = len(truth), sum(len(b.cells) > 0 for b in batches), never_shown(batches)
    scores = [s for run in runs for s in _scores(run, n, used, note)]
    return scores, [_difference(*pair, n) for pair in _pairs(runs, fixed)]
