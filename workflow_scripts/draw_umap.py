"""Draw the UMAP grid of one (dataset, split)."""

from morebench import job  # isort: split

import json
from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_parquet
from morebench.plots.style import save_figure
from morebench.plots.umap_grid import draw_umap_grid
from morebench.provenance import figure_source


def main(
    output: Path,
    table: Path,
    titles: Annotated[str, typer.Option()],
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview."""
    found = read_parquet(table)
    first = found.drop_duplicates("method")
    states = dict(zip(first["method"].astype(str), first["state"].astype(str), strict=True))
    coordinates = found[found["state"] == "ok"].reset_index(drop=True)
    coordinates["index"] = coordinates.index
    figure = draw_umap_grid(
        coordinates,
        coordinates["batch"].to_numpy(),
        coordinates["cell_type"].to_numpy(),
        {name: t for name, t in json.loads(titles).items() if name in states},
        states=states,
        title=title,
    )
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
