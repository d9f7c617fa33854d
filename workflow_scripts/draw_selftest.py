"""Draw the response curves of the metrics."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_tsv
from morebench.plots.selftest import draw_selftest
from morebench.plots.style import save_figure
from morebench.provenance import figure_source
from morebench.registry import METRICS


def main(
    output: Path,
    summary: Path,
    table: Path,
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview."""
    titles = {name: m.title for name, m in METRICS.items() if m.task == "integration"}
    words = f"{title}: self-test of the metrics"
    figure = draw_selftest(read_tsv(table), read_tsv(summary), titles, words)
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
