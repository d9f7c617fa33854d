"""Pool the annotation of all held-out batches of one dataset."""

from morebench import job  # isort: split

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from morebench.evaluate import Entrant, candidate, task_data
from morebench.io.inputs import read_input
from morebench.io.tables import write_parquet
from morebench.tasks.crosstab import crosstab
from morebench.tasks.held_out import HeldOut, held_out
from morebench.tasks.pooled import DIFFERENCE_COLUMNS, SCORE_COLUMNS, score
from morebench.tasks.voting import over_clusters


def entrant(entry: dict[str, Any], split: str) -> Entrant:
    """Return an entrant on one split; ``{split}`` stands in the directory of its own fits."""
    directory = entry["directory"].replace("{split}", split)
    return Entrant(**{**entry, "outputs": tuple(entry["outputs"]), "directory": directory})


def read_batch(
    dataset: str,
    split: str,
    entrants: list[Entrant],
    files: tuple[Path, Path, Path],
    cluster_n: np.ndarray,
) -> HeldOut:
    """Read one split and the labels of its runs; counts and embeddings are let go."""
    given, data = task_data(dataset, split, *files)
    found = (candidate(e, given.cell_ids, len(given.genes)) for e in entrants)
    return held_out(data, list(found), cluster_n)


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
    told = json.loads(settings)
    cluster_n = over_clusters(read_input(input_file).pca_np, seed=told["seed"], threads=1)
    batches = []
    for split, file in json.loads(splits).items():
        runs = [entrant(entry, split) for entry in entries]
        files = (input_file, Path(file), truth)
        batches.append(read_batch(dataset, split, runs, files, cluster_n))
    alone = json.loads(fixed)
    scores, differences = score(batches, fixed=alone, **told)
    write_parquet(crosstab_file, crosstab(batches, fixed=alone))
    for path, rows, columns in (
        (scores_file, scores, SCORE_COLUMNS),
        (differences_file, differences, DIFFERENCE_COLUMNS),
    ):
        write_parquet(path, pd.DataFrame([asdict(r) for r in rows], columns=list(columns)))


if __name__ == "__main__":
    job.run(main)
