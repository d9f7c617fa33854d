"""Draw the scores of one (dataset, split, task) as a table."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import typer

from morebench.io.tables import read_tsv
from morebench.plots.score_table import draw_score_table
from morebench.plots.selftest import rising_metrics
from morebench.plots.style import save_figure
from morebench.provenance import figure_source
from morebench.registry import METRICS, TASKS


def main(
    output: Path,
    table: Path,
    dataset: Annotated[str, typer.Option()],
    split: Annotated[str, typer.Option()],
    task: Annotated[str, typer.Option()],
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
    selftest: Annotated[Path | None, typer.Option(help="verdicts on the metrics")] = None,
) -> None:
    """Write the SVG and its PNG preview."""
    summary = read_tsv(table)
    chosen = summary[
        (summary["dataset"] == dataset) & (summary["split"] == split) & (summary["task"] == task)
    ]
    metrics = {name: m.title for name, m in METRICS.items() if m.task == task}
    words = f"{title}: {TASKS[task].title.lower()}, split {split}"
    rising = rising_metrics(None if selftest is None else read_tsv(selftest))
    figure = draw_score_table(chosen, metrics, words, rank_by=TASKS[task].rank_by, rising=rising)
    save_figure(figure, output, source=figure_source(table, config_hash))


if __name__ == "__main__":
    job.run(main)
