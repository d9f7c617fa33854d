"""Values from 0 to 1 as tiles with their numbers: the panels of annotation figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from morebench.plots.style import INK, MISSING_COLOUR, score_colour, shortened, text_colour_on
from morebench.plots.words import number, state_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILE = 0.27  # inches


def draw_tiles(ax: Axes, panel: pd.DataFrame, *, longest: int, least: float = 0.0) -> None:
    """Draw a tile a value, the shade of which is its score's.

    Parameters
    ----------
    panel : (rows, columns) DataFrame
        Values in 0..1 under the names that are drawn; NaN is a grey tile that says n/a.
    longest
        Characters of a name, at most.
    least
        Smallest value whose number is written.
    """
    from matplotlib.colors import to_rgb

    values = panel.to_numpy(dtype=float)
    missing = np.isnan(values)
    fills = np.empty((*values.shape, 3))
    for place, value in np.ndenumerate(values):
        grey = missing[place]
        fills[place] = to_rgb(MISSING_COLOUR) if grey else score_colour(value, "annotation")
    ax.imshow(fills)
    for (i, j), value in np.ndenumerate(values):
        if missing[i, j]:
            words, ink = state_word("not_applicable"), INK
        elif value >= least:
            words, ink = number(value), text_colour_on(tuple(fills[i, j]))
        else:
            continue
        ax.text(j, i, words, fontsize=5, color=ink, ha="center", va="center")
    ax.set_xticks(
        range(panel.shape[1]), [shortened(n, longest) for n in panel.columns], rotation=90
    )
    ax.set_yticks(range(panel.shape[0]), [shortened(n, longest) for n in panel.index])
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
