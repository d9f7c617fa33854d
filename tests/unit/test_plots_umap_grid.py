"""The UMAP grid shows every cell of every method, or the reason why not."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from morebench.errors import ContractError, DataError
from morebench.plots.style import MISSING_COLOUR, batch_looks, save_figure, type_looks
from morebench.plots.umap_grid import draw_umap_grid
from morebench.plots.umap_layout import compute_umap

N = 90
TITLES = {"more": "MoRE", "pca": "PCA", "scvi": "scVI"}
STATES = {"scvi": "out_of_memory"}


@pytest.fixture
def labels():
    cell_type = np.array([f"type {i % 4}" for i in range(N)], dtype=object)
    cell_type[:5] = None
    return np.array([f"b{i % 3}" for i in range(N)]), cell_type


@pytest.fixture
def coords():
    rng = np.random.default_rng(0)
    return pd.concat(
        pd.DataFrame(
            {"method": m, "index": range(N), "x": rng.normal(size=N), "y": rng.normal(size=N)}
        )
        for m in ("more", "pca")
    )


def _panels(fig):
    return [ax for ax in fig.axes if ax.axison]


def test_rows_are_methods_and_every_cell_is_drawn(coords, labels):
    panels = _panels(draw_umap_grid(coords, *labels, TITLES, states=STATES))
    assert len(panels) == 2 * len(TITLES)
    assert [ax.get_ylabel() for ax in panels[::2]] == list(TITLES.values())
    assert [ax.get_title() for ax in panels[:2]] == ["Cell type", "Batch"]
    for ax in panels[:4]:
        assert sum(len(c.get_offsets()) for c in ax.collections) == N
        assert all(c.get_rasterized() for c in ax.collections)


def test_points_have_the_colour_of_their_label(coords, labels):
    batch, cell_type = labels
    panels = _panels(draw_umap_grid(coords, batch, cell_type, TITLES, states=STATES))
    first = coords[coords["method"] == "more"]
    place = {(x, y): i for i, (x, y) in enumerate(zip(first["x"], first["y"], strict=True))}
    for ax, names, looks in (
        (panels[0], cell_type, type_looks(cell_type)),
        (panels[1], batch, batch_looks(batch)),
    ):
        for collection in ax.collections:
            offsets = collection.get_offsets()
            colours = np.broadcast_to(collection.get_facecolors(), (len(offsets), 4))
            for (x, y), colour in zip(offsets, colours, strict=True):
                name = names[place[x, y]]
                wanted = MISSING_COLOUR if name is None else looks[name].colour
                assert tuple(colour) == to_rgba(wanted)


def test_a_missing_method_shows_its_status(coords, labels):
    panels = _panels(draw_umap_grid(coords, *labels, TITLES, states=STATES))
    for ax in panels[4:]:
        assert [t.get_text() for t in ax.texts] == ["out of memory"]
        assert not ax.collections


def test_svg_has_text_image_points_and_equal_bytes(coords, labels, tmp_path):
    for name in "ab":
        fig = draw_umap_grid(coords, *labels, TITLES, states=STATES, title="Kang, split all")
        save_figure(fig, tmp_path / f"{name}.svg", source={"table": "umap.parquet"})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    tree = ET.parse(tmp_path / "a.svg")
    svg = "{http://www.w3.org/2000/svg}"
    texts = ["".join(t.itertext()) for t in tree.iter(f"{svg}text")]
    for wanted in ("MoRE", "type 3", "unlabelled", "b2", "out of memory", "Kang, split all"):
        assert wanted in texts
    assert len(list(tree.iter(f"{svg}image"))) == 4
    assert len(list(tree.iter(f"{svg}use"))) < N


def test_more_than_twenty_types_use_another_marker(coords, labels):
    types = np.array([f"t{i % 25}" for i in range(N)], dtype=object)
    panels = _panels(draw_umap_grid(coords, labels[0], types, TITLES, states=STATES))
    counts = [len(c.get_offsets()) for c in panels[0].collections]
    beyond = sum(t in type_looks(types) and type_looks(types)[t].marker == "^" for t in types)
    assert counts == [N - beyond, beyond] and beyond > 0


def test_legends_do_not_overlap(coords, labels):
    from matplotlib.legend import Legend

    types = np.array([f"type {i % 30}" for i in range(N)], dtype=object)
    fig = draw_umap_grid(coords, labels[0], types, {"more": "MoRE", "pca": "PCA"})
    (key,) = [ax for ax in fig.axes if not ax.axison]
    upper, lower = [a for a in key.get_children() if isinstance(a, Legend)]
    fig.draw_without_rendering()
    assert upper.get_window_extent().y0 >= lower.get_window_extent().y1
    assert lower.get_window_extent().y0 >= 0
    assert max(box.get_window_extent().x1 for box in (upper, lower)) <= fig.bbox.x1


@pytest.mark.parametrize(
    ("titles", "states", "message"),
    [
        ({"more": "MoRE"}, {}, r"\['pca'\] have no title"),
        (TITLES, {}, r"no coordinates of \['scvi'\]"),
        (TITLES, {"scvi": "ok"}, r"no coordinates of \['scvi'\]"),
    ],
)
def test_nothing_is_dropped_silently(coords, labels, titles, states, message):
    with pytest.raises(ContractError, match=message):
        draw_umap_grid(coords, *labels, titles, states=states)


@pytest.mark.slow  # umap compiles itself on import
def test_umap_is_deterministic_and_keeps_neighbours():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 40)
    embedding = rng.normal(size=(80, 5)) + 40 * group[:, None]
    coords = compute_umap({"a": embedding, "b": embedding[:10]}, seed=3)
    pd.testing.assert_frame_equal(coords, compute_umap({"a": embedding, "b": embedding[:10]}, 3))
    assert coords.groupby("method").size().to_dict() == {"a": 80, "b": 10}
    assert np.isfinite(coords[["x", "y"]]).all(axis=None)
    a = coords[coords["method"] == "a"]
    assert a["index"].tolist() == list(range(80))
    xy = a[["x", "y"]].to_numpy()
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag(np.full(80, np.inf))
    assert (group[distance.argmin(axis=1)] == group).all()


def test_umap_refuses_what_it_cannot_lay_out():
    bad = np.zeros((10, 3))
    bad[2, 1] = np.nan
    with pytest.raises(ContractError, match="more: .*1 not finite"):
        compute_umap({"more": bad}, 0)
    with pytest.raises(DataError, match="3 cells"):
        compute_umap({"more": np.zeros((3, 2))}, 0)
    assert list(compute_umap({}, 0).columns) == ["method", "index", "x", "y"]
