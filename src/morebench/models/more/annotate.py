"""Annotation of cells from labelled ones.

A convex classifier, calibrated, and the nearest labelled cells in the embedding; uncertain cells
are then decided again by what surrounds them; where nothing is credible, the answer is ``unknown``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from morebench.models.more.annotate_settings import AnnotateSettings
from morebench.models.more.calibrate import choose_strength, folds, stratified_sample, temper
from morebench.models.more.classifier import (
    HeadInputs,
    LinearHead,
    check_labels,
    fit_head,
)
from morebench.models.more.labels import UNKNOWN
from morebench.models.more.novelty import Profiles
from morebench.models.more.propagate import (
    Markers,
    label_shares,
    majority_vote,
    neighbours,
    over_clusters,
    pooled,
    refine,
)

MAX_REFERENCE = 20_000  # labelled cells that are kept for neighbours and for the folds


@dataclass(frozen=True)
class Annotation:
    """Types of n cells.

    Attributes
    ----------
    labels : (n,) array of str
        A class, or ``unknown``.
    probabilities : (n, k) array
        In the order of ``classes``; rows sum to 1, also those of unknown cells.
    classes : (k,) array of str
    unknown : (n,) array of bool
    novelty : (n,) array
        How ill the cell's counts fit every class, in standard deviations of shown cells: the
        more, the likelier it is of a type never shown (``novelty.Profiles``). 0 where there
        are no counts to tell.
    notes
        What happened: cells decided again, rounds, cells voted over.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    unknown: np.ndarray
    novelty: np.ndarray
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """Labelled cells, among which neighbours are sought.

    Attributes
    ----------
    x_mp : (m, p) float32
        What the head sees.
    z_md : (m, d) float32
        Embedding.
    y : (m,) array of int
        Position of the class.
    """

    x_mp: np.ndarray
    z_md: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Annotator:
    """A fitted annotator. Make one with ``Annotator.fit``.

    Attributes
    ----------
    reference
        A seeded sample where there are many labelled cells.
    batches : array of str
        Those with labelled cells.
    notes
        Of the fit: cells, strength, temperature, convergence.
    """

    settings: AnnotateSettings
    classes: np.ndarray
    inputs: HeadInputs
    head: LinearHead
    temperature: float
    reference: Reference
    markers: Markers | None
    profiles: Profiles | None
    batches: np.ndarray
    notes: dict[str, Any]

    @classmethod
    def fit(
        cls,
        expression_np: np.ndarray,
        z_nd: np.ndarray,
        labels: np.ndarray,
        classes: np.ndarray,
        batch: np.ndarray,
        *,
        log_ng: Any = None,
        counts_ng: Any = None,
        settings: AnnotateSettings | None = None,
        seed: int = 0,
    ) -> Annotator:
        """Fit on the cells whose label is shown; the others only set the features' scale.

        Parameters
        ----------
        expression_np : (n, p) array
            Expression branch; its components are not scaled to one variance.
        z_nd : (n, d) array
            Embedding.
        labels : (n,) array of int
            Position in ``classes``; -1 where hidden.
        classes : (k,) array of str
        batch : (n,) array
        log_ng : (n, g) array or sparse matrix, optional
            Log-normalised expression, for marker genes; without it there are none.
        counts_ng : (n, g) sparse matrix, optional
            Raw counts, for the novelty of cells; without them it is 0 and no cell is new.
        settings
            Default: ``AnnotateSettings()``.
        seed
            Of folds and samples.

        Raises
        ------
        DataError
            Fewer than two classes, a class without cells, or values that do not fit.
        """
        settings = settings or AnnotateSettings()
        labels, classes = np.asarray(labels), np.asarray(classes, dtype=str)
        check_labels(labels, classes, len(z_nd))
        seen_nd = z_nd if settings.use_embedding else None
        inputs = HeadInputs.fit(expression_np, seen_nd, settings.whitened)
        x_np = inputs.transform(expression_np, seen_nd)
        shown = np.flatnonzero(labels >= 0)
        y, k = labels[shown], len(classes)
        sample = stratified_sample(y, MAX_REFERENCE, seed)
        fold = folds(y[sample], np.asarray(batch)[shown][sample], seed)
        strength, temperature, losses = choose_strength(
            x_np[shown][sample], y[sample], fold, k, settings.strengths, settings.weight_power
        )
        head = fit_head(x_np[shown], y, k, strength=strength, power=settings.weight_power)
        markers = None
        if log_ng is not None and settings.refine and settings.markers:
            markers = Markers.fit(log_ng, labels, k, settings.n_markers)
        kept = shown[sample]
        reference = Reference(
            x_np[kept].astype(np.float32), np.asarray(z_nd, np.float32)[kept], labels[kept]
        )
        profiles = None
        if counts_ng is not None and counts_ng[shown].sum():  # labelled cells may lack a modality
            profiles = Profiles.fit(counts_ng, labels, k, settings.usual_share)
        temperature = temperature if settings.calibrate else 1.0
        notes = {
            "n_fitted": len(shown),
            "strength": strength,
            "temperature": temperature,
            "cross_fitted_log_loss": {str(s): v for s, v in losses.items()},
            "converged": head.converged,
        }
        batches = np.unique(np.asarray(batch, dtype=str)[shown])
        return cls(
            settings, classes, inputs, head, temperature, reference, markers, profiles, batches,
            notes,
        )  # fmt: skip

    def predict(
        self,
        expression_np: np.ndarray,
        z_nd: np.ndarray,
        batch: np.ndarray | None = None,
        *,
        log_ng: Any = None,
        counts_ng: Any = None,
        seed: int = 0,
    ) -> Annotation:
        """Annotate cells, also such as were not in the fit.

        Parameters
        ----------
        expression_np, z_nd, log_ng, counts_ng
            As in ``fit``.
        batch : (n,) array, optional
            A batch without labelled cells has a novelty of its own; None: they are of batches
            with some. Neighbours and clusters are sought among all cells given.
        seed
            Of the clusters.
        """
        s = self.settings
        x_np = self.inputs.transform(expression_np, z_nd if s.use_embedding else None)
        p_nk = temper(self.head.logits(x_np), self.temperature)
        if s.w_embedding:
            near = self.reference
            share_nk = label_shares(np.asarray(z_nd), near.z_md, near.y, s.n_neighbours)
            p_nk = pooled(p_nk, share_nk, s.w_embedding)
        uncertain = p_nk.max(axis=1) < s.uncertain
        notes = self.notes | {"n_uncertain": int(uncertain.sum())}
        if uncertain.any():
            cluster = None
            if s.vote or (s.refine and s.clusters):
                cluster = over_clusters(z_nd, s.cluster_size, seed)
            if s.refine:
                near_uk = self._neighbours(x_np, np.asarray(z_nd), np.flatnonzero(uncertain))
                p_nk, notes["rounds"] = self._refined(p_nk, uncertain, near_uk, log_ng, cluster)
            if s.vote and cluster is not None:
                p_nk, notes["n_voted"] = majority_vote(p_nk, cluster, uncertain, s.vote_share)
        unknown = p_nk.max(axis=1) < s.least_probability(p_nk.shape[1])
        novelty_n = np.zeros(len(unknown))
        if self.profiles is not None and counts_ng is not None:
            novelty_n = self.profiles.novelty(counts_ng, self._strange(batch, len(unknown)))
            unknown |= self.profiles.is_new(novelty_n)
        labels = np.where(unknown, UNKNOWN, self.classes[p_nk.argmax(axis=1)])
        notes["n_unknown"] = int(unknown.sum())
        return Annotation(labels, p_nk, self.classes, unknown, novelty_n, notes)

    def _strange(self, batch: np.ndarray | None, n: int) -> np.ndarray:
        """Return (n,) int: which batch without labelled cells a cell is of; -1: of another."""
        if batch is None:
            return np.full(n, -1)
        names, code_n = np.unique(np.asarray(batch, dtype=str), return_inverse=True)
        return np.where(np.isin(names, self.batches)[code_n], -1, code_n)

    def _neighbours(self, x_np: np.ndarray, z_nd: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if self.settings.neighbour_space == "expression":
            return neighbours(x_np, rows, self.reference.x_mp, self.settings.n_neighbours)
        return neighbours(z_nd, rows, self.reference.z_md, self.settings.n_neighbours)

    def _refined(
        self,
        p_nk: np.ndarray,
        uncertain: np.ndarray,
        near_uk: np.ndarray,
        log_ng: Any,
        cluster: np.ndarray | None,
    ) -> tuple[np.ndarray, int]:
        s = self.settings
        scores_nk = None
        if s.markers and self.markers is not None and log_ng is not None:
            scores_nk = self.markers.scores(log_ng)
        return refine(
            p_nk,
            uncertain,
            np.eye(len(self.classes))[self.reference.y],
            near_uk,
            scores_nk,
            cluster if s.clusters else None,
            {"neighbours": s.w_neighbours, "markers": s.w_markers, "clusters": s.w_clusters},
            s.max_rounds,
        )

    def to_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return all that makes the annotator: arrays, and what goes into JSON."""
        arrays = {f"inputs.{k}": v for k, v in vars(self.inputs).items()}
        arrays |= {f"reference.{k}": v for k, v in vars(self.reference).items()}
        arrays |= {"head.coef": self.head.coef, "head.intercept": self.head.intercept}
        if self.markers is not None:
            arrays |= {f"markers.{k}": v for k, v in vars(self.markers).items()}
        if self.profiles is not None:
            arrays |= {f"profiles.{k}": v for k, v in vars(self.profiles).items()}
        return arrays, {
            "settings": asdict(self.settings),
            "classes": [str(c) for c in self.classes],
            "temperature": self.temperature,
            "batches": [str(b) for b in self.batches],
            "notes": self.notes,
        }

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> Annotator:
        """Return the annotator that ``to_state`` took apart."""
        settings = content["settings"] | {"strengths": tuple(content["settings"]["strengths"])}
        markers, profiles = _below(arrays, "markers."), _below(arrays, "profiles.")
        return cls(
            AnnotateSettings(**settings),
            np.array(content["classes"], dtype=str),
            HeadInputs(**_below(arrays, "inputs.")),
            LinearHead(**_below(arrays, "head."), converged=content["notes"]["converged"]),
            content["temperature"],
            Reference(**_below(arrays, "reference.")),
            Markers(**markers) if markers else None,
            Profiles(**profiles) if profiles else None,
            np.array(content["batches"], dtype=str),
            dict(content["notes"]),
        )


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
