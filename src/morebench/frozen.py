"""Frozen features of a split's input: what the rule of that name makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morebench.contract import MethodInput
from morebench.errors import ConfigError

if TYPE_CHECKING:
    from morebench.models.more.tokens import Background


def input_features(
    data: MethodInput,
    settings: Mapping[str, Any],
    *,
    cache: Path,
    texts: Path,
    threads: int,
    device: str = "auto",
    usual: Background | None = None,
) -> tuple[Path, Path]:
    """Make a split's frozen features, or find them in the cache.

    Parameters
    ----------
    settings
        ``backbone``; ``n_tokens``; ``descriptions``: a table of NCBI gene_info, or None.
    cache, texts
        Folders of features and of text vectors; the latter serves all datasets.
    usual
        The profile that tokens are chosen against, where ``data`` is a range of a dataset's
        cells; None: that of its fit-visible cells.

    Returns
    -------
    tuple of Path
        The features (float16 memory map) and their sidecar, inside ``cache``.
    """
    import torch

    from morebench.models.more.backbone import load_backbone
    from morebench.models.more.cache import cache_files, feature_key, frozen_features
    from morebench.models.more.devices import choose_device
    from morebench.models.more.texts import feature_texts, read_descriptions

    torch.set_num_threads(threads)
    backbone = load_backbone(settings["backbone"], device=choose_device(device))
    if backbone is None:
        raise ConfigError("backbone: found 'none'; valid here: one that makes features")
    told = settings.get("descriptions")
    descriptions = read_descriptions(told) if told else None
    genes = [str(g) for g in data.genes]
    words = feature_texts(genes, descriptions)
    frozen_features(
        data.counts_ng,
        genes,
        words,
        fit_visible=data.fit_visible,
        backbone=backbone,
        k=settings["n_tokens"],
        directory=cache,
        text_directory=texts,
        background=usual,
        progress=lambda done, n: print(f"{done} of {n} cells", flush=True),
    )
    key, _ = feature_key(
        data.counts_ng, genes, words, data.fit_visible, backbone, settings["n_tokens"], usual
    )
    return cache_files(cache, key)
