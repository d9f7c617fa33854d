"""Settings of the annotation, with a switch for each step."""

from __future__ import annotations

from dataclasses import dataclass

from morebench.errors import ConfigError

SPACES = ("expression", "embedding")


@dataclass(frozen=True)
class AnnotateSettings:
    """Settings of the annotation; the same ones serve every dataset.

    Attributes
    ----------
    strengths
        Candidates for the inverse of the head's L2 penalty; cross-fitting chooses.
    weight_power
        Cells weigh (cells of their class) ** -weight_power in the head.
    whitened
        Leading components that the head also sees with variance 1 each; 0 leaves them out.
    use_embedding
        Whether the head sees the embedding beside the expression branch. One that was
        trained with labels separates the cells that showed them by force, which makes
        the head overconfident on others.
    w_embedding
        Weight of what the nearest labelled cells in the embedding say of a cell, where the
        classifier's is 1: expression differs between batches, which the embedding aligns.
    calibrate
        Temperature scaling; without it the temperature is 1.
    refine, markers, clusters
        Progressive mask refinement; whether marker genes and clusters give evidence in it.
    uncertain
        Calibrated probability of the likeliest class below which a cell is decided again.
    neighbour_space
        Where neighbours are sought: ``expression`` (what the head sees) or ``embedding``.
    n_neighbours, n_markers, cluster_size, max_rounds
        Neighbours of a cell, marker genes of a class, cells of an over-cluster, rounds of
        refinement at most.
    w_neighbours, w_markers, w_clusters
        Weights of the evidence; the classifier's is 1.
    vote
        Majority voting over clusters, among the uncertain cells.
    vote_share
        Share of a cluster that must agree.
    unknown
        How far above chance the likeliest class must be, or the answer is ``unknown``: 0 is
        1 / k, the least that the likeliest of k classes can have, 1 is certainty.
    usual_share
        A cell is ``unknown`` too if its novelty is larger than that of this share of labelled
        cells; 1 sets no limit, and so do fewer cells than it takes to tell (199 for .995).
    """

    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    weight_power: float = 0.5
    whitened: int = 30
    use_embedding: bool = False
    w_embedding: float = 0.5
    calibrate: bool = True
    refine: bool = True
    markers: bool = True
    clusters: bool = False
    uncertain: float = 0.7
    neighbour_space: str = "expression"
    n_neighbours: int = 15
    n_markers: int = 20
    cluster_size: int = 15
    max_rounds: int = 20
    w_neighbours: float = 1.0
    w_markers: float = 0.3
    w_clusters: float = 0.3
    vote: bool = False
    vote_share: float = 0.8
    unknown: float = 0.15
    usual_share: float = 0.995

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, with the key, the value found and what is valid."""
        for key in ("uncertain", "vote_share", "unknown", "usual_share", "weight_power"):
            self._check(key, 0 <= getattr(self, key) <= 1, "0 to 1")
        for key in ("n_neighbours", "n_markers", "cluster_size", "max_rounds"):
            self._check(key, getattr(self, key) >= 1, "1 or more")
        for key in ("whitened", "w_embedding", "w_neighbours", "w_markers", "w_clusters"):
            self._check(key, getattr(self, key) >= 0, "0 or more")
        positive = len(self.strengths) > 0 and min(self.strengths) > 0
        self._check("strengths", positive, "one value above 0 or more")
        self._check("neighbour_space", self.neighbour_space in SPACES, " or ".join(SPACES))

    def least_probability(self, n_classes: int) -> float:
        """Return the probability of the likeliest class below which it is not believed."""
        return (1 + self.unknown * (n_classes - 1)) / n_classes

    def _check(self, key: str, holds: bool, valid: str) -> None:
        if not holds:
            raise ConfigError(f"{key}: found {getattr(self, key)!r}; valid: {valid}")
