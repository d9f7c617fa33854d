"""Score all runs of one (dataset, split, task)."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.evaluate import Entrant, evaluate, write_scores


def main(
    output: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    split_file: Annotated[Path, typer.Option("--split-file")],
    truth: Annotated[Path, typer.Option()],
    dataset: Annotated[str, typer.Option()],
    split: Annotated[str, typer.Option()],
    task: Annotated[str, typer.Option()],
    entry: Annotated[str, typer.Option()],
    entrants: Annotated[str, typer.Option()],
    settings: Annotated[str, typer.Option()],
    threads: Annotated[int, typer.Option()],
) -> None:
    """Write one row an entrant and metric."""
    runs = [Entrant(**{**e, "outputs": tuple(e["outputs"])}) for e in json.loads(entrants)]
    scores = evaluate(
        dataset,
        split,
        task,
        entry,
        runs,
        input_file=input_file,
        split_file=split_file,
        truth_file=truth,
        settings=json.loads(settings),
        threads=threads,
    )
    write_scores(output, scores, len(runs))


if __name__ == "__main__":
    job.run(main)
