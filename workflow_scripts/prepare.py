"""Prepare a dataset: counts without truth, and the truth apart."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.data.manifest import fetched
from morebench.data.prepare import prepare
from morebench.data.spec import DatasetConfig
from morebench.files import write_json
from morebench.io.prepared import write_prepared, write_truth
from morebench.io.tables import write_parquet


def main(
    name: str,
    spec: str,
    prepared: Path,
    truth: Path,
    facts: Path,
    cells: Path,
    genes: Path,
    downloads: Annotated[Path | None, typer.Option(help="manifest of its downloads")] = None,
) -> None:
    """Write the five files of a prepared dataset."""
    files = [] if downloads is None else fetched(downloads)
    result = prepare(name, DatasetConfig.model_validate(json.loads(spec)), files)
    write_truth(truth, result.truth)
    write_parquet(cells, result.cells)
    write_parquet(genes, result.genes)
    write_json(facts, result.facts)
    write_prepared(prepared, result.data, result.truth, result.counts)


if __name__ == "__main__":
    job.run(main)
