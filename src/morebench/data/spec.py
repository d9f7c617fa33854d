"""What the configuration says about one dataset."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from morebench.data.spec_source import (
    About,
    Annotation,
    Cellxgene,
    Geo,
    OneGroup,
    Read,
    Sha256,
    Web,
)
from morebench.data.strict import Column, Constant, Modality, Name, Strict, Value
from morebench.errors import ConfigError
from morebench.registry import TASKS, TRUSTED_LABEL_SOURCES, split_kind


class Labels(Strict):
    """Where the truth stands and how far it can be trusted."""

    column: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="column of the types; of several, a cell's type is the first that is there"
    )
    source: Literal["expert", "assay", "derived", "planted"]
    rename: dict[str, str] = Field(
        {}, description="renames types; the keys below speak of the new names"
    )
    missing: list[str] = Field([], description="values that mean that there is no label")
    exclude: list[str] = Field([], description="types whose cells are left out of the dataset")
    coarse: str | None = Field(None, description="column of a coarser level")
    fine: str | None = Field(None, description="column of a finer level")


class Doublets(Strict):
    """Experimental or planted truth about doublets."""

    column: str
    positive: list[Value] = [True]
    missing: list[Value] = Field([], description="values that mean that there is no truth")


class Part(Strict):
    """One file of a dataset that is made of several."""

    path: str
    batch: Column | None = None
    donor: Column | None = None
    platform: Column | None = None
    label_column: str | None = None
    label_map: dict[str, str] = Field({}, description="renames types, so that the parts agree")
    layer: str | None = None
    exclude: dict[str, list[Value]] = {}


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
    sample: int | None = Field(
        None, ge=100, description="fit-visible cells that genes and PCA are fitted on; null: all"
    )
    seed: int = Field(0, ge=0, description="of that sample")

    @model_validator(mode="after")
    def _fewer_components_than_genes(self) -> Self:
        if self.n_pcs >= self.n_top:
            raise ValueError(
                f"n_pcs = {self.n_pcs} components need more than n_top = {self.n_top} genes; "
                f"set n_pcs to {self.n_top - 1} or less"
            )
        return self


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


class Titrate(Strict):
    """Cells of one type are left out at random until it makes up a share of all cells."""

    type: str
    share: float = Field(gt=0, lt=1, description="below the share that it makes up before")


class Derive(Strict):
    """What a derived dataset changes of its base; see ``data.derive`` for how.

    ``dropout``, ``depth`` and ``titrate`` change the prepared cells, ``label_noise`` and
    ``label_missing`` the labels that splits show.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    base: Name = Field(alias="from", description="a configured dataset that is not derived")
    dropout: float = Field(0.0, ge=0, lt=1, description="chance that a count above 0 is lost")
    depth: float = Field(1.0, gt=0, le=1, description="share of the counts that are kept")
    titrate: Titrate | None = None
    label_noise: float = Field(0.0, ge=0, lt=1, description="share of shown labels replaced")
    label_missing: float = Field(0.0, ge=0, lt=1, description="share of shown labels hidden too")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if not self.model_fields_set - {"base", "seed"}:
            valid = [f for f in type(self).model_fields if f not in ("base", "seed")]
            raise ValueError(f"says nothing to change; valid: one or more of {', '.join(valid)}")
        return self


class Shards(Strict):
    """A dataset too large for one process: ranges of cells, one job each."""

    number: int = Field(ge=2, le=10_000, description="ranges")
    fit: int | None = Field(
        None, ge=100, description="fit-visible cells that a model is fitted on; null: all"
    )
    seed: int = Field(0, ge=0, description="of the sample that is fitted on")


REMOTE = ("geo", "url", "cellxgene")
SOURCES = ("bundled", "path", "concat", *REMOTE)


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
    geo: Geo | None = Field(None, description="supplementary files of a GEO series or sample")
    url: list[Web] = Field([], description="files by their URL")
    cellxgene: Cellxgene | None = Field(None, description="a dataset of CZ CELLxGENE Discover")
    sha256: dict[str, Sha256] = Field(
        {}, description="file name: its hash, where it is known; another file is refused"
    )
    read: list[Read] = Field([], description="how the counts stand in the files")
    annotation: list[Annotation] = Field([], description="tables about the cells")
    from_id: dict[str, OneGroup] = Field({}, description="column: pattern of it in the cell id")
    modality: Modality = Field("rna", description="what a single h5ad holds")
    modalities: dict[Modality, str] = Field({}, description="our modality: its name in the h5mu")
    layer: str | None = Field(None, description="layer of the raw counts; X by default")
    batch: Column | None = None
    donor: Column | None = None
    platform: Column | None = None
    labels: Labels | None = None
    doublets: Doublets | None = None
    exclude: dict[str, list[Value]] = Field({}, description="column: values to leave out")
    qc: QC = QC()
    features: Features = Features()
    splits: Splits = Splits()
    shards: Shards | None = Field(None, description="by default the dataset is one piece")
    tasks: list[str] = []
    methods: list[str] | None = Field(None, description="all configured methods by default")
    derive: Derive | None = Field(None, description="changes of another dataset, its base")
    about: About | None = Field(
        None, description="where the dataset comes from, and why it is used"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in SOURCES if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(SOURCES)}; found {given or 'none'}")
        if self.params and not self.bundled:
            raise ValueError("params belong to a bundled dataset")
        if self.modalities and (self.read or not str(self.path).endswith(".h5mu")):
            raise ValueError("modalities belong to an .h5mu file")
        if (self.geo or self.url) and not self.read:
            raise ValueError(
                f"{given[0]} needs 'read', which says how the counts stand in its files"
            )
        if self.read and (self.bundled or self.concat or isinstance(self.path, dict)):
            raise ValueError(f"read belongs to a path of one file or folder, {', '.join(REMOTE)}")
        for key in ("annotation", "from_id"):
            if getattr(self, key) and not (self.read or self.cellxgene):
                raise ValueError(
                    f"{key} needs 'read', which says how the counts stand in the files"
                )
        if self.read and self.modality != "rna":
            raise ValueError("modality belongs into the entries of read")
        if self.read and self.layer and all(entry.format != "h5ad" for entry in self.read):
            raise ValueError("layer belongs to the format h5ad, which no entry of read has")
        if self.sha256 and self.bundled:
            raise ValueError(f"sha256 belongs to files: {', '.join(SOURCES[1:])}")
        if self.concat and self.exclude:
            raise ValueError("exclude belongs into the entries of concat")
        if self.labels is None and any(p.label_column or p.label_map for p in self.concat):
            raise ValueError("label_column and label_map need labels")
        return self

    @property
    def remote(self) -> bool:
        """Whether its files are fetched from the web."""
        return any(getattr(self, k) for k in REMOTE)

    @property
    def stays_in_file(self) -> bool:
        """Whether it may exceed memory, so that the counts of an h5ad are not read at once."""
        return self.shards is not None and self.derive is None


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
            if not slug(item):
                raise ConfigError(
                    f"splits.{kind}: {item!r} has no letter or digit to name a split by"
                )
            found[split] = item
    return found


def check_tasks(dataset: DatasetConfig, where: str) -> None:
    """Raise ConfigError for a task or split that the dataset's declaration cannot serve."""
    kinds = {split_kind(s) for s in splits_of(dataset)}
    for name in dataset.tasks:
        at = f"{where}.tasks: {name!r}"
        task = TASKS[name]
        if {"labels", "trusted_labels"} & set(task.needs) and dataset.labels is None:
            raise ConfigError(f"{at} needs 'labels'")
        if "doublets" in task.needs and dataset.doublets is None:
            raise ConfigError(f"{at} needs 'doublets'")
        if "two_batches" in task.needs and not dataset.concat:
            if dataset.batch is None:
                raise ConfigError(f"{at} needs 'batch'")
            if isinstance(dataset.batch, Constant):
                raise ConfigError(
                    f"{at} needs two batches or more, batch is {dataset.batch.value!r} for all"
                )
        if "trusted_labels" in task.needs and dataset.labels is not None:
            if dataset.labels.source not in TRUSTED_LABEL_SOURCES:
                raise ConfigError(
                    f"{at} is never scored against labels whose source is "
                    f"{dataset.labels.source!r}; valid: {', '.join(TRUSTED_LABEL_SOURCES)}"
                )
        if not kinds & set(task.splits):
            raise ConfigError(
                f"{at} is scored on splits of the kind {' or '.join(task.splits)}; 'splits' "
                "lists none"
            )
    if dataset.labels is None and kinds != {"all"}:
        raise ConfigError(f"{where}.splits: splits that show labels need 'labels'")


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
