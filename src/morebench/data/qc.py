"""Quality control: metrics of every cell, cut-offs, and what they removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.spec import QC
from morebench.io.backed import Counts, blocks_of

METRICS = ("n_genes", "total_counts", "pct_mt", "pct_ribo")
LOG_METRICS = ("n_genes", "total_counts")


def qc_metrics(counts_ng: Counts, genes: pd.Index, qc: QC) -> pd.DataFrame:
    """Compute QC metrics with scanpy, block by block.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix, or in a file
    genes : (g,) index

    Returns
    -------
    (n, 4) DataFrame
        ``n_genes``, ``total_counts``, ``pct_mt``, ``pct_ribo`` (percent of a cell's counts).
        A family with no gene in the panel is not applicable: its column is all NaN.
    """
    found = [_qc_metrics(block, genes, qc) for block in blocks_of(counts_ng)]
    return pd.concat(found, ignore_index=True)


def _qc_metrics(counts_ng: sp.csr_matrix, genes: pd.Index, qc: QC) -> pd.DataFrame:
    import anndata
    import scanpy as sc

    var = pd.DataFrame(index=genes)
    names = genes.astype(str)
    var["mt"] = names.str.startswith(tuple(qc.mt_prefixes)) if qc.mt_prefixes else False
    var["ribo"] = names.str.startswith(tuple(qc.ribo_prefixes)) if qc.ribo_prefixes else False
    data = anndata.AnnData(counts_ng, var=var)
    sc.pp.calculate_qc_metrics(
        data, qc_vars=["mt", "ribo"], percent_top=None, log1p=False, inplace=True
    )
    found = pd.DataFrame(
        {
            "n_genes": data.obs["n_genes_by_counts"].astype(float),
            "total_counts": data.obs["total_counts"].astype(float),
            "pct_mt": data.obs["pct_counts_mt"].astype(float),
            "pct_ribo": data.obs["pct_counts_ribo"].astype(float),
        }
    )
    for family in ("mt", "ribo"):
        if not var[family].any():
            found[f"pct_{family}"] = np.nan
    return found


def _mad_limits(values: np.ndarray, metric: str, width: float) -> tuple[float | None, float]:
    """Limits at ``width`` MADs around the median; on log1p for counts, upper only for shares."""
    x = np.log1p(values) if metric in LOG_METRICS else values
    centre = np.median(x)
    spread = np.median(np.abs(x - centre))
    low, high = centre - width * spread, centre + width * spread
    if metric in LOG_METRICS:
        return float(np.expm1(low)), float(np.expm1(high))
    return None, float(high)


def cut_offs(metrics: pd.DataFrame, qc: QC) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Apply the cut-offs of a dataset.

    Parameters
    ----------
    metrics : (n, 4) DataFrame
        NaN where a metric is not applicable; such a cell passes.

    Returns
    -------
    keep : (n,) array of bool
    thresholds
        One record a cut-off: ``metric``, ``rule`` (fixed, or mad with its width), ``low``,
        ``high``, ``removed`` (cells beyond it, also if another cut-off removes them too) and
        ``applicable``.
    """
    wanted: list[tuple[str, str, float | None, float | None]] = [
        ("n_genes", "fixed", qc.min_genes, qc.max_genes),
        ("total_counts", "fixed", qc.min_counts, qc.max_counts),
        ("pct_mt", "fixed", None, qc.max_pct_mt),
        ("pct_ribo", "fixed", None, qc.max_pct_ribo),
    ]
    wanted = [w for w in wanted if w[2] is not None or w[3] is not None]
    for measured, width in qc.mads.items():
        values = metrics[measured].dropna().to_numpy()
        limits = _mad_limits(values, measured, width) if len(values) else (None, None)
        wanted.append((measured, f"mad {width:g}", *limits))
    keep = np.ones(len(metrics), dtype=bool)
    thresholds = []
    for metric, rule, low, high in wanted:
        values = metrics[metric].to_numpy()
        beyond = np.zeros(len(values), dtype=bool)
        if low is not None:
            beyond |= values < low
        if high is not None:
            beyond |= values > high
        keep &= ~beyond
        thresholds.append(
            {
                "metric": metric,
                "rule": rule,
                "low": low,
                "high": high,
                "removed": int(beyond.sum()),
                "applicable": bool(np.isfinite(values).any()),
            }
        )
    return keep, thresholds


def top_genes(counts_ng: Counts, genes: pd.Index, n_top: int = 20) -> pd.DataFrame:
    """Return the genes with the highest mean share of a cell's counts.

    Returns
    -------
    (n_top, 6) DataFrame
        ``gene`` and the quantiles ``q05, q25, q50, q75, q95`` over cells of the gene's
        percentage of a cell's counts (cells without counts left out).
    """
    total_g = np.zeros(counts_ng.shape[1])
    for share in _shares(counts_ng):
        total_g += np.asarray(share.sum(0)).ravel()
    order = np.lexsort((np.arange(len(total_g)), -total_g))[:n_top]
    values = np.concatenate([share.tocsc()[:, order].toarray() for share in _shares(counts_ng)])
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    frame = pd.DataFrame(quantiles.T, columns=["q05", "q25", "q50", "q75", "q95"])
    frame.insert(0, "gene", genes[order].astype(str))
    return frame


def _shares(counts_ng: Counts) -> Iterator[sp.csr_matrix]:
    """Yield blocks of percentages of a cell's counts; cells without counts are left out."""
    for block in blocks_of(counts_ng):
        total = np.asarray(block.sum(1)).ravel()
        yield sp.diags(100 / total[total > 0]) @ block[total > 0]
