"""Make one split of a dataset."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.data.spec import Derive, Partial
from morebench.data.splits import make_split
from morebench.io.prepared import open_prepared, read_truth
from morebench.io.splits import write_split


def main(
    prepared: Path,
    truth: Path,
    output: Path,
    split: Annotated[str, typer.Option()],
    partial: Annotated[str, typer.Option()],
    held_out: Annotated[str, typer.Option()] = "",
    derive: Annotated[str, typer.Option()] = "",
) -> None:
    """Write the split table and its sidecar."""
    batch = open_prepared(prepared)[0].obs["batch"].astype(str).to_numpy()
    share = Partial.model_validate(json.loads(partial))
    change = Derive.model_validate(json.loads(derive)) if derive else None
    table, facts = make_split(split, held_out or None, read_truth(truth), batch, share, change)
    write_split(output, table, facts)


if __name__ == "__main__":
    job.run(main)
