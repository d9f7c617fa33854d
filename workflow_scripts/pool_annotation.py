"""Pool the annotation of all held-out batches of one dataset."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from morebench import job
from morebench.evaluate import Entrant, candidate, task_data
from morebench.io.tables import write_parquet
from morebench.tasks.crosstab import crosstab
from morebench.tasks.held_out import HeldOut, held_out
from morebench.tasks.pooled import DIFFERENCE_COLUMNS, SCORE_COLUMNS, score


def entrant(entry: dict[str, Any], split: str) -> Entrant:
    """Return an entrant on one split; ``{split}`` stands in the directory of its own fits."""
    directory = entry["directory"].replace("{split}", split)
    return Entrant(**{**entry, "outputs": tuple(entry["outputs"]), "directory": directory})


def read_batch(
    dataset: str,
    split: str,
    entrants: list[Entrant],
    input_file: Path,
    split_file: Path,
    truth: Path,
) -> HeldOut:
    """Read one split and the labels of its runs; counts and embeddings are let go."""
    given, data = task_data(dataset, split, input_file, split_file, truth)
    found = (candidate(e, given.cell_ids, len(given.genes)) for e in entrants)
    return held_out(data, list(found))


def main(
    scores_file: Path,
    differences_file: Path,
    crosstab_file: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    truth: Annotated[Path, typer.Option()],
    dataset: Annotated[str, typer.Option()],
    splits: Annotated[str, typer.Option(help="split: its table")],
    entrants: Annotated[str, typer.Option(help="with {split} in the directory")],
    fixed: Annotated[str, typer.Option(help="methods without randomness")],
    settings: Annotated[str, typer.Option()],
) -> None:
    """Write scores of every entrant, differences of every two, and who called what what."""
    entries = json.loads(entrants)
    batches = []
    for split, file in json.loads(splits).items():
        runs = [entrant(entry, split) for entry in entries]
        batches.append(read_batch(dataset, split, runs, input_file, Path(file), truth))
    alone = json.loads(fixed)
    scores, differences = score(batches, fixed=alone, **json.loads(settings))
    write_parquet(crosstab_file, crosstab(batches, fixed=alone))
    for path, rows, columns in (
        (scores_file, scores, SCORE_COLUMNS),
        (differences_file, differences, DIFFERENCE_COLUMNS),
    ):
        write_parquet(path, pd.DataFrame([asdict(r) for r in rows], columns=list(columns)))


if __name__ == "__main__":
    job.run(main)
