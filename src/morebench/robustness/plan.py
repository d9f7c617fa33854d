"""Which derived datasets make a curve: one change of one base, level after level."""

from __future__ import annotations

from dataclasses import dataclass

from morebench.config import Config
from morebench.data.spec import DatasetConfig, Derive, splits_of
from morebench.registry import split_kind

TITRATION = "titration"
#: What may be changed, in the order of figures and tables.
CHANGES = ("dropout", "depth", "label_noise", "label_missing", TITRATION)
_FALLING = ("depth", TITRATION)  # less is a larger change


@dataclass(frozen=True)
class Point:
    """The datasets of one level: several where a change is drawn with several seeds.

    ``level`` is None where only the data tell it: the share that a type makes up of the base.
    """

    level: float | None
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """One change of one base; the base is the first point, larger changes follow.

    ``cell_type`` is the type that a titration makes rarer, empty for other changes.
    """

    base: str
    change: str
    cell_type: str
    points: tuple[Point, ...]


def curves(config: Config) -> list[Curve]:
    """Return the curves of a configuration, by base and change; none without derived datasets.

    A dataset of several changes at once, or with other ``features`` than its base, lies on no
    curve: it would not be known what its scores come from.
    """
    found: dict[tuple[str, str, str], dict[float, list[str]]] = {}
    for name, dataset in config.datasets.items():
        told = _change_of(dataset)
        if told is None or dataset.features != config.datasets[told[0]].features:
            continue
        *key, level = told
        found.setdefault((key[0], key[1], key[2]), {}).setdefault(level, []).append(name)
    order = {name: i for i, name in enumerate(config.datasets)}
    made = []
    for base, change, cell_type in sorted(
        found, key=lambda key: (order[key[0]], CHANGES.index(key[1]), key[2])
    ):
        levels = found[base, change, cell_type]
        points = [Point(None if change == TITRATION else _none_of(change), (base,))]
        for level in sorted(levels, reverse=change in _FALLING):
            points.append(Point(level, tuple(levels[level])))
        made.append(Curve(base, change, cell_type, tuple(points)))
    return made


def comparable(config: Config, base: str, dataset: str, split: str) -> bool:
    """Tell whether a split of a dataset scores the cells that the base's does.

    Held-out batches are pooled, so all of them must be the same.
    """
    one, two = config.datasets[base], config.datasets[dataset]
    if split not in splits_of(one):
        return False
    kind = split_kind(split)
    if kind == "partial":
        return one.splits.partial == two.splits.partial
    if kind == "lobo":
        return set(one.splits.lobo) == set(two.splits.lobo)
    return True


def _none_of(change: str) -> float:
    """Return the level at which a change changes nothing."""
    return float(Derive.model_fields[change].default)


def _change_of(dataset: DatasetConfig) -> tuple[str, str, str, float] | None:
    """Return base, change, type and level; None unless there is exactly one change."""
    derive = dataset.derive
    if derive is None:
        return None
    found = [
        (derive.base, change, "", float(getattr(derive, change)))
        for change in CHANGES
        if change != TITRATION and getattr(derive, change) != _none_of(change)
    ]
    if derive.titrate is not None:
        found.append((derive.base, TITRATION, derive.titrate.type, derive.titrate.share))
    return found[0] if len(found) == 1 else None
