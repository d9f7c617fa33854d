"""Figures are written whole, byte for byte alike, with text as text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from tests.seal import names

from morebench.errors import ContractError
from morebench.plots import style
from morebench.plots.words import number, spread, state_word

SVG = "{http://www.w3.org/2000/svg}"
DC = "{http://purl.org/dc/elements/1.1/}"
SOURCE = {"table": "results/tables/summary.tsv", "config": "c0ffee", "commit": "deadbeef"}


def _figure(layout="constrained"):
    from matplotlib.figure import Figure

    with style.house_style():
        fig = Figure(figsize=(3, 2), layout=layout)
        ax = fig.subplots()
        ax.plot([0, 1], [0, 1], label="costs $5 & <more>")
        ax.scatter(np.linspace(0, 1, 50), np.linspace(1, 0, 50), rasterized=True)
        ax.legend()
        ax.set_title("A title: β $x^2$")
    return fig


def _texts(path: Path) -> list[str]:
    return ["".join(t.itertext()) for t in ET.parse(path).iter(f"{SVG}text")]


def test_same_data_gives_the_same_bytes(tmp_path):
    figure = _figure()
    style.save_figure(figure, tmp_path / "a.svg", source=SOURCE)
    style.save_figure(figure, tmp_path / "again.svg", source=SOURCE)
    style.save_figure(_figure(), tmp_path / "b.svg", source=SOURCE)
    for suffix in (".svg", ".png"):
        first = (tmp_path / f"a{suffix}").read_bytes()
        assert (tmp_path / f"again{suffix}").read_bytes() == first
        assert (tmp_path / f"b{suffix}").read_bytes() == first
    assert names(tmp_path) == sorted(
        f"{stem}{suffix}" for stem in ("a", "again", "b") for suffix in (".svg", ".png")
    )


def test_text_is_text_and_a_dollar_is_a_dollar(tmp_path):
    style.save_figure(_figure(), tmp_path / "a.svg", source=SOURCE)
    texts = _texts(tmp_path / "a.svg")
    assert "costs $5 & <more>" in texts
    assert "A title: β $x^2$" in texts
    content = (tmp_path / "a.svg").read_text()
    assert "DejaVu Sans" in content and "sans-serif" in content


def test_metadata_says_where_the_figure_comes_from(tmp_path):
    style.save_figure(_figure(), tmp_path / "a.svg", source=SOURCE)
    tree = ET.parse(tmp_path / "a.svg")
    assert [e.text for e in tree.iter(f"{DC}source")] == [SOURCE["table"]]
    (described,) = [e.text for e in tree.iter(f"{DC}description")]
    assert described == ("table: results/tables/summary.tsv; config: c0ffee; commit: deadbeef")
    assert not list(tree.iter(f"{DC}date"))


def test_preview_has_the_stated_resolution(tmp_path):
    from PIL import Image

    style.save_figure(_figure(), tmp_path / "a.svg", source=SOURCE)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (3 * style.PREVIEW_DPI, 2 * style.PREVIEW_DPI)
        assert image.info["Source"] == SOURCE["table"]


def test_the_users_settings_do_not_matter(tmp_path):
    import matplotlib as mpl

    style.save_figure(_figure(), tmp_path / "a.svg", source=SOURCE)
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": True}):
        style.save_figure(_figure(), tmp_path / "b.svg", source=SOURCE)
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_failed_write_leaves_the_old_figure(tmp_path, monkeypatch):
    target = tmp_path / "a.svg"
    style.save_figure(_figure(), target, source=SOURCE)
    before = target.read_bytes()
    broken = _figure(layout=None)

    def fail(*args, **kwargs):
        Path(args[0]).write_text("half a figure")
        raise OSError("disk full")

    monkeypatch.setattr(broken, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        style.save_figure(broken, target, source=SOURCE)
    assert target.read_bytes() == before
    assert names(tmp_path) == ["a.png", "a.svg"]


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [("a.png", SOURCE, r"must end in \.svg"), ("a.svg", {"commit": "x"}, "'table'")],
)
def test_bad_calls_name_what_is_wrong(tmp_path, name, source, message):
    with pytest.raises(ContractError, match=message):
        style.save_figure(_figure(), tmp_path / name, source=source)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson's OKLab of linear RGB."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(rgb @ np.transpose(to_lms)) @ np.transpose(to_lab)


# Machado, Oliveira & Fernandes 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [style.TYPE_COLOURS, style.BATCH_COLOURS])
def test_palettes_stay_apart_for_colour_blind_readers(vision, colours):
    from matplotlib.colors import to_rgb

    srgb = np.array([to_rgb(c) for c in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = _oklab(np.clip(linear @ VISION[vision].T, 0, 1))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    # The closest pair of Okabe and Ito's own palette is at .076 under deuteranopia.
    assert distance[np.triu_indices(len(colours), 1)].min() > 0.07


def test_names_are_in_natural_order_without_missing_ones():
    assert style.ordered(["b10", "B2", "a", None, float("nan"), "b10"]) == ["a", "B2", "b10"]


def test_colours_cycle_with_the_next_marker():
    looks = style.type_looks(f"t{i}" for i in range(41))
    assert len(set(looks.values())) == 41
    assert looks["t20"].colour == looks["t0"].colour == style.TYPE_COLOURS[0]
    assert [looks[t].marker for t in ("t0", "t19", "t20", "t39", "t40")] == list("oo^^s")


def test_many_batches_use_the_larger_palette():
    few, many = style.batch_looks(range(8)), style.batch_looks(range(9))
    assert [look.colour for look in few.values()] == list(style.BATCH_COLOURS)
    assert [look.colour for look in many.values()] == list(style.TYPE_COLOURS[:9])


@pytest.mark.parametrize("aspect", ["batch", "bio", "total", "annotation"])
def test_scores_darken_and_their_text_is_readable(aspect):
    def luminance(rgb):
        c = np.asarray(rgb)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    from matplotlib.colors import to_rgb

    values = np.linspace(0, 1, 21)
    fills = [style.score_colour(v, aspect) for v in values]
    assert (np.diff([luminance(f) for f in fills]) < 0).all()
    for fill in fills:
        pair = sorted([luminance(fill), luminance(to_rgb(style.text_colour_on(fill)))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3.9
    assert style.score_colour(-0.3, aspect) == fills[0]
    assert style.score_colour(1.7, aspect) == fills[-1]


def test_shortened_names_keep_both_ends():
    assert style.shortened("CD4 T", 10) == "CD4 T"
    assert style.shortened("effector memory 17", 10) == "effect… 17"
    assert len(style.shortened("x" * 80, 26)) == 26


def test_words_of_numbers_and_states():
    assert [number(v) for v in (0.834, -0.02, -0.001, 0.0)] == ["0.83", "−0.02", "0.00", "0.00"]
    assert [spread(0.014, 3), spread(0.014, 1), spread(float("nan"), 3)] == ["±0.01", "", ""]
    assert [state_word(s) for s in ("not_applicable", "out_of_memory", "failed")] == [
        "n/a",
        "out of memory",
        "failed",
    ]
    assert state_word(float("nan")) == state_word("") == "missing"
