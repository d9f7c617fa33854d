"""What the configuration says about files from elsewhere: which, and how they are read."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from morebench.data.strict import Constant, Modality, Strict

ACCESSION = re.compile(r"GS[EM]\d{3,}")
FILE = re.compile(r"(?!\.{1,2}$)[\w.+-]+")
PATTERN = re.compile(r"[\w.+*?\[\]!-]+")
VALID_ACCESSION = "GSE84133 (a series), GSM2230757 (a sample)"


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from None
    if groups != 1:
        raise ValueError(
            f"{text!r} has {groups} groups; valid: one pair of brackets, round what is wanted"
        )
    return text


def is_pattern(name: str) -> bool:
    """Whether a name of ``geo.files`` has wildcards: ``*``, ``?``, ``[0-9]``."""
    return any(c in name for c in "*?[")


def _file(name: str) -> str:
    if not (PATTERN if is_pattern(name) else FILE).fullmatch(name):
        raise ValueError(
            f"{name!r} is no file name; valid: names as they stand in the folder "
            "(morebench geo ACCESSION lists them), or patterns of them with *, ?, [0-9]"
        )
    return name


def _accession(text: str) -> str:
    if not ACCESSION.fullmatch(text):
        raise ValueError(f"{text!r} is no accession; valid: {VALID_ACCESSION}")
    return text


def _web(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url!r} is no URL; valid: https://..., http://...")
    return url.rstrip("/")


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no SHA-256; valid: 64 lower-case hexadecimal digits")
    return text


OneGroup = Annotated[str, AfterValidator(_pattern)]
Web = Annotated[str, AfterValidator(_web)]
Sha256 = Annotated[str, AfterValidator(_sha256)]


class Downloads(Strict):
    """Where files come from, where they are kept, and with how much patience."""

    geo: Web = "https://ftp.ncbi.nlm.nih.gov/geo"
    cellxgene: Web = "https://datasets.cellxgene.cziscience.com"
    mirrors: dict[Web, list[Web]] = Field(
        {}, description="how a URL begins: what stands there instead, tried first"
    )
    cache: str | None = None
    lock: str = "config/data.lock"
    offline: bool = False
    retries: int = Field(5, ge=0)
    timeout: float = Field(60.0, gt=0)
    backoff: float = Field(1.0, ge=0)


class Geo(Strict):
    """Supplementary files of a series or a sample."""

    accession: Annotated[str, AfterValidator(_accession)]
    files: list[Annotated[str, AfterValidator(_file)]] = Field(
        min_length=1, description="names, or patterns of names"
    )
    urls: list[Web] = Field([], description="files from elsewhere that belong to them")


class Cellxgene(Strict):
    """One file of CZ CELLxGENE Discover."""

    dataset: str = Field(pattern=r"^[0-9a-f-]{36}$", description="id of a version of the dataset")


class GeneNames(Strict):
    """A table that names the genes of a matrix that has their ids only."""

    file: str
    id: str
    name: str
    separator: str | None = None


class Read(Strict):
    """How counts stand in files: each file that matches is one sample."""

    files: str
    format: Literal["h5ad", "h5", "mtx", "table"]
    modality: Modality = Field("rna", description="of features whose type the file does not say")
    sample: OneGroup | Constant | None = Field(None, description="pattern of it in the file name")
    barcodes: str | None = None
    features: str | None = None
    rows: Literal["genes", "cells"] | None = Field(None, description="of a table")
    separator: str | None = None
    columns: list[str] = Field([], description="of a table that hold no counts")
    var_names: str | None = Field(None, description="column of var that names the features")
    gene: OneGroup | None = Field(None, description="pattern of the gene's name in the feature's")
    names: GeneNames | None = None
    umis: int | None = Field(None, ge=2, description="undoes the correction for saturated UMIs")
    round: bool = Field(False, description="values that are no counts become the nearest ones")

    @model_validator(mode="after")
    def _of_its_format(self) -> Self:
        if (self.format == "table") != (self.rows is not None):
            raise ValueError("rows (genes or cells) is needed for a table, and for no other format")
        own = {
            "mtx": ("barcodes", "features"),
            "table": ("separator", "columns"),
            "h5ad": ("var_names",),
        }
        for format_, keys in own.items():
            for key in keys:
                if getattr(self, key) and self.format != format_:
                    raise ValueError(f"{key} belongs to the format {format_}, found {self.format}")
        if self.umis and self.round:
            raise ValueError("umis already gives whole numbers; leave round out")
        return self


class Annotation(Strict):
    """A table about the cells, joined by their ids."""

    file: str | None = Field(None, description="pattern of its name among the source's files")
    path: str | None = Field(None, description="a file of one's own")
    separator: str | None = None
    id: str | None = Field(None, description="column of the cell ids; the first by default")
    id_pattern: OneGroup | None = None
    replace: dict[str, str] = Field({}, description="texts to replace in its ids")
    sample: str | None = Field(None, description="column of the sample that a cell is of")
    only: bool = Field(False, description="leaves out cells that it does not name")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.path is None):
            raise ValueError("needs exactly one of file (among the source's files) and path")
        return self


class About(Strict):
    """For readers: nothing depends on it."""

    accession: str | None = None
    paper: str
    licence: str
    labels: str | None = Field(None, description="who gave the labels, and how")
    why: str
    unverified: str | None = Field(None, description="what has not been seen in the files yet")
