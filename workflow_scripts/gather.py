"""Join the runs of all ranges of a dataset into one run."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench import shards


def main(
    output: Path,
    fitted: Path,
    parts: list[Path],
    input_file: Annotated[Path, typer.Option("--input")],
    outputs: Annotated[str, typer.Option()],
) -> None:
    """Write the run's directory: its status always, its output when ok."""
    status = shards.gather(output, fitted, parts, input_file, json.loads(outputs))
    print(f"{status.dataset} / {status.split} / {status.method}: {status.state} {status.reason}")


if __name__ == "__main__":
    job.run(main)
