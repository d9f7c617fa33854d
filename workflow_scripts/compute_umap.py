"""Compute UMAP coordinates of every embedding of one (dataset, split)."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.evaluate import Entrant
from morebench.io.tables import write_parquet
from morebench.umap import umap_table


def main(
    output: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    truth: Annotated[Path, typer.Option()],
    entrants: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
) -> None:
    """Write method, state, cell, coordinates, batch and cell type."""
    runs = [Entrant(**{**e, "outputs": tuple(e["outputs"])}) for e in json.loads(entrants)]
    write_parquet(output, umap_table(input_file, truth, runs, seed))


if __name__ == "__main__":
    job.run(main)
