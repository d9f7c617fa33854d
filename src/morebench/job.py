"""What every workflow script shares: its threads, its command line, its log, its errors."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from morebench import endings, threads
from morebench.errors import MorebenchError

# Known and harmless here; everything else is shown.
QUIET = (
    ("mudata", FutureWarning),
    ("anndata", FutureWarning),
)


# Scripts import this first. What they import next takes seconds, in which Snakemake may be killed:
# what starts then makes the same files. Run by hand, a script goes on without who started it.
if endings.PARENT in os.environ:
    endings.follow(os.environ[endings.PARENT])


def run(main: Callable[..., Any]) -> None:
    """Run a script's ``main`` with its arguments from the command line.

    An error that a user can act on ends the job with one line; any other keeps its
    traceback. Both go to standard error, which the rule sends to the job's log. SIGTERM ends it
    with exit code 143 after its temporary folders are removed.
    """
    import typer

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("morebench").setLevel(logging.INFO)
    for module, category in QUIET:
        warnings.filterwarnings("ignore", category=category, module=module)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    with endings.exit_on_sigterm():
        try:
            threads.limit(threads.told())
            app(standalone_mode=True)
        except MorebenchError as error:
            sys.exit(f"error: {error}")
