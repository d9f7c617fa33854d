"""MoRE on a GPU beside the CPU: cells a second of features and head, and whether they agree.

    python benchmarks/gpu.py [--cells 20000]

Needs a CUDA GPU (exit status 2 without one, and it says so). The same simulated cells are
encoded, and one saved model embeds them on both; a head is trained on each. Exit status 1 if
the smallest cosine between a cell's embeddings on CPU and GPU is below .999.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from head import N_GENES, simulate  # noqa: E402  (a script's neighbour)

MIN_COSINE = 0.999


def cosine(a_nd: np.ndarray, b_nd: np.ndarray) -> float:
    """Return the smallest cosine between rows."""
    length = np.linalg.norm(a_nd, axis=1) * np.linalg.norm(b_nd, axis=1)
    return float(((a_nd * b_nd).sum(1) / np.maximum(length, 1e-12)).min())


def main() -> None:
    """Measure, print, and fail where CPU and GPU disagree."""
    import torch

    from morebench.models.more import train
    from morebench.models.more.cells import one_modality
    from morebench.models.more.features import FeatureSource
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=20_000)
    n = parser.parse_args().cells
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing was measured")
        sys.exit(2)
    print(f"GPU: {torch.cuda.get_device_name()}; torch {torch.__version__}; {n:,} cells")
    counts_ng, batch, _ = simulate(n)
    cells = one_modality(counts_ng, [f"g{i}" for i in range(N_GENES)], batch)
    few = cells.take(np.arange(min(n, 2_000)))
    settings, features = Settings(), {}
    for device, some in (("cuda", cells), ("cpu", few)):
        source = FeatureSource(settings.backbone, settings.n_tokens, 0, None)
        source.fit(cells)
        begun = time.perf_counter()
        features[device] = source.features(some, device)
        took = time.perf_counter() - begun
        print(f"features on {device}: {len(some) / took:,.0f} cells/s, loading included")
    apart = cosine(
        features["cuda"]["rna"][: len(few)].astype(np.float32),
        features["cpu"]["rna"].astype(np.float32),
    )
    print(f"features: smallest cosine {apart:.5f}")
    models = {}
    for device in ("cuda", "cpu"):
        begun = time.perf_counter()
        models[device] = MoRE.fit_cells(
            cells, None, settings, features=features["cuda"], device=device
        )
        took = time.perf_counter() - begun
        seen = train.n_steps(n, settings) * settings.batch_size
        print(f"head on {device}: {seen / took:,.0f} distinct cells/s, fit in {took:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        models["cuda"].save(folder)
        on_cpu = MoRE.load(folder, device="cpu").embed(few, features=features["cpu"])
    rows = {"rna": features["cuda"]["rna"][: len(few)]}
    same = cosine(models["cuda"].embed(few, features=rows), on_cpu)
    print(f"one model on both: smallest cosine of embeddings {same:.5f} (>= {MIN_COSINE})")
    sys.exit(same < MIN_COSINE)


if __name__ == "__main__":
    main()
