"""The response curve of every integration metric: scored by the task's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morebench.contract import MethodOutput
from morebench.errors import DataError
from morebench.selftest.titrate import TITRATIONS, clean
from morebench.tasks import integration
from morebench.tasks.contract import Candidate, Score, TaskData

LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SEEDS = (0, 1, 2)
#: Cells of each seed, drawn anew: the spread over seeds is that of other cells and numbers.
N_CELLS = 400
MIN_ISOLATED = 20

CURVE_COLUMNS = ("titration", "level", "seed", "metric", "value", "status", "reason")


def _of(data: TaskData, index: np.ndarray) -> TaskData:
    arrays = ("batch", "cell_type", "is_doublet", "scored", "shown", "pca_np")
    return replace(data, **{name: getattr(data, name)[index] for name in arrays})


def usable(data: TaskData) -> TaskData:
    """Keep scored cells with a label, and one type in a single batch only.

    Without a type that some batch lacks, the metric of isolated labels has no value. It is
    the type that loses the smallest share of its cells by that, out of those that then still
    have ``MIN_ISOLATED`` cells; none where a type is in one batch already, or all are small.

    Raises
    ------
    DataError
        If no scored cell has a label.
    """
    known = np.array([kind is not None for kind in data.cell_type], dtype=bool)
    data = _of(data, np.flatnonzero(data.scored & known))
    if not len(data.batch):
        raise DataError(f"{data.dataset}: no scored cell has a label; valid: at least one")
    table = pd.crosstab(data.cell_type, data.batch)
    top, size = table.max(axis=1), table.sum(axis=1)
    share = (top / size)[top >= MIN_ISOLATED]
    if ((table > 0).sum(axis=1) == 1).any() or share.empty:
        return data
    kind = str(share.idxmax())
    home = dict(zip(table.index.astype(str), table.idxmax(axis=1), strict=True))[kind]
    lost = (data.cell_type == kind) & (data.batch != home)
    return _of(data, np.flatnonzero(~lost))


def subsample(data: TaskData, n_cells: int, seed: int) -> TaskData:
    """Draw cells without putting back, in their order; all where there are fewer."""
    n = len(data.batch)
    drawn = np.random.default_rng([seed, 1]).choice(n, min(n_cells, n), replace=False)
    return _of(data, np.sort(drawn))


def _candidate(x: np.ndarray, titration: str, i: int) -> Candidate:
    """Make an embedding a candidate; its number stands where a run has its seed."""
    return Candidate(titration, "control", i, "ok", MethodOutput(embedding=x))


def _rows(scores: Sequence[Score], titration: str, level: float, seed: int) -> list[tuple]:
    return [(titration, level, seed, s.metric, s.value, s.status, s.reason) for s in scores]


def _seed_curves(
    data: TaskData, levels: Sequence[float], seed: int, score_seed: int, threads: int
) -> list[tuple]:
    """Score one seed's cells at every level; level 0 is the same for all and scored once."""
    labels, batch = data.cell_type.astype(str), data.batch.astype(str)
    x = clean(data.pca_np, labels, batch)
    candidates, places = [_candidate(x, "clean", 0)], []
    for titration, effect in TITRATIONS.items():
        for level in levels:
            if level == 0:
                places.append((titration, level, 0))
                continue
            places.append((titration, level, len(candidates)))
            changed = effect(x, labels, batch, level, seed)
            candidates.append(_candidate(changed, titration, len(candidates)))
    scores = integration.score(data, candidates, seed=score_seed, threads=threads, params={})
    by_candidate: dict[int, list[Score]] = {}
    for score in scores:
        by_candidate.setdefault(score.seed, []).append(score)
    return [row for t, level, i in places for row in _rows(by_candidate[i], t, level, seed)]


def curves(
    data: TaskData,
    *,
    levels: Sequence[float] = LEVELS,
    seeds: Sequence[int] = SEEDS,
    n_cells: int = N_CELLS,
    score_seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Score the clean embedding under every titration, level and seed.

    Parameters
    ----------
    data
        The split ``all`` of the dataset, with its uncorrected PCA.
    levels
        Strengths from 0 to 1, rising, 0 among them.
    seeds
        Each draws ``n_cells`` cells and the random numbers of the titrations.
    score_seed
        Seed of the task (k-means, Leiden).

    Returns
    -------
    DataFrame
        ``titration, level, seed, metric, value, status, reason``: the metrics of the
        registry in their order; a metric without a value has NaN and its typed status.

    Raises
    ------
    DataError
        If the levels are not rising from 0 to at most 1, or no scored cell has a label.
    """
    rising = all(a < b for a, b in zip(levels, levels[1:], strict=False))
    if len(levels) < 2 or levels[0] != 0 or levels[-1] > 1 or not rising:
        raise DataError(
            f"self-test: found levels {list(levels)}; valid: two or more, rising, from 0 to 1"
        )
    cells, rows = usable(data), []
    for seed in seeds:
        rows += _seed_curves(subsample(cells, n_cells, seed), levels, seed, score_seed, threads)
    frame = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
    order = {name: i for i, name in enumerate(TITRATIONS)}
    frame["_order"] = frame["titration"].map(order)
    frame = frame.sort_values(["_order", "level", "seed"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)
