"""Draw F1 of every cell type by every annotator."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_tsv
from morebench.plots.style import save_figure
from morebench.plots.types import draw_types
from morebench.provenance import figure_source


def main(
    output: Path,
    table: Path,
    pooled: Path,
    dataset: Annotated[str, typer.Option()],
    methods: Annotated[str, typer.Option(help="methods and their titles, in order")],
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview."""
    types, scores = (read_tsv(t) for t in (table, pooled))
    figure = draw_types(
        types[types["dataset"] == dataset],
        scores[scores["dataset"] == dataset],
        json.loads(methods),
        f"{title}: F1 of cell types",
    )
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
