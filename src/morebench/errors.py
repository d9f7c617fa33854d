"""Errors that a user can act on: what, where, what was found, what would be valid."""

from __future__ import annotations

from collections.abc import Iterable


class MorebenchError(Exception):
    """Base of every error that morebench raises on purpose; shown without a traceback."""


class ConfigError(MorebenchError):
    """The configuration asks for something that cannot be done."""


class DataError(MorebenchError):
    """A data file breaks what the configuration or the benchmark promises about it."""


class ContractError(MorebenchError):
    """A file between two stages breaks its contract (shape, type, ids, order, values)."""


class Damaged(MorebenchError):
    """A file that we wrote is no longer what was written."""


class NoRoom(MorebenchError):
    """A file cannot be written: the disk is full, or a quota or limit is reached."""


class Unsupported(MorebenchError):
    """A method cannot do what is asked (its status becomes ``unsupported``)."""


class Unavailable(MorebenchError):
    """A method lacks something that is configured, such as weights (status ``unavailable``)."""


def listed(values: Iterable[object], limit: int = 12) -> str:
    """Join values for an error message, shortened after ``limit`` entries."""
    items = [str(v) for v in values]
    shown = ", ".join(items[:limit])
    return f"{shown}, ... ({len(items)} in all)" if len(items) > limit else shown or "(none)"
