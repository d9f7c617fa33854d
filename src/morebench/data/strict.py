"""What every part of the configuration is built from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Modality = Literal["rna", "adt", "atac", "spatial"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Strict(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Constant(Strict):
    """The same value for every cell, where a file has no column for it."""

    value: str


Column = str | Constant
Value = str | bool | int  # of an obs column, compared as text
