"""Test the integration metrics on planted effects of known strength."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import typer

from morebench.evaluate import task_data
from morebench.io.tables import write_tsv
from morebench.selftest.plan import DATASET
from morebench.selftest.response import curves
from morebench.selftest.verdicts import summarise


def main(
    summary: Path,
    output: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    split_file: Annotated[Path, typer.Option("--split-file")],
    truth: Annotated[Path, typer.Option()],
    seed: Annotated[int, typer.Option()],
    threads: Annotated[int, typer.Option()],
) -> None:
    """Write the verdicts and the curves that they rest on."""
    _, data = task_data(DATASET, "all", input_file, split_file, truth)
    found = curves(data, score_seed=seed, threads=threads)
    write_tsv(output, found)
    write_tsv(summary, summarise(found))


if __name__ == "__main__":
    job.run(main)
