"""The typed way for a metric to say that it has no value on given data."""

from __future__ import annotations

from morebench.errors import MorebenchError


class UndefinedMetric(MorebenchError):
    """A metric has no value on these cells; the message is the reason shown to the reader."""
