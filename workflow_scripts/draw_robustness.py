"""Draw the robustness curves of one dataset."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_tsv
from morebench.plots.robustness import draw_robustness
from morebench.plots.style import save_figure
from morebench.provenance import figure_source


def main(
    output: Path,
    table: Path,
    dataset: Annotated[str, typer.Option(help="the base of the curves")],
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview."""
    rows = read_tsv(table)
    figure = draw_robustness(rows[rows["dataset"] == dataset], f"{title}: robustness")
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
