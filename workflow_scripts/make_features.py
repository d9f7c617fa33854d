"""Frozen features of a split's cells, from the cache where they are there."""

from morebench import job  # isort: split

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from morebench.files import atomic_directory
from morebench.frozen import input_features
from morebench.shards import features_part


def main(
    output: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    settings: Annotated[str, typer.Option(help="backbone, n_tokens, descriptions")],
    cache: Annotated[Path, typer.Option(help="folder that keeps what was computed")],
    texts: Annotated[Path, typer.Option(help="folder of text vectors, for all datasets")],
    threads: Annotated[int, typer.Option()],
    part: Annotated[str, typer.Option(help="a range: see shards.features_part")] = "",
) -> None:
    """Write a directory with the features and their sidecar."""
    data, usual = features_part(input_file, part)
    files = input_features(
        data, json.loads(settings), cache=cache, texts=texts, threads=threads, usual=usual
    )
    with atomic_directory(output) as directory:
        for file in files:
            try:
                os.link(file, directory / file.name)
            except OSError:  # another file system
                shutil.copyfile(file, directory / file.name)


if __name__ == "__main__":
    job.run(main)
