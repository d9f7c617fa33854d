"""What the runs say of the cells of held-out batches, one batch a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from morebench.errors import ContractError, listed
from morebench.metrics.undefined import UndefinedMetric
from morebench.registry import ACCEPTED_STATES
from morebench.tasks.contract import Candidate, TaskData
from morebench.tasks.transfer import said_by_neighbours, with_labels
from morebench.tasks.voting import vote


@dataclass(frozen=True)
class Answer:
    """What one run says of a held-out batch; ``predicted`` is None unless it is ok.

    ``state`` is the run's, or ``not_applicable`` where it has nothing to take labels from.
    ``voted`` are the labels after majority voting among these cells, ``nearest`` those of the
    nearest shown cells in the embedding: None without one.
    """

    method: str
    track: str
    seed: int
    state: str
    reason: str
    predicted: np.ndarray | None = None
    voted: np.ndarray | None = None
    nearest: np.ndarray | None = None


@dataclass(frozen=True)
class HeldOut:
    """The scored cells of one split, and every run's answer.

    Attributes
    ----------
    cells : (m,) array of int
        Places of the cells in the dataset's order.
    truth : (m,) array of str
    taught
        The types that the split shows.
    """

    split: str
    cells: np.ndarray
    truth: np.ndarray
    taught: frozenset[str]
    answers: tuple[Answer, ...]


def held_out(data: TaskData, candidates: Sequence[Candidate], cluster_n: np.ndarray) -> HeldOut:
    """Keep what pooling needs of one split: the scored cells that have a usable label.

    A method that gives an embedding and no labels gets those of the nearest shown cells.

    Parameters
    ----------
    cluster_n : (n,) array of int
        Small clusters of all cells, for voting (``voting.over_clusters``).
    """
    cells = data.labelled
    answers = []
    for given in candidates:
        state, reason = given.state, given.reason
        predicted = voted = nearest = None
        try:
            c = with_labels(given, data)
            labels = None if c.output is None else c.output.labels
            if state == "ok" and (labels is None or len(labels) != len(data.batch)):
                found = "none" if labels is None else len(labels)
                raise ValueError(f"found {found} labels; valid: one a cell, {len(data.batch)}")
            if state == "ok":
                predicted = np.asarray(labels)[cells].astype(str)
                voted = vote(predicted, cluster_n[cells]) if len(cells) else predicted
                near = said_by_neighbours(given, c, data)
                nearest = None if near is None else near[cells]
        except UndefinedMetric as undefined:
            state, reason = "not_applicable", str(undefined)
        except ValueError as error:
            state, reason = "failed", f"{given.method}: {error}"
        if state != "ok":
            predicted = voted = nearest = None
        answers.append(
            Answer(given.method, given.track, given.seed, state, reason, predicted, voted, nearest)
        )
    taught = frozenset(str(label) for label in data.shown if label is not None)
    return HeldOut(data.split, cells, data.cell_type[cells].astype(str), taught, tuple(answers))


def check_batches(batches: Sequence[HeldOut]) -> None:
    """Raise ContractError unless there are cells, each held out once, and every run answers."""
    names = listed(b.split for b in batches)
    if not sum(len(b.cells) for b in batches):
        raise ContractError(f"{names}: no scored cell has a usable label; valid: one or more")
    cells, counts = np.unique(np.concatenate([b.cells for b in batches]), return_counts=True)
    if (counts > 1).any():
        raise ContractError(
            f"{names}: cell {cells[counts > 1][0]} is scored in {counts.max()} of them; valid: one"
        )
    first = [(a.method, a.seed) for a in batches[0].answers]
    for batch in batches:
        found = [(a.method, a.seed) for a in batch.answers]
        if found != first:
            raise ContractError(
                f"{batch.split}: has the runs {listed(found)}; "
                f"valid: those of {batches[0].split}, {listed(first)}"
            )


def join(batches: Sequence[HeldOut], at: int) -> Answer:
    """Join a run's answers; one batch without an answer leaves the run without any."""
    answers = [batch.answers[at] for batch in batches]
    one = answers[0]
    lost = [(b.split, a) for b, a in zip(batches, answers, strict=True) if a.state != "ok"]
    if lost:
        states = [a.state for _, a in lost]
        worst = next((s for s in states if s not in ACCEPTED_STATES), states[0])
        reason = "; ".join(f"{split}: {a.reason or a.state}" for split, a in lost)
        return Answer(one.method, one.track, one.seed, worst, reason)
    keys = ("predicted", "voted", "nearest")
    predicted, voted, nearest = (_joined([getattr(a, key) for a in answers]) for key in keys)
    return Answer(one.method, one.track, one.seed, "ok", "", predicted, voted, nearest)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    found = [p for p in parts if p is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def never_shown(batches: Sequence[HeldOut]) -> str:
    """Return which types were scored in a split that does not show them."""
    words = [
        f"{batch.split}: {listed(sorted(unseen))}"
        for batch in batches
        if (unseen := set(batch.truth) - batch.taught)
    ]
    return f"never shown, so never right: {'; '.join(words)}" if words else ""
