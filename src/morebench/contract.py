"""What a method is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

#: What a method writes as the label of a cell that it cannot name; no type may be called so.
UNKNOWN = "unknown"


@dataclass
class MethodInput:
    """All that a method may see of a dataset under one split.

    Attributes
    ----------
    cell_ids : (n,) array of str
        Opaque ids, in the order every output must keep.
    genes : (g,) array of str
        The split's highly variable genes.
    counts_ng : (n, g) csr matrix of float32
        Raw integer counts of those genes.
    pca_np : (n, p) array of float32
        PCA of scaled log counts, fitted on fit-visible cells.
    obs : (n, ...) DataFrame
        ``batch`` and, where the dataset has them, ``donor`` and ``platform``.
    fit_visible : (n,) array of bool
        Cells that fitting may use; the others are embedded only.
    labels : (n,) array of object, or None
        Labels that the split shows, None where it hides them. The whole array is
        None for methods outside the semi-supervised track.
    all_genes_file : Path or None
        The prepared dataset (h5mu: all genes, all modalities), for methods that declare
        ``all_genes``.
    features_dir : Path or None
        Frozen features of the cells, for methods that declare ``features``.
    pretrained_file : Path or None
        The fitted ``model`` of the method that the spec's ``pretrained`` names, of the same
        cells, seed and parameters; None where that method has no such run.
    """

    cell_ids: np.ndarray
    genes: np.ndarray
    counts_ng: sp.csr_matrix
    pca_np: np.ndarray
    obs: pd.DataFrame
    fit_visible: np.ndarray
    labels: np.ndarray | None = None
    all_genes_file: Path | None = None
    features_dir: Path | None = None
    pretrained_file: Path | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells, n."""
        return len(self.cell_ids)

    @property
    def batch(self) -> np.ndarray:
        """(n,) array of str: the batch of each cell."""
        return self.obs["batch"].astype(str).to_numpy()


@dataclass
class MethodOutput:
    """What a method returns; the fields that its spec declares are set, no others.

    Attributes
    ----------
    embedding : (n, d) array
    graph : (n, n) csr matrix
        Symmetric, non-negative connectivities.
    labels : (n,) array of str
    probabilities : (n, k) DataFrame
        One column a class, rows sum to 1.
    doublet_score : (n,) array
    novelty : (n,) array
        The higher, the likelier a cell is of a type that was not shown.
    expression : (n, g) array
    model : dict of arrays
        Weights of the fitted model, for methods that start from it.
    notes
        Facts a reader of the result should know (such as a fallback that was taken).
    """

    embedding: np.ndarray | None = None
    graph: sp.csr_matrix | None = None
    labels: np.ndarray | None = None
    probabilities: pd.DataFrame | None = None
    doublet_score: np.ndarray | None = None
    novelty: np.ndarray | None = None
    expression: np.ndarray | None = None
    model: dict[str, np.ndarray] | None = None
    parameters_trained: int = 0
    parameters_frozen: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
