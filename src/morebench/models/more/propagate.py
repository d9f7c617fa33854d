"""Progressive mask refinement: uncertain cells are decided again, the surest first.

Evidence beside the classifier's: neighbours that are decided, marker genes, and the cell's
over-cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.models.more.neighbors import nearest

FLOOR = 1e-3  # least evidence for a class: no single source can rule one out
MAX_CLUSTERS = 500
UNMASK_ROUNDS = 5


@dataclass(frozen=True)
class Markers:
    """Genes by which the reference's classes are told apart.

    Attributes
    ----------
    gene_kj : (k, j) array of int
        Columns of each class's j markers, best first.
    mean_kj, std_kj : (k, j) arrays
        Of the markers, over all cells of the fit.
    centre_k, spread_k : (k,) arrays
        Mean and standard deviation of each class's score over the reference.
    """

    gene_kj: np.ndarray
    mean_kj: np.ndarray
    std_kj: np.ndarray
    centre_k: np.ndarray
    spread_k: np.ndarray

    @classmethod
    def fit(cls, log_ng: Any, y: np.ndarray, n_classes: int, n_markers: int) -> Markers:
        """Choose markers by the log fold change of a class against the next best class.

        Parameters
        ----------
        log_ng : (n, g) array or sparse matrix
            Log-normalised expression of all cells of the fit.
        y : (n,) array of int
            Class, each of them on a cell at least; -1 where hidden.
        n_classes
        n_markers
            Genes a class, j; fewer if there are fewer.
        """
        shown = np.flatnonzero(y >= 0)
        one_hot_nk = np.eye(n_classes)[y[shown]]
        mean_kg = one_hot_nk.T @ log_ng[shown] / one_hot_nk.sum(axis=0)[:, None]
        others = np.array([np.delete(mean_kg, c, axis=0).max(axis=0) for c in range(n_classes)])
        gene_kj = np.argsort(others - mean_kg, axis=1, kind="stable")[:, :n_markers]
        squares_ng = log_ng.multiply(log_ng) if sp.issparse(log_ng) else np.square(log_ng)
        mean_g = np.asarray(log_ng.mean(axis=0)).ravel()
        variance_g = np.asarray(squares_ng.mean(axis=0)).ravel() - mean_g**2
        std_g = np.sqrt(np.maximum(variance_g, 0)) + 0.1  # a gene that is nearly off is noise
        k = np.ones(n_classes)
        raw = cls(gene_kj, mean_g[gene_kj], std_g[gene_kj], 0 * k, k)
        score_mk = raw.scores(log_ng[shown])
        spread_k = np.maximum(score_mk.std(axis=0), 1e-6)
        return cls(gene_kj, raw.mean_kj, raw.std_kj, score_mk.mean(axis=0), spread_k)

    def scores(self, log_ng: Any) -> np.ndarray:
        """Return (n, k): mean z-score of each class's markers, standardised."""
        columns = []
        for genes, mean, std in zip(self.gene_kj, self.mean_kj, self.std_kj, strict=True):
            x_nj = log_ng[:, genes]
            dense_nj = x_nj.toarray() if sp.issparse(x_nj) else np.asarray(x_nj)
            columns.append(((dense_nj - mean) / std).mean(axis=1))
        return (np.stack(columns, axis=1) - self.centre_k) / self.spread_k


def over_clusters(x_nd: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return (n,) int: k-means clusters of about ``size`` cells, many more than types."""
    from sklearn.cluster import KMeans

    n_clusters = int(np.clip(len(x_nd) // size, 1, MAX_CLUSTERS))
    model = KMeans(n_clusters, n_init=1, max_iter=50, random_state=seed)
    return model.fit_predict(np.asarray(x_nd, dtype=np.float64))


def label_shares(z_nd: np.ndarray, z_md: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return (n, k): shares of the classes among each cell's nearest reference cells.

    Each class has half a cell more than there is, so that none is ruled out (Krichevsky and
    Trofimov 1981, IEEE Transactions on Information Theory 27, 199-207).
    """
    near_nj = nearest(z_nd, z_md, k)
    found_nk = np.eye(int(y.max()) + 1)[y][near_nj].sum(axis=1) + 0.5
    return found_nk / found_nk.sum(axis=1, keepdims=True)


def pooled(p_nk: np.ndarray, q_nk: np.ndarray, weight: float) -> np.ndarray:
    """Return the weighted geometric mean of two opinions, p's weight being 1 (rows sum to 1).

    Genest and Zidek 1986, Statistical Science 1, 114-135 (the logarithmic pool).
    """
    return _softmax((np.log(np.maximum(p_nk, 1e-9)) + weight * np.log(q_nk)) / (1 + weight))


def neighbours(x_np: np.ndarray, rows: np.ndarray, reference_mp: np.ndarray, k: int) -> np.ndarray:
    """Return (len(rows), k) int: nearest cells of some, among the reference and one another.

    Values below m are reference cells, m + i is cell i; a cell is not its own neighbour.
    """
    m = len(reference_mp)
    found = nearest(x_np[rows], np.vstack([reference_mp, x_np]), k + 1)
    other = found != (rows + m)[:, None]
    # where ties have pushed the cell itself out of its list, the last neighbour goes
    other[other.all(axis=1), -1] = False
    return found[other].reshape(len(rows), -1)


def refine(
    probability_nk: np.ndarray,
    uncertain: np.ndarray,
    known_mk: np.ndarray,
    near_uk: np.ndarray,
    markers_nk: np.ndarray | None,
    cluster: np.ndarray | None,
    weights: Mapping[str, float],
    max_rounds: int,
) -> tuple[np.ndarray, int]:
    """Mask the uncertain cells, decide them again, the most certain first, until all rest.

    A cell's evidence is the weighted geometric mean of the classifier's probabilities, the
    mean over its decided neighbours, its marker scores, and the decided cells of its
    cluster. In each of 5 rounds, the cells that are surest by it and have most
    decided neighbours are unmasked; then all are decided again until no class changes.

    Parameters
    ----------
    probability_nk : (n, k) array
        Of the classifier, calibrated.
    uncertain : (n,) array of bool
        Cells to decide again; the others stay as they are.
    known_mk : (m, k) array
        One-hot classes of the reference cells.
    near_uk : (u, neighbours) array of int
        Of the u uncertain cells, as `neighbours` gives them.
    markers_nk : (n, k) array, optional
        Marker scores.
    cluster : (n,) array of int, optional
    weights
        Of ``neighbours``, ``markers`` and ``clusters``; the classifier's is 1.
    max_rounds
        Of deciding, in all.

    Returns
    -------
    probability_nk : (n, k) array
    rounds : int
        Taken.
    """
    rows, m = np.flatnonzero(uncertain), len(known_mk)
    values = np.vstack([known_mk, probability_nk])
    decided = np.concatenate([np.ones(m, dtype=bool), ~uncertain])
    fixed = np.log(np.maximum(probability_nk[rows], 1e-9))
    total = 1.0 + weights["neighbours"]
    if markers_nk is not None:
        fixed += weights["markers"] * _log_evidence(_softmax(markers_nk[rows]))
        total += weights["markers"]
    if cluster is not None:
        total += weights["clusters"]
    rounds = 0
    for rounds in range(1, max_rounds + 1) if len(rows) else ():
        share_u = decided[near_uk].mean(axis=1)
        evidence = fixed + weights["neighbours"] * _log_evidence(
            _neighbour_mean(values, decided, near_uk, probability_nk[rows])
        )
        if cluster is not None:
            composition_ck = _composition(values[m:], decided[m:], cluster)
            evidence += weights["clusters"] * _log_evidence(composition_ck[cluster[rows]])
        new_uk = _softmax(evidence / total)
        masked = ~decided[m + rows]
        if masked.any():
            take = _surest(new_uk.max(axis=1) * (1 + share_u), masked, UNMASK_ROUNDS - rounds)
        elif (new_uk.argmax(axis=1) == values[m + rows].argmax(axis=1)).all():
            break
        else:
            take = np.arange(len(rows))
        values[m + rows[take]] = new_uk[take]
        decided[m + rows[take]] = True
    return values[m:], rounds


def majority_vote(
    probability_nk: np.ndarray, cluster: np.ndarray, uncertain: np.ndarray, min_share: float
) -> tuple[np.ndarray, int]:
    """Give uncertain cells the majority class of their cluster where it is clear.

    Parameters
    ----------
    probability_nk : (n, k) array
    cluster : (n,) array of int
    uncertain : (n,) array of bool
        Cells that may change.
    min_share
        Of the cluster's cells that must agree.

    Returns
    -------
    probability_nk : (n, k) array
        Rows that changed hold the mean of the cluster's cells that have its class.
    n_changed : int
    """
    label = probability_nk.argmax(axis=1)
    votes_ck = np.zeros((cluster.max() + 1, probability_nk.shape[1]))
    np.add.at(votes_ck, (cluster, label), 1)
    share_ck = votes_ck / np.maximum(votes_ck.sum(axis=1, keepdims=True), 1)
    winner = share_ck.argmax(axis=1)
    clear = share_ck.max(axis=1) >= min_share
    changed = uncertain & clear[cluster] & (label != winner[cluster])
    out = probability_nk.copy()
    for c in np.unique(cluster[changed]):
        agreeing = (cluster == c) & (label == winner[c])
        out[changed & (cluster == c)] = probability_nk[agreeing].mean(axis=0)
    return out, int(changed.sum())


def _neighbour_mean(
    values: np.ndarray, decided: np.ndarray, near_uk: np.ndarray, own_uk: np.ndarray
) -> np.ndarray:
    """Mean of the decided neighbours and, as one more, the cell's own first opinion."""
    weight_un = decided[near_uk].astype(float)
    summed = np.einsum("un,unk->uk", weight_un, values[near_uk]) + own_uk
    return summed / (weight_un.sum(axis=1) + 1)[:, None]


def _composition(values_nk: np.ndarray, decided: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Mean of the decided cells of each cluster, with one cell spread over all classes."""
    k = values_nk.shape[1]
    summed = np.full((cluster.max() + 1, k), 1 / k)
    np.add.at(summed, cluster[decided], values_nk[decided])
    return summed / summed.sum(axis=1, keepdims=True)


def _surest(certainty: np.ndarray, masked: np.ndarray, rounds_left: int) -> np.ndarray:
    """Of the masked, the surest share that leaves as many for each round still to come."""
    candidates = np.flatnonzero(masked)
    count = int(np.ceil(len(candidates) / max(rounds_left + 1, 1)))
    return candidates[np.argsort(-certainty[candidates], kind="stable")[:count]]


def _log_evidence(share: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(share, FLOOR))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
