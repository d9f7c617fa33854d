"""Draw annotators against the truth and against each other."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_tsv
from morebench.plots.agreement import TRUTH, draw_agreement
from morebench.plots.style import save_figure
from morebench.provenance import figure_source


def main(
    output: Path,
    table: Path,
    dataset: Annotated[str, typer.Option()],
    methods: Annotated[str, typer.Option(help="annotators and their titles, in order")],
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview: the first two annotators that gave answers."""
    counts = read_tsv(table)
    counts = counts[counts["dataset"] == dataset]
    titles = json.loads(methods)
    answered = [name for name in titles if name in set(counts["method"])][:2]
    pairs = [(name, TRUTH) for name in answered]
    if len(answered) == 2:
        pairs.append((answered[1], answered[0]))
    first = {name: counts.loc[counts["method"] == name, "seed"].min() for name in answered}
    kept = counts[counts["seed"] == counts["method"].map(first)]
    words = f"{title}: annotation of held-out batches"
    figure = draw_agreement(kept, pairs, titles, words)
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
