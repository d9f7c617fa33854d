"""Technical effects of known strength, planted into any matrix of counts.

Each function takes integer counts and a generator and returns integer counts; at a
neutral strength it returns the counts unchanged. Batches are integer codes 0..b-1.

Symbols: n cells, g genes, b batches, d doublets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morebench.errors import ConfigError, DataError


def require(ok: bool, key: str, found: object, valid: str) -> None:
    """Raise ConfigError naming the parameter, what was found and what is valid."""
    if not ok:
        raise ConfigError(f"{key}: found {found!r}; valid: {valid}")


def integer_csr(counts_ng: sp.spmatrix | np.ndarray) -> sp.csr_matrix:
    """Return a float32 csr copy without explicit zeros.

    Raises
    ------
    DataError
        If a value is negative, not finite or not an integer.
    """
    out = sp.csr_matrix(counts_ng, dtype=np.float32, copy=True)
    values = out.data
    bad = ~np.isfinite(values) | (values < 0) | (values != np.rint(values))
    if bad.any():
        raise DataError(
            f"counts: {int(bad.sum())} values such as {values[bad][0]} are no counts; "
            "valid: integers >= 0"
        )
    out.eliminate_zeros()
    out.sort_indices()
    return out


def _rows(counts: sp.csr_matrix) -> np.ndarray:
    """Return the row of each stored value."""
    return np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))


def _copies(counts: sp.csr_matrix, expected: np.ndarray, rng: np.random.Generator) -> sp.csr_matrix:
    """Replace every molecule by ``floor(f) + Bernoulli(f - floor(f))`` copies of itself.

    Below 1 this is binomial thinning (a Poisson count stays Poisson), at 1 the
    identity; the mean is exact for every f. ``expected`` holds f per stored value.
    """
    values = counts.data.astype(np.int64)
    whole = np.floor(expected)
    made = values * whole.astype(np.int64) + rng.binomial(values, expected - whole)
    out = sp.csr_matrix(
        (made.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape, copy=True
    )
    out.eliminate_zeros()
    return out


def log_normal_factors(
    shape: tuple[int, ...], strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw factors ``exp(s z - s^2 / 2)``: log sd s, mean 1, so expected depth is kept."""
    require(strength >= 0, "strength of a multiplicative effect", strength, "a number >= 0")
    return np.exp(strength * rng.standard_normal(shape) - strength**2 / 2)


def gene_effect(
    counts_ng: sp.spmatrix | np.ndarray,
    batch: np.ndarray,
    strength: float,
    rng: np.random.Generator,
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Multiply the counts of each gene by a factor of its own in each batch.

    The model of batch effects of Splatter (Zappia et al. 2017, Genome Biology 18:174):
    factors are log-normal per batch and gene. A zero count stays zero.

    Parameters
    ----------
    counts_ng : (n, g) integer counts
    batch : (n,) array of int
    strength
        Standard deviation of the log factors; 0 is neutral.

    Returns
    -------
    counts : (n, g) csr matrix of float32
    factors : (b, g) array
        Expected copies of a molecule.
    """
    counts = integer_csr(counts_ng)
    factors_bg = log_normal_factors((int(batch.max()) + 1, counts.shape[1]), strength, rng)
    return _copies(counts, factors_bg[batch[_rows(counts)], counts.indices], rng), factors_bg


def depth(
    counts_ng: sp.spmatrix | np.ndarray,
    batch: np.ndarray,
    fractions: Sequence[float],
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """Keep each molecule of batch b with probability ``fractions[b]`` (binomial thinning).

    Raises
    ------
    ConfigError
        If there is not one fraction a batch, or one is outside (0, 1].
    """
    n_batches = int(batch.max()) + 1
    share_b = np.asarray(fractions, dtype=float)
    require(
        share_b.shape == (n_batches,) and bool(((share_b > 0) & (share_b <= 1)).all()),
        "depth",
        list(fractions),
        f"{n_batches} fractions in (0, 1], one a batch",
    )
    counts = integer_csr(counts_ng)
    return _copies(counts, share_b[batch[_rows(counts)]], rng)


def ambient(
    counts_ng: sp.spmatrix | np.ndarray,
    batch: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """Replace a fraction of each cell's molecules by draws from its batch's ambient profile.

    The profile is the sum of the batch's counts, as lysed cells would leave it (the
    model of SoupX, Young and Behjati 2020). Every cell keeps its total, so that this
    effect and ``depth`` can be chosen apart.

    Parameters
    ----------
    counts_ng : (n, g) integer counts
    batch : (n,) array of int
    fraction
        Probability that a molecule is replaced, in [0, 1); 0 is neutral.
    """
    require(0 <= fraction < 1, "ambient", fraction, "a fraction in [0, 1)")
    counts = integer_csr(counts_ng)
    kept = _copies(counts, np.full(counts.nnz, 1 - fraction), rng)
    missing_n = np.rint(np.asarray((counts - kept).sum(axis=1))).ravel().astype(np.int64)
    rows, columns = [], []
    for b in np.unique(batch):
        cells = np.flatnonzero(batch == b)
        drawn = int(missing_n[cells].sum())
        if drawn == 0:
            continue
        profile = np.asarray(counts[cells].sum(axis=0), dtype=float).ravel()
        rows.append(np.repeat(cells, missing_n[cells]))
        columns.append(rng.choice(counts.shape[1], size=drawn, p=profile / profile.sum()))
    if not rows:
        return kept
    where = (np.concatenate(rows), np.concatenate(columns))
    soup = sp.csr_matrix((np.ones(len(where[0]), np.float32), where), shape=counts.shape)
    return integer_csr(kept + soup)


def apportion(shares: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Split ``total`` into integers near ``shares * total`` (largest remainders, random ties)."""
    exact = shares / shares.sum() * total
    parts = np.floor(exact + 1e-9).astype(int)
    left = total - int(parts.sum())
    order = np.lexsort((rng.random(len(shares)), -np.round(exact - parts, 9)))
    parts[order[:left]] += 1
    return parts


def compose(
    cell_type: np.ndarray, n_batches: int, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Assign every cell to a batch, with a composition that differs between batches.

    The cells of a type are shared out as ``softmax(strength * z)``, z standard normal
    per type and batch: at 0 every batch gets the same share of each type, and with one
    generator state the imbalance grows with the strength. Where a batch would hold fewer
    than two types it gets one cell of the type that another batch has most of.

    Returns
    -------
    batch : (n,) array of int

    Raises
    ------
    DataError
        If there are too few types or cells for two types in every batch.
    """
    require(n_batches >= 1, "n_batches", n_batches, "an integer >= 1")
    require(strength >= 0, "imbalance", strength, "a number >= 0")
    types, code = np.unique(np.asarray(cell_type).astype(str), return_inverse=True)
    z_tb = strength * rng.standard_normal((len(types), n_batches))
    share_tb = np.exp(z_tb - z_tb.max(axis=1, keepdims=True))
    sizes = np.bincount(code)
    table = np.stack([apportion(s, int(k), rng) for s, k in zip(share_tb, sizes, strict=True)])
    while (poor := np.flatnonzero((table > 0).sum(axis=0) < 2)).size:
        b = int(poor[0])
        candidates = np.where(table[:, [b]] == 0, table, 0)
        t, giver = divmod(int(candidates.argmax()), n_batches)
        if candidates[t, giver] < 2:
            raise DataError(
                f"n_batches: {n_batches} batches of two types or more cannot be made of "
                f"{len(code)} cells of {len(types)} types; valid: fewer batches"
            )
        table[t, giver] -= 1
        table[t, b] += 1
    batch = np.empty(len(code), dtype=int)
    for k, per_batch in enumerate(table):
        batch[rng.permutation(np.flatnonzero(code == k))] = np.repeat(
            np.arange(n_batches), per_batch
        )
    return batch


@dataclass(frozen=True)
class Doublets:
    """Planted doublets: the sum of two cells, which stay in the data as singlets.

    Attributes
    ----------
    counts : (d, g) csr matrix of float32
    first, second : (d,) arrays of int
        Rows of the parents.
    batch : (d,) array of int
    kind : (d,) array of str
        ``heterotypic`` (parents of two types) or ``homotypic``.
    """

    counts: sp.csr_matrix
    first: np.ndarray
    second: np.ndarray
    batch: np.ndarray
    kind: np.ndarray


def doublets(
    counts_ng: sp.spmatrix | np.ndarray,
    batch: np.ndarray,
    cell_type: np.ndarray,
    rate: float,
    heterotypic: float,
    rng: np.random.Generator,
) -> Doublets:
    """Make ``rint(rate * cells)`` doublets in each batch, each the sum of two of its cells.

    ``rint(heterotypic * doublets)`` of them join two types, the others two cells of one
    type. No cell is the first parent twice.

    Parameters
    ----------
    counts_ng : (n, g) integer counts
    batch : (n,) array of int
    cell_type : (n,) array
    rate
        Doublets per singlet, in [0, 1]; their share of all cells is rate / (1 + rate).
    heterotypic
        Share of doublets whose parents differ in type.

    Raises
    ------
    DataError
        If a batch has not enough cells, or types, for its doublets.
    """
    require(0 <= rate <= 1, "doublet_rate", rate, "doublets per singlet in [0, 1]")
    require(0 <= heterotypic <= 1, "doublet_heterotypic", heterotypic, "a share in [0, 1]")
    counts = integer_csr(counts_ng)
    kinds = np.asarray(cell_type).astype(str)
    pairs: list[tuple[int, int, int, str]] = []
    for b in np.unique(batch):
        cells = rng.permutation(np.flatnonzero(batch == b))
        wanted = int(np.rint(rate * len(cells)))
        mixed = int(np.rint(heterotypic * wanted))
        used: set[int] = set()
        for kind, number in (("homotypic", wanted - mixed), ("heterotypic", mixed)):
            for a in cells:
                if number == 0:
                    break
                same = kinds[cells] == kinds[a]
                partners = cells[~same if kind == "heterotypic" else same & (cells != a)]
                if int(a) in used or not len(partners):
                    continue
                used.add(int(a))
                pairs.append((int(a), int(rng.choice(partners)), int(b), kind))
                number -= 1
            if number:
                raise DataError(
                    f"doublet_rate: batch {b} ({len(cells)} cells of "
                    f"{len(np.unique(kinds[cells]))} types) lacks pairs for {number} "
                    f"{kind} doublets; valid: a lower rate or another doublet_heterotypic"
                )
    first, second, where = (np.array([p[i] for p in pairs], dtype=int) for i in range(3))
    summed = sp.csr_matrix(counts[first] + counts[second], dtype=np.float32)
    return Doublets(summed, first, second, where, np.array([p[3] for p in pairs], dtype=str))
