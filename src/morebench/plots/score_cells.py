"""One score as a mark: a shaded tile, a bar, or the word for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from morebench.plots.style import FAINT, RULE, score_colour, text_colour_on
from morebench.plots.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches.
ROW_HEIGHT = 0.34


@dataclass(frozen=True)
class Column:
    """A metric's column; ``left`` and ``width`` are inches."""

    metric: str
    aspect: str
    left: float
    width: float


def draw_tile(ax: Axes, column: Column, y: float, value: float, below: str) -> None:
    """Draw a tile shaded by the value, the number in it, ``below`` under the number."""
    from matplotlib.patches import FancyBboxPatch

    fill = score_colour(value, column.aspect)
    ax.add_patch(
        FancyBboxPatch(
            (column.left + 0.05, y - ROW_HEIGHT / 2 + 0.05), column.width - 0.1, ROW_HEIGHT - 0.1,
            boxstyle="round,pad=0.025,rounding_size=0.05", facecolor=fill, edgecolor="none",
        )
    )  # fmt: skip
    x, ink = column.left + column.width / 2, text_colour_on(fill)
    ax.text(
        x, y - (0.05 if below else 0), number(value), color=ink, fontsize=6.5, ha="center",
        va="center",
    )  # fmt: skip
    if below:
        ax.text(x, y + 0.075, below, color=ink, fontsize=5, ha="center", va="center")


def draw_bar(ax: Axes, column: Column, y: float, value: float, below: str) -> None:
    """Draw a bar from 0 to the value, the number above its left end, ``below`` at the right."""
    from matplotlib.patches import Rectangle

    left, full = column.left + 0.05, column.width - 0.1
    fill = score_colour(0.85, column.aspect)
    ax.add_patch(Rectangle((left, y + 0.05), full, 0.07, facecolor="#ECECEC", edgecolor="none"))
    length = full * min(max(value, 0.0), 1.0)
    ax.add_patch(Rectangle((left, y + 0.05), length, 0.07, facecolor=fill, edgecolor="none"))
    ax.text(left, y - 0.05, number(value), fontsize=7, fontweight="bold", ha="left", va="center")
    if below:
        ax.text(left + full, y - 0.05, below, fontsize=5.5, color=FAINT, ha="right", va="center")


def draw_missing(ax: Axes, column: Column, y: float, word: str) -> None:
    """Draw an empty, dashed tile with the word for the missing score."""
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch(
            (column.left + 0.05, y - ROW_HEIGHT / 2 + 0.05), column.width - 0.1, ROW_HEIGHT - 0.1,
            boxstyle="round,pad=0.025,rounding_size=0.05", facecolor="white", edgecolor=RULE,
            linewidth=0.6, linestyle=(0, (2, 1.5)),
        )
    )  # fmt: skip
    lines = word if column.width > 0.6 else word.replace(" ", "\n", 1)
    ax.text(
        column.left + column.width / 2, y, lines, color=FAINT, fontsize=5, style="italic",
        ha="center", va="center", linespacing=0.95,
    )  # fmt: skip
