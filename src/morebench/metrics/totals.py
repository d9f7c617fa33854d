"""Totals of the integration task: plain means, no scaling, no missing component."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BATCH_COMPONENTS = ("bras", "ilisi", "kbet", "graph_connectivity", "pcr")
BIO_COMPONENTS = ("nmi_leiden", "ari_leiden", "silhouette_label", "clisi")
BATCH_WEIGHT = 0.4
BIO_WEIGHT = 0.6


def batch_total(values: Mapping[str, float]) -> float:
    """Mean of the five batch-removal metrics; NaN if one of them is."""
    return float(np.mean([values[name] for name in BATCH_COMPONENTS]))


def bio_total(values: Mapping[str, float]) -> float:
    """Mean of the four biology metrics; NaN if one of them is."""
    return float(np.mean([values[name] for name in BIO_COMPONENTS]))


def total(values: Mapping[str, float]) -> float:
    """0.4 batch + 0.6 biology (Luecken et al. 2022), without min-max scaling."""
    return BATCH_WEIGHT * batch_total(values) + BIO_WEIGHT * bio_total(values)
