"""Make the input of a split: genes and PCA from its fit-visible cells."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.data.features import make_input
from morebench.data.spec import Features
from morebench.files import write_json
from morebench.io.inputs import write_input
from morebench.io.prepared import open_prepared
from morebench.io.splits import read_split
from morebench.io.tables import write_parquet


def main(
    prepared: Path,
    split: Path,
    output: Path,
    genes: Path,
    facts: Path,
    features: Annotated[str, typer.Option()],
) -> None:
    """Write the input, the genes' table and the facts."""
    settings = Features.model_validate(json.loads(features))
    visible = read_split(split)["fit_visible"].to_numpy()
    data, counts = open_prepared(prepared)
    result = make_input(data, visible, settings, str(prepared), counts)
    write_parquet(genes, result.genes)
    write_json(facts, result.facts)
    write_input(output, result.data, result.counts)


if __name__ == "__main__":
    job.run(main)
