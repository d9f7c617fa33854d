"""Links from the report to figures: relative URLs, sizes, previews."""

from __future__ import annotations

import base64
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from morebench.errors import DataError
from morebench.files import verify
from morebench.plots.style import PREVIEW_DPI, preview_path

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CSS_DPI = 96


@dataclass(frozen=True)
class FigureLink:
    """A preview and the SVG behind it; ``width`` and ``height`` are CSS pixels."""

    svg: str
    image: str
    width: int
    height: int
    alt: str


def link_path(path: str | Path, out_html: Path) -> str:
    """Return the URL of a file relative to the report's folder."""
    relative = os.path.relpath(Path(path).absolute(), out_html.absolute().parent)
    return quote(Path(relative).as_posix())


def link_figure(svg: str | Path, out_html: Path, alt: str, embed: bool) -> FigureLink:
    """Link a figure, or put its preview into the page.

    Raises
    ------
    DataError
        If the SVG or its preview does not exist, or the preview is not a PNG.
    Damaged
        If one of them is not what was written.
    """
    preview = preview_path(svg)
    for path in (Path(svg), preview):
        if not path.is_file():
            raise DataError(f"{path}: the report shows this figure, but there is no such file")
        verify(path)
    content = preview.read_bytes()
    if not content.startswith(_PNG_SIGNATURE):
        raise DataError(f"{preview}: expected a PNG, found {content[:8]!r}")
    width, height = struct.unpack(">II", content[16:24])
    image = link_path(preview, out_html)
    if embed:
        image = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    scale = _CSS_DPI / PREVIEW_DPI
    return FigureLink(
        link_path(svg, out_html), image, round(width * scale), round(height * scale), alt
    )
