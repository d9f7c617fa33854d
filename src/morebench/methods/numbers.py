"""What numbers a method takes."""

from __future__ import annotations

from morebench.errors import ConfigError


def need_at_least(**numbers: tuple[float, float]) -> None:
    """Raise ConfigError where a parameter, given as its value and the least, is below."""
    for name, (found, least) in numbers.items():
        if found < least:
            raise ConfigError(f"{name}: found {found}; valid: {least} or more")


def need_share(**numbers: float) -> None:
    """Raise ConfigError where a parameter is below 0, or 1 and more."""
    for name, found in numbers.items():
        if not 0 <= found < 1:
            raise ConfigError(f"{name}: found {found}; valid: 0 or more, below 1")
