"""The words of figures and report: states, tracks, aspects, and how a score is written."""

from __future__ import annotations

import math

STATE_WORDS = {
    "ok": "ok",
    "not_applicable": "n/a",
    "out_of_memory": "out of memory",
}
TRACK_TITLES = {
    "unsupervised": "Unsupervised (no labels in the input)",
    "semi-supervised": "Semi-supervised (sees the shown labels)",
    "control": "Controls (not ranked)",
}
ASPECT_TITLES = {
    "batch": "Batch removal",
    "bio": "Biology kept",
    "structure": "Structure",
    "total": "Totals",
    "annotation": "Annotation",
    "rare": "Rare types",
    "calibration": "Calibration",
    "open set": "Open set",
    "doublets": "Doublets",
}
ASPECT_ORDER = ("batch", "bio", "total")
CONTROL = "control"
# A method and metric that the summary says nothing about.
NO_ROW = "missing"


def state_word(state: object) -> str:
    """Return the word that stands in place of a number; never empty, never a number."""
    text = str(state).strip()
    if not text or text == "nan":
        return NO_ROW
    return STATE_WORDS.get(text, text.replace("_", " "))


def number(value: float, digits: int = 2) -> str:
    """Write a number with a true minus sign, and never a negative zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def spread(sd: float, n_seeds: float) -> str:
    """Write the standard deviation over seeds, or nothing where there is none."""
    return f"±{number(sd)}" if n_seeds >= 2 and math.isfinite(sd) else ""
