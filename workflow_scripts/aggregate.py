"""Gather every score and status into the tables of the run."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import typer

from morebench.aggregate import write_tables
from morebench.config import load_file
from morebench.files import verify


def main(config: Path, run: Path, results: Annotated[Path | None, typer.Option()] = None) -> None:
    """Write the tables beside ``run``; what is missing stands in them as missing."""
    verify(config)
    write_tables(load_file(config), results or config.parent, run.parent)


if __name__ == "__main__":
    job.run(main)
