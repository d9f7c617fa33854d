"""From cells to the network's inputs: every branch of every modality, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from morebench.errors import DataError
from morebench.models.more.cells import Cells
from morebench.models.more.eigen import leading
from morebench.models.more.expression import Expression, fit_expression, keep_power
from morebench.models.more.network import BranchSpec
from morebench.models.more.settings import Settings
from morebench.models.more.structure import propagate

FEATURE_KIND, EXPRESSION_KIND, STRUCTURE_KIND = "features", "expression", "structure"


@dataclass(frozen=True)
class FeatureBranch:
    """Frozen features reduced to their leading components, fitted on fit-visible cells."""

    mean_f: np.ndarray
    components_fp: np.ndarray
    scale: float

    def transform(self, features_nf: np.ndarray) -> np.ndarray:
        """Return (n, p) float32."""
        x_nf = np.asarray(features_nf, dtype=np.float32)
        return ((x_nf - self.mean_f) @ self.components_fp * self.scale).astype(np.float32)


@dataclass
class Transforms:
    """What turns cells into inputs; fitted once, kept with the model.

    Attributes
    ----------
    expression, features
        By modality.
    """

    expression: dict[str, Expression]
    features: dict[str, FeatureBranch] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Inputs of the network.

    Attributes
    ----------
    x_np : (n, p) float32
        Columns as ``branches`` say.
    present_nm : (n, m) bool
        Which branches a cell has.
    """

    x_np: np.ndarray
    present_nm: np.ndarray
    branches: tuple[BranchSpec, ...]


def fit_transforms(
    cells: Cells,
    features: Mapping[str, np.ndarray],
    settings: Settings,
    *,
    seed: int,
) -> Transforms:
    """Fit the branches on cells that may be fitted on.

    Parameters
    ----------
    features
        By modality: (n, f) frozen features of these cells.
    """
    expression = {}
    for name, modality in cells.modalities.items():
        has = modality.present
        if has.sum() < 4 or len(modality.names) < 4:
            raise DataError(
                f"{name}: {int(has.sum())} cells and {len(modality.names)} features; valid: 4 "
                "or more of each"
            )
        expression[name] = fit_expression(
            modality.counts_ng[has],
            name,
            settings.n_components,
            shrink=settings.shrink,
            seed=seed,
            spectrum=settings.spectrum,
            noise_weight=settings.noise_weight,
        )
    reduced = {}
    if settings.uses_backbone:
        for name, features_nf in features.items():
            has = cells.modalities[name].present
            reduced[name] = _fit_features(
                features_nf[has], settings.n_components, settings.feature_spectrum
            )
    return Transforms(expression, reduced)


def _fit_features(features_nf: np.ndarray, n_components: int, spectrum: float) -> FeatureBranch:
    x_nf = np.asarray(features_nf, dtype=np.float64)
    mean_f = x_nf.mean(0)
    p = min(n_components, len(x_nf) - 1, x_nf.shape[1])
    variance_p, components_fp = leading(np.cov(x_nf.T), p)
    factor_p = keep_power(np.sqrt(variance_p), spectrum)
    components_fp = components_fp * factor_p
    total = float((variance_p * factor_p**2).sum())
    return FeatureBranch(
        mean_f.astype(np.float32),
        components_fp.astype(np.float32),
        float(np.sqrt(p / total)) if total > 0 else 1.0,
    )


def make_inputs(
    cells: Cells,
    transforms: Transforms,
    features: Mapping[str, np.ndarray],
    settings: Settings,
    *,
    seed: int,
) -> Inputs:
    """Return the inputs of any cells; those without a modality have zeros and no branch."""
    blocks, present, branches, start = [], [], [], 0
    for name, expression in transforms.expression.items():
        modality = cells.modalities.get(name)
        has = np.zeros(len(cells), dtype=bool) if modality is None else modality.present
        parts: list[tuple[str, int, np.ndarray | None]] = []
        p_np = None if modality is None else expression.transform(modality.counts_ng)
        parts.append((EXPRESSION_KIND, expression.width, p_np))
        if settings.structure:
            width = expression.width * len(set(settings.structure_steps))
            s_np = None
            if p_np is not None and has.any():
                s_np = np.zeros((len(cells), width), dtype=np.float32)
                s_np[has] = propagate(
                    p_np[has], cells.batch[has], settings.structure_steps, seed=seed
                )
            parts.append((STRUCTURE_KIND, width, s_np))
        if name in transforms.features:
            reduce = transforms.features[name]
            given = features.get(name)
            if given is None and has.any():
                raise DataError(f"{name}: frozen features are missing, which the model uses")
            f_np = None if given is None else reduce.transform(given)
            parts.append((FEATURE_KIND, reduce.components_fp.shape[1], f_np))
        for kind, width, x_np in parts:
            block = np.zeros((len(cells), width), np.float32) if x_np is None else x_np
            blocks.append(np.where(has[:, None], block, 0).astype(np.float32))
            present.append(has)
            branches.append(BranchSpec(name, kind, start, start + width))
            start += width
    return Inputs(np.concatenate(blocks, axis=1), np.stack(present, axis=1), tuple(branches))
