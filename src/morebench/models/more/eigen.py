"""Eigenvectors that do not depend on chance: leading ones of a covariance, with fixed signs."""

from __future__ import annotations

import numpy as np
import torch


def leading(covariance_gg: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the p largest variances (p,) and their eigenvectors (g, p), largest first.

    By torch's solver: at these widths NumPy's took thirty times as long where it has no MKL.
    """
    value, vector = (t.numpy() for t in torch.linalg.eigh(torch.as_tensor(covariance_gg)))
    return np.maximum(value[::-1][:p], 0), signed(vector[:, ::-1][:, :p])


def signed(vector_gp: np.ndarray) -> np.ndarray:
    """Return eigenvectors whose largest entry is positive: their sign is arbitrary."""
    largest_p = np.abs(vector_gp).argmax(0)
    return vector_gp * np.sign(vector_gp[largest_p, np.arange(vector_gp.shape[1])])
