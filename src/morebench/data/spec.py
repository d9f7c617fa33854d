"""What the configuration says about one dataset."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from morebench.errors import ConfigError

Modality = Literal["rna", "adt", "atac", "spatial"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Strict(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Constant(Strict):
    """The same value for every cell, where a file has no column for it."""

    value: str


Column = str | Constant


class Labels(Strict):
    """Where the truth stands and how far it can be trusted."""

    column: str
    source: Literal["expert", "assay", "derived", "planted"]
    missing: list[str] = Field([], description="values that mean that there is no label")
    exclude: list[str] = Field([], description="types whose cells are left out of the dataset")
    coarse: str | None = Field(None, description="column of a coarser level")
    fine: str | None = Field(None, description="column of a finer level")


class Doublets(Strict):
    """Experimental or planted truth about doublets."""

    column: str
    positive: list[str | bool] = [True]
    missing: list[str | bool] = Field([], description="values that mean that there is no truth")


class Part(Strict):
    """One file of a dataset that is made of several."""

    path: str
    batch: Column | None = None
    donor: Column | None = None
    platform: Column | None = None
    label_column: str | None = None
    label_map: dict[str, str] = Field({}, description="renames types, so that the parts agree")
    layer: str | None = None
    exclude: dict[str, list[str | bool]] = {}


class QC(Strict):
    """Cells are kept between fixed cut-offs and within median absolute deviations.

    All cut-offs are off by default. A cut-off on a gene family that the panel lacks is
    recorded as not applicable.
    """

    min_genes: int | None = None
    max_genes: int | None = None
    min_counts: int | None = None
    max_counts: int | None = None
    max_pct_mt: float | None = None
    max_pct_ribo: float | None = None
    mads: dict[Literal["n_genes", "total_counts", "pct_mt", "pct_ribo"], float] = {}
    min_cells: int = Field(0, ge=0, description="genes found in fewer cells are left out")
    mt_prefixes: list[str] = ["MT-", "mt-"]
    ribo_prefixes: list[str] = ["RPS", "RPL", "Rps", "Rpl"]


class Features(Strict):
    """Choice of genes and PCA, fitted on a split's fit-visible cells without labels."""

    n_top: int = Field(2000, ge=2)
    flavor: Literal["seurat", "cell_ranger", "seurat_v3"] = "seurat"
    batch_aware: bool = True
    min_cells: int = Field(5, ge=1, description="a gene must be found in that many fitted cells")
    n_pcs: int = Field(50, ge=2)


class Partial(Strict):
    """The split that shows a seeded share of the labels, stratified by batch and type."""

    fraction: float = Field(0.5, gt=0, lt=1)
    seed: int = 0


class Splits(Strict):
    """Splits beside ``all``; held-out batches and types are listed by name."""

    partial: Partial | None = None
    lobo: list[str] = []
    unseen: list[str] = []
    newtype: list[str] = []


class DatasetConfig(Strict):
    """One dataset: its source, what its columns mean, and what is done with it."""

    title: str | None = None
    use: Literal["development", "reporting", "figures"] = "development"
    bundled: str | None = Field(None, description="a dataset that morebench makes by itself")
    params: dict[str, Any] = Field({}, description="parameters of a bundled dataset")
    path: str | dict[Modality, str] | None = Field(
        None, description="h5ad or h5mu; or one h5ad a modality; environment variables allowed"
    )
    concat: list[Part] = Field([], description="several files as one dataset, genes in common")
    modality: Modality = Field("rna", description="what a single h5ad holds")
    modalities: dict[Modality, str] = Field({}, description="our modality: its name in the h5mu")
    layer: str | None = Field(None, description="layer of the raw counts; X by default")
    batch: Column | None = None
    donor: Column | None = None
    platform: Column | None = None
    labels: Labels | None = None
    doublets: Doublets | None = None
    exclude: dict[str, list[str | bool]] = Field({}, description="column: values to leave out")
    qc: QC = QC()
    features: Features = Features()
    splits: Splits = Splits()
    tasks: list[str] = []
    methods: list[str] | None = Field(None, description="all configured methods by default")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("bundled", "path", "concat") if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of bundled, path, concat; found {given or 'none'}")
        if self.params and not self.bundled:
            raise ValueError("params belong to a bundled dataset")
        return self


def slug(text: str) -> str:
    """Return a name fit for a file: letters, digits, dot and underscore."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_")


def splits_of(dataset: DatasetConfig) -> dict[str, str | None]:
    """Return split id: held-out item (None where the split holds nothing out)."""
    found: dict[str, str | None] = {"all": None}
    if dataset.splits.partial is not None:
        found["partial"] = None
    for kind in ("lobo", "unseen", "newtype"):
        for item in getattr(dataset.splits, kind):
            split = f"{kind}-{slug(item)}"
            if split in found:
                raise ConfigError(f"splits.{kind}: {item!r} gives the split id {split!r} twice")
            found[split] = item
    return found


def resolve(path: str, where: str) -> Path:
    """Expand ``~`` and environment variables; an unset variable is an error."""
    expanded = os.path.expanduser(os.path.expandvars(path))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise ConfigError(
            f"{where}: the environment variable {unset.group(1)} in {path!r} is not set; "
            f"set it to the folder of the data, e.g. {unset.group(1)}=/path/to/data"
        )
    return Path(expanded)
