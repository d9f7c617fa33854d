"""Settings of MoRE on the command line: ``--set key=value``, and the tables that list them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import yaml

from morebench.config import closest
from morebench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from morebench.models.more.settings import Settings

TABLES = ("settings", "annotation")


def settings_of(assignments: Sequence[str]) -> Settings:
    """Make settings of ``key=value`` texts; values are YAML.

    Raises
    ------
    ConfigError
        A text without ``=``, a key that is no setting (the closest one is named), a key
        that is set twice, a value that ``Settings`` refuses.
    """
    from morebench.models.more.settings import Settings

    default = {f.name: f.default for f in fields(Settings)}
    values: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set: found {text!r}; valid: key=value")
        if key not in default:
            raise ConfigError(f"--set: {key!r} is no setting; {closest(key, default)}")
        if key in values:
            raise ConfigError(f"--set: {key!r} is set twice")
        values[key] = _value(value, default[key])
    return Settings.from_dict(values)


def _value(text: str, default: Any) -> Any:
    """Read YAML; whether the value fits is for ``Settings`` to say."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(default, tuple) and not isinstance(value, list):
        return (value,)
    if isinstance(default, float) and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 2e-3, which has no point, for a word
        except ValueError:
            return value
    return value


def table(name: str) -> str:
    """Return one of ``TABLES`` in Markdown: name, default and meaning of every setting."""
    from morebench.models.more.annotate_settings import AnnotateSettings
    from morebench.models.more.settings import Settings

    of: type = {"settings": Settings, "annotation": AnnotateSettings}[name]
    default = {f.name: f.default for f in fields(of)}
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for keys, meaning in _described(of):
        names = ", ".join(f"`{k}`" for k in keys)
        values = ", ".join(f"`{_shown(default[k])}`" for k in keys)
        lines.append(f"| {names} | {values} | {meaning.replace('``', '`')} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _described(of: type) -> Iterator[tuple[list[str], str]]:
    """Yield the names and the text of every entry below ``Attributes`` of a docstring."""
    _, _, part = inspect.cleandoc(of.__doc__ or "").partition("Attributes\n----------\n")
    keys: list[str] = []
    words: list[str] = []
    for line in part.splitlines():
        if line and not line.startswith(" "):
            if keys:
                yield keys, " ".join(words)
            keys, words = line.split(", "), []
        else:
            words += line.split()
    if keys:
        yield keys, " ".join(words)


def with_tables(page: str, where: str) -> str:
    """Return a page with the tables between their marks replaced.

    Raises
    ------
    DataError
        A mark is missing.
    """
    for name in TABLES:
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, first, rest = page.partition(begin)
        _, last, after = rest.partition(end)
        if not first or not last:
            raise DataError(f"{where}: lacks the marks {begin} and {end}")
        page = f"{before}{begin}\n{table(name)}\n{end}{after}"
    return page
