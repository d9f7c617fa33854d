"""Whether a run tests its metrics, and on which dataset."""

from __future__ import annotations

from morebench.config import Config

#: Batches are planted there, so what a metric should say is known.
DATASET = "pbmc68k_batches"


def dataset_of(config: Config) -> str | None:
    """Return the dataset that the self-test runs on; None where the run has none.

    It needs the labels of ``pbmc68k_batches``, and a dataset whose integration is scored.
    """
    dataset = config.datasets.get(DATASET)
    scored = any("integration" in d.tasks for d in config.datasets.values())
    return DATASET if dataset is not None and dataset.labels is not None and scored else None
