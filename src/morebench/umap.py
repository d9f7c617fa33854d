"""UMAP coordinates of the runs of one (dataset, split), for its figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morebench.data.splits import usable
from morebench.evaluate import Entrant, candidate
from morebench.io.inputs import read_cells
from morebench.io.prepared import read_truth
from morebench.plots.umap_layout import compute_umap
from morebench.sample import sample_rows

#: Cells of a figure: more of them hide each other and take the layout hours.
MOST_DRAWN = 50_000


def umap_table(
    input_file: Path, truth_file: Path, entrants: Sequence[Entrant], seed: int
) -> pd.DataFrame:
    """Compute the coordinates of every ok embedding, on cells with a usable label.

    Where no cell has a label all cells are drawn. Of more than ``MOST_DRAWN``, a sample that
    keeps the shares of batches and types.

    Returns
    -------
    DataFrame
        ``method, state, cell_id, batch, cell_type, x, y``: one row a method and cell; a
        method without an embedding has one row with its state and no cell.
    """
    given, truth = read_cells(input_file), read_truth(truth_file)
    drawn = usable(truth)
    if not drawn.any():
        drawn[:] = True
    places = np.flatnonzero(drawn)
    group = given.obs["batch"].astype(str).to_numpy() + "|" + truth["cell_type"].astype(str)
    places = places[sample_rows(group.to_numpy()[places], MOST_DRAWN, seed)]
    found = [candidate(e, given.cell_ids, len(given.genes)) for e in entrants]
    embeddings = {
        c.method: c.output.embedding[places]
        for c in found
        if c.output is not None and c.output.embedding is not None
    }
    frames = []
    if embeddings:
        coordinates = compute_umap(embeddings, seed)
        cells = pd.DataFrame(
            {
                "cell_id": given.cell_ids[places],
                "batch": given.batch[places],
                "cell_type": truth["cell_type"].iloc[places].to_numpy(),
            }
        )
        frames.append(coordinates.assign(state="ok").join(cells, on="index").drop(columns="index"))
    lost = [c for c in found if c.method not in embeddings]
    frames.append(
        pd.DataFrame({"method": [c.method for c in lost], "state": [c.state for c in lost]})
    )
    columns = ["method", "state", "cell_id", "batch", "cell_type", "x", "y"]
    return pd.concat(frames, ignore_index=True).reindex(columns=columns)
