"""Where torch computes, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from morebench.errors import ConfigError, Unavailable

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> str:
    """Return the device to use; ``auto`` takes a GPU where there is one.

    Raises
    ------
    ConfigError
        No such device is known.
    Unavailable
        This machine has none.
    """
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name not in DEVICES:
        raise ConfigError(f"device: found {name!r}; valid: {', '.join(DEVICES)}")
    if name == "auto":
        return next((d for d in ("cuda", "mps") if present[d]), "cpu")
    if not present[name]:
        found = ", ".join(d for d, there in present.items() if there)
        raise Unavailable(f"device: {name!r} is not there; this machine has: {found}")
    return name


@contextmanager
def threads_of(n: int | None) -> Iterator[None]:
    """Use ``n`` threads of torch inside the block; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
