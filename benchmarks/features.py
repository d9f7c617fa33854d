"""Time and compare the frozen encoder on tokens of real cells, one precision beside another.

``python benchmarks/features.py --k 16 24 32 48`` (or ``--h5ad FILE``, with raw counts in X)
encodes the same batches by transformers with its plain attention in float32 (the reference),
by transformers with fused attention, and by morebench in each precision that this processor
has. All sides take turns in one process, on one thread, so that a busy machine is busy for
all. Seconds are those of the processor; cells per second of wall time are printed beside.

``cosine`` is the smallest between a cell's mean hidden state and the reference's; ``centred``
is the same after the mean cell was subtracted, which is the stricter measure. int8 is
calibrated on other cells than those compared.

Exit status 1 if the precision that ``auto`` chooses is less than three times as fast as the
reference at the default of 32 tokens, or turns a cell's vector by more than .999 allows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional as F

from morebench.models.more import backbone as backbones
from morebench.models.more.extract import PROBE_CELLS
from morebench.models.more.frozen import MIN_COSINE, Backbone
from morebench.models.more.texts import feature_texts, read_descriptions
from morebench.models.more.tokens import background, choose_tokens

MIN_RATIO = 3.0
DEFAULT_K = 32
REFERENCE = "transformers eager float32"
Encode = Callable[[torch.Tensor], torch.Tensor]


def counts(h5ad: str | None) -> tuple[sp.csr_matrix, list[str]]:
    """Counts and gene symbols of a file, or of the cells that ship inside scanpy."""
    if h5ad:
        import anndata

        adata = anndata.read_h5ad(h5ad)
        return sp.csr_matrix(adata.X), list(adata.var_names)
    import scanpy as sc

    from morebench.data.bundled import recover_counts

    raw = sc.datasets.pbmc68k_reduced().raw
    return recover_counts(raw.X)[0], list(raw.var_names)


def tokens_of(
    x_ng: sp.csr_matrix, texts: list[str], frozen: Backbone, k: int, cells: int, seed: int
) -> torch.Tensor:
    """Token embeddings (cells, k, b) of cells that have k tokens, shuffled."""
    chosen = choose_tokens(x_ng, background(x_ng, np.ones(x_ng.shape[0], dtype=bool)), k)
    full = np.flatnonzero(chosen.n_tokens_n == k)
    if len(full) < cells:
        sys.exit(f"{len(full)} cells have {k} tokens, {cells} are needed: fewer --cells or --k")
    rows = np.random.default_rng(seed).permutation(full)[:cells]
    used, index = np.unique(chosen.index_nk[rows], return_inverse=True)
    vectors = torch.from_numpy(frozen.embed_texts([texts[i] for i in used]))
    weights = torch.from_numpy(chosen.weight_nk[rows])
    e = vectors[torch.from_numpy(index.reshape(cells, k))] * weights[..., None]
    return e * frozen.token_scale


def sides(frozen: Backbone, probe: torch.Tensor) -> dict[str, Encode]:
    """Ways to encode a batch; ours each with an encoder of its own."""
    from transformers import AutoModel

    from morebench.models.more.encoder import BertEncoder

    folder = backbones._minilm_folder()
    found: dict[str, Encode] = {}
    for kind in ("eager", "sdpa"):
        model = AutoModel.from_pretrained(
            folder, attn_implementation=kind, local_files_only=True, dtype=torch.float32
        ).eval()
        found[f"transformers {kind} float32"] = _plain(model)
    for precision in reversed(BertEncoder(frozen.model).precisions()):
        ours = Backbone(
            "minilm", frozen.model, None, weights_sha256="", tokeniser_sha256="", wanted=precision
        )
        ours.calibrate(probe)
        found[f"morebench {precision}"] = ours.encode
    return found


def _plain(model: Any) -> Encode:
    return lambda e: model(inputs_embeds=e).last_hidden_state.mean(1)


def timed(ways: dict[str, Encode], e: torch.Tensor, rounds: int) -> dict[str, list[list[float]]]:
    """Processor and wall seconds of each way, in turns; the first turn warms up."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, encode in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            encode(e)
            spent = [time.process_time() - cpu, time.perf_counter() - wall]
            if turn:
                seconds[name].append(spent)
    return seconds


def compare(
    ways: dict[str, Encode], test: torch.Tensor, batch: int, rounds: int
) -> dict[str, float]:
    """Print one line a way; return the ratio of each to the reference."""
    exact = torch.cat([ways[REFERENCE](e) for e in test.split(batch)])
    mean = exact.mean(0)
    seconds = timed(ways, test[:batch], rounds)
    cpu = {name: median(s[0] for s in found) for name, found in seconds.items()}
    for name, encode in ways.items():
        x = torch.cat([encode(e) for e in test.split(batch)])
        cosine = float(F.cosine_similarity(x, exact).min())
        centred = float(F.cosine_similarity(x - mean, exact - mean).min())
        wall = median(s[1] for s in seconds[name])
        print(
            f"  {name:28s}{batch / cpu[name]:9.0f}{batch / wall:9.0f}"
            f"{cpu[REFERENCE] / cpu[name]:8.2f}{cosine:10.5f}{centred:10.5f}"
        )
    return {name: cpu[REFERENCE] / value for name, value in cpu.items()}


def main() -> int:
    """Compare at every k; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--h5ad", help="cells with raw counts in X; default: bundled ones")
    parser.add_argument("--descriptions", type=Path, help="NCBI gene_info table")
    parser.add_argument("--k", type=int, nargs="+", default=[DEFAULT_K])
    parser.add_argument("--cells", type=int, default=256, help="compared")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    frozen = backbones.load_backbone("minilm")
    assert frozen is not None
    x_ng, genes = counts(a.h5ad)
    texts = feature_texts(genes, read_descriptions(a.descriptions) if a.descriptions else None)
    good = True
    for k in a.k:
        n_probe = PROBE_CELLS
        e = tokens_of(x_ng, texts, frozen, k, a.cells + n_probe, a.seed)
        with torch.inference_mode():
            probe, test = e[:n_probe], e[n_probe:]
            report = frozen.calibrate(probe)
            print(f"{k} tokens, batches of {a.batch}, {a.threads} threads; auto: {report}")
            print(f"  {'':28s}cells/cpu s cells/s   ratio    cosine   centred")
            ratios = compare(sides(frozen, probe), test, a.batch, a.rounds)
        chosen = report["precision"]
        enough = ratios[f"morebench {chosen}"] >= MIN_RATIO or k != DEFAULT_K
        good = good and enough and report["min_cosine"][chosen] >= MIN_COSINE
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
