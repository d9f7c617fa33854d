"""Draw figure 3 of the paper for one dataset: quality control."""

from morebench import job  # isort: split

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from morebench.files import read_json
from morebench.io.tables import read_parquet
from morebench.plots.qc import draw_qc
from morebench.plots.style import save_figure
from morebench.provenance import figure_source


def main(
    output: Path,
    cells: Path,
    top_genes: Path,
    prepared: Path,
    genes: Path,
    facts: Path,
    title: Annotated[str, typer.Option()],
    config_hash: Annotated[str, typer.Option(envvar="MOREBENCH_CONFIG_HASH")],
) -> None:
    """Write the SVG and its PNG preview."""
    told = read_json(prepared)
    # The cut-offs were applied to the base's counts; a derived dataset shows what is left of them.
    thresholds = [] if "derived" in told else told["thresholds"]
    figure = draw_qc(
        read_parquet(cells),
        read_parquet(genes),
        read_parquet(top_genes),
        np.array(read_json(facts)["pca_variance_ratio"]),
        thresholds,
        title=title,
    )
    save_figure(figure, output, source=figure_source(cells, config_hash))


if __name__ == "__main__":
    job.run(main)
