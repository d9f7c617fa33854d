"""GenePT-w: a cell as the expression-weighted mean of its genes' text embeddings."""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError
from morebench.models.more.tokens import log_normalise


def run(data: MethodInput, *, seed: int, threads: int, backbone: str) -> MethodOutput:
    """Embed every cell without any fit, from the names of the genes that it expresses.

    GenePT takes the vectors of gene descriptions from a commercial model; here they are those
    of the gene symbols by the frozen language model that MoRE reads.

    Parameters
    ----------
    data
        The split's input; all of its genes are read.
    seed
        Of the vectors of a ``random`` backbone; nothing else is drawn.
    threads
        Of torch.
    backbone
        ``minilm``, ``random``, or a Hugging Face encoder by folder or hub id, which ``@`` and a
        hash may pin.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, width of the backbone), rows of length 1; of length 0 where a cell
        has no count in the split's genes (their number is in the notes).

    Raises
    ------
    ConfigError
        ``backbone`` is ``none``.
    Unavailable
        The backbone's weights are not there.

    Notes
    -----
    Chen and Zou 2024, "GenePT: a simple but effective foundation model for genes and cells
    built from ChatGPT", bioRxiv 2023.10.16.562533: GenePT-w.
    """
    from morebench.models.more.backbone import load_backbone
    from morebench.models.more.devices import threads_of
    from morebench.models.more.texts import feature_texts

    with threads_of(threads):
        loaded = load_backbone(backbone, seed=seed)
        if loaded is None:
            raise ConfigError("backbone: found 'none'; valid here: one that embeds texts")
        vectors_gb = loaded.embed_texts(feature_texts([str(g) for g in data.genes]))
    x_nb = np.asarray(log_normalise(data.counts_ng) @ vectors_gb.astype(np.float64))
    length_n = np.linalg.norm(x_nb, axis=1, keepdims=True)
    empty = length_n[:, 0] == 0
    length_n[empty] = 1
    notes = {"backbone": backbone, "n_genes": len(data.genes)}
    if empty.any():
        notes["without_counts"] = int(empty.sum())
    return MethodOutput(
        embedding=(x_nb / length_n).astype(np.float32),
        parameters_frozen=loaded.n_parameters,
        notes=notes,
    )
