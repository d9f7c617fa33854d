"""What every workflow script shares: its threads, its command line, its log, its errors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from morebench import threads
from morebench.errors import MorebenchError

# Known and harmless here; everything else is shown.
QUIET = (
    ("mudata", FutureWarning),
    ("anndata", FutureWarning),
)


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when its parent dies, so that no orphan runs on.

    Parameters
    ----------
    parent
        The process that started this one, which may have died before it was asked for.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, number)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def run(main: Callable[..., Any]) -> None:
    """Run a script's ``main`` with its arguments from the command line.

    An error that a user can act on ends the job with one line; any other keeps its
    traceback. Both go to standard error, which the rule sends to the job's log.
    """
    import typer

    # Snakemake was killed: what starts next makes the same files. A method is stopped first.
    die_with_parent(signal.SIGTERM)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("morebench").setLevel(logging.INFO)
    for module, category in QUIET:
        warnings.filterwarnings("ignore", category=category, module=module)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        threads.limit(threads.told())
        app(standalone_mode=True)
    except MorebenchError as error:
        sys.exit(f"error: {error}")
