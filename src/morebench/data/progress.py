"""Progress of a transfer: a bar where somebody looks at a terminal, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _silent(done: int, total: int | None) -> None:
    """Take no notice."""


@contextmanager
def bar(name: str, shown: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield what is called with the bytes that are there and the whole size (None: unknown).

    Parameters
    ----------
    name
        What stands before the bar.
    shown
        False: no bar. True: one, if standard error is a terminal.
    """
    if not (shown and sys.stderr.isatty()):
        yield _silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
