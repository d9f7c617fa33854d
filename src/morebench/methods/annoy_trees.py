"""Annoy's approximate neighbours on one thread, for the packages that search with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def one_thread(module: Any) -> Iterator[None]:
    """Let a package build its annoy trees on one thread, inside the block.

    By default annoy takes every core, and each thread draws its trees from a seed of its
    own: the number of cores would decide what is found. With one thread, and annoy's own
    fixed seed, the same data give the same neighbours everywhere.

    Parameters
    ----------
    module
        The package's module that calls ``AnnoyIndex``; its name is put back afterwards.
    """
    original = module.AnnoyIndex

    class OneThread(original):  # type: ignore[misc, valid-type]
        def build(self, n_trees: int) -> bool:
            return super().build(n_trees, n_jobs=1)

    module.AnnoyIndex = OneThread
    try:
        yield
    finally:
        module.AnnoyIndex = original
