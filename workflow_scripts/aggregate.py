"""Gather every score and status into the tables of the run."""

from pathlib import Path

from morebench import job
from morebench.aggregate import write_tables
from morebench.config import load_file


def main(config: Path, results: Path, tables: Path) -> None:
    """Write the tables; what is missing stands in them as missing."""
    write_tables(load_file(config), results, tables)


if __name__ == "__main__":
    job.run(main)
