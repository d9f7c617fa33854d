"""How every figure looks and is written: fonts, colours, order of names, SVG and preview."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from morebench.errors import ContractError
from morebench.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_DPI = 150
RASTER_DPI = 220
INK = "#222222"
FAINT = "#767676"
RULE = "#D4D4D4"
MISSING_COLOUR = "#C9C9C9"
UNLABELLED = "unlabelled"

# The first six are Okabe & Ito (2008), the next two Tol's "muted"; the others were added one
# at a time, each as far as possible (OKLab) from all before it as seen with normal vision,
# protanopia and deuteranopia (Machado et al. 2009), so the first n are the best n.
TYPE_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288",
    "#882255", "#B4F096", "#8778F0", "#4B2D1E", "#5AD287", "#FFD200", "#5A0F5A",
    "#004BB4", "#965A78", "#3C5A0F", "#5A4B87", "#F05A69", "#B41E3C",
)  # fmt: skip
# Tol's "high contrast", continued in the same way: batches do not look like types.
BATCH_COLOURS = (
    "#004488", "#DDAA33", "#BB5566", "#A596FF", "#69003C", "#3C78C3", "#694B00", "#3CB4A5",
)  # fmt: skip
# Names beyond the palette repeat its colours with the next marker.
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

# One hue an aspect; within it, lightness alone carries the value, which every reader sees.
SCORE_MAPS = {"batch": "Blues", "bio": "Greens", "total": "Purples"}
OTHER_SCORE_MAP = "YlOrBr"

# DejaVu Sans comes with matplotlib, so a layout is the same on every machine; the other
# families are no wider and serve viewers that lack it.
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 7.0,
    "axes.titlesize": 7.0,
    "axes.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.labelsize": 6.0,
    "ytick.labelsize": 6.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.0,
    "legend.frameon": False,
    "figure.dpi": 100.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "svg.fonttype": "none",
    "svg.hashsalt": "morebench",
    # Names come from data: a dollar sign is a dollar sign.
    "text.parse_math": False,
}


class Look(NamedTuple):
    """Colour and marker of one category."""

    colour: str
    marker: str


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style inside the block, whatever the user's own matplotlib settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def ordered(names: Iterable[object]) -> list[str]:
    """Return the distinct names in natural order (``b2`` before ``b10``); missing ones left out.

    One order in every figure, so that a name keeps its colour.
    """
    present = {str(name) for name in names if not pd.isna(name)}  # type: ignore[call-overload]

    def key(name: str) -> tuple[list[object], str]:
        parts = re.split(r"(\d+)", name.casefold())
        return [int(p) if i % 2 else p for i, p in enumerate(parts)], name

    return sorted(present, key=key)


def type_looks(names: Iterable[object]) -> dict[str, Look]:
    """Map each cell type to its look: 20 colours, then the same ones with the next marker."""
    return _looks(ordered(names), TYPE_COLOURS)


def batch_looks(names: Iterable[object]) -> dict[str, Look]:
    """Map each batch to its look: 8 colours of their own, or those of the types if more."""
    found = ordered(names)
    return _looks(found, BATCH_COLOURS if len(found) <= len(BATCH_COLOURS) else TYPE_COLOURS)


def _looks(names: list[str], colours: tuple[str, ...]) -> dict[str, Look]:
    k = len(colours)
    return {n: Look(colours[i % k], MARKERS[i // k % len(MARKERS)]) for i, n in enumerate(names)}


def score_colour(value: float, aspect: str) -> tuple[float, float, float]:
    """Return the RGB of a score; the scale is 0 to 1 for every metric, values outside clipped."""
    import matplotlib as mpl

    cmap = mpl.colormaps[SCORE_MAPS.get(aspect, OTHER_SCORE_MAP)]
    red, green, blue, _ = cmap(0.04 + 0.81 * min(max(value, 0.0), 1.0))
    return red, green, blue


def text_colour_on(rgb: tuple[float, float, float]) -> str:
    """Return the ink, dark or white, with the better contrast (WCAG 2 luminance) on ``rgb``."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.0664 else INK


def shortened(name: object, limit: int = 26) -> str:
    """Shorten a name to ``limit`` characters in its middle: names often differ at their ends."""
    text = str(name)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def text_width(text: object, size: float) -> float:
    """Return the width in inches of a text set in ``size`` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size)
    return text_to_path.get_text_width_height_descent(str(text), font, ismath=False)[0] / 72


def empty_figure(title: str, words: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(4, 1), layout="constrained")
    fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    fig.text(0.01, 0.3, words, color=FAINT)
    return fig


def preview_path(svg_path: str | Path) -> Path:
    """Return where the PNG preview of an SVG is."""
    return Path(svg_path).with_suffix(".png")


def save_figure(fig: Figure, svg_path: str | Path, *, source: Mapping[str, str]) -> None:
    """Write a figure as SVG, with its PNG preview beside it.

    Equal figures become equal bytes: no date, fixed ids. Text stays text. The layout is
    computed once and then frozen, so that both files (and a second call) show the same.

    Parameters
    ----------
    fig
        The figure; it loses its layout engine.
    svg_path
        Path that ends in ``.svg``.
    source
        Where the figure comes from, such as ``table``, ``config`` and ``commit``. It goes
        into the Dublin Core fields: ``Source`` holds ``table``, ``Description`` all of it.

    Raises
    ------
    ContractError
        If the path does not end in ``.svg``, or ``source`` has no ``table``.
    """
    svg = Path(svg_path)
    if svg.suffix != ".svg":
        raise ContractError(f"{svg}: a figure's path must end in .svg, found {svg.suffix!r}")
    if not source.get("table"):
        raise ContractError(f"{svg}: source needs the key 'table', found {sorted(source)}")
    described = "; ".join(f"{key}: {value}" for key, value in source.items())
    metadata = {"Source": str(source["table"]), "Description": described}
    with house_style():
        if fig.get_layout_engine() is not None:
            fig.draw_without_rendering()
            fig.set_layout_engine("none")
        with atomic_path(svg) as temporary:
            fig.savefig(
                temporary, format="svg", dpi=RASTER_DPI, metadata={**metadata, "Date": None}
            )
        with atomic_path(preview_path(svg)) as temporary:
            fig.savefig(temporary, format="png", dpi=PREVIEW_DPI, metadata=metadata)
