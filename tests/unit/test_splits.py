"""Splits: what fitting sees, which labels are shown, which cells are scored."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morebench.data.spec import Partial
from morebench.data.splits import KNOWN_HIDDEN, make_split, stratified_share, usable
from morebench.errors import DataError
from morebench.io.splits import SPLIT_COLUMNS, split_hash
from morebench.registry import SPLIT_KINDS

HELD = {"all": None, "partial": None, "lobo": "b1", "unseen": "b1", "newtype": "t1"}


def truth_of(cell_type, is_doublet=None):
    n = len(cell_type)
    doublet = np.full(n, np.nan) if is_doublet is None else np.asarray(is_doublet, dtype=float)
    return pd.DataFrame(
        {
            "cell_id": [f"c{i + 1:06d}" for i in range(n)],
            "original_id": [f"x{i}" for i in range(n)],
            "cell_type": np.asarray(cell_type, dtype=object),
            "cell_type_coarse": None,
            "cell_type_fine": None,
            "is_doublet": doublet,
            "label_source": "expert",
        }
    )


def make(kind, truth, batch, partial=None):
    held = HELD[kind]
    name = kind if held is None else f"{kind}-{held}"
    return make_split(name, held, truth, np.asarray(batch), partial)


@st.composite
def datasets(draw):
    """Cells with labels (some missing), doublet truth (some missing), and batches."""
    n = draw(st.integers(12, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    types = rng.choice(["t0", "t1", "t2", "t3", None], n, p=[0.5, 0.2, 0.15, 0.05, 0.1])
    doublet = rng.choice([0.0, 1.0, np.nan], n, p=[0.5, 0.15, 0.35])
    batch = rng.choice(["b0", "b1", "b2"], n, p=[0.5, 0.4, 0.1])
    # every kind of split has something to score and to show
    types[:4], doublet[:4] = ["t0", "t0", "t1", "t1"], 0
    batch[:4] = ["b0", "b1", "b0", "b1"]
    return (
        truth_of(types, doublet),
        batch,
        Partial(fraction=draw(st.floats(0.05, 0.95)), seed=draw(st.integers(0, 99))),
    )


@pytest.mark.parametrize("kind", SPLIT_KINDS)
@given(case=datasets())
@settings(max_examples=40, deadline=None)
def test_invariants_of_every_kind(kind, case):
    truth, batch, partial = case
    table, facts = make(kind, truth, batch, partial)
    again, _ = make(kind, truth, batch, partial)
    pd.testing.assert_frame_equal(table, again)
    assert tuple(table.columns) == SPLIT_COLUMNS
    assert list(table["cell_id"]) == list(truth["cell_id"])
    shown, scored, fit = table["label"].notna(), table["scored"], table["fit_visible"]
    good = truth["cell_type"].notna() & (truth["is_doublet"] != 1)
    assert not (shown & scored).any()
    assert not ((shown | scored) & ~good).any()
    assert fit[shown].all()  # a label is never shown of a cell that is hidden
    assert (table.loc[shown, "label"] == truth.loc[shown, "cell_type"]).all()
    assert (facts["n_fitted"], facts["n_shown"], facts["n_scored"]) == (
        fit.sum(), shown.sum(), scored.sum(),
    )  # fmt: skip
    assert facts["types_shown"] == sorted(set(table.loc[shown, "label"]))
    assert facts["kind"] == kind and facts["held_out"] == HELD[kind]
    held = pd.Series(batch == "b1")
    new = truth["cell_type"] == "t1"
    if kind == "all":
        assert fit.all() and not shown.any() and (scored == good).all()
    elif kind == "partial":
        assert fit.all() and ((shown | scored) == good).all()
    elif kind == "lobo":
        assert fit.all() and not shown[held].any()
        assert (scored == (good & held)).all() and (shown == (good & ~held)).all()
    elif kind == "unseen":
        assert (fit == ~held).all() and (scored == (good & held)).all()
        assert (shown == (good & ~held)).all()
    else:
        assert (fit == ~(new | scored)).all() and not shown[new].any()
        assert scored[good & new].all() and ((shown | scored) == good).all()


@given(
    sizes=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(1, 25)),
        min_size=1, max_size=8,
    ),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_share_within_every_batch_and_type_is_within_one_cell(sizes, fraction, seed):
    batch = np.concatenate([[b] * n for b, _, n in sizes])
    cell_type = np.concatenate([[t] * n for _, t, n in sizes])
    chosen = stratified_share(batch, cell_type, fraction, np.random.default_rng(seed))
    cells = pd.DataFrame({"b": batch, "t": cell_type, "shown": chosen})
    for _, group in cells.groupby(["b", "t"]):
        assert abs(group["shown"].sum() - fraction * len(group)) <= 1 + 1e-9
    for _, group in cells.groupby("t"):
        if len(group) > 1:
            assert 0 < group["shown"].sum() < len(group)


def test_small_strata_are_rounded_at_random_not_always_one_way():
    batch, cell_type = np.repeat(["a"], 1).astype(str), np.array(["t"])
    shown = [
        stratified_share(batch, cell_type, 0.3, np.random.default_rng(s))[0] for s in range(2000)
    ]
    assert abs(np.mean(shown) - 0.3) < 0.04  # 4 standard errors


def test_partial_shows_exactly_half_of_even_strata_and_another_half_for_another_seed():
    types = np.repeat(["t0", "t1"], 200).astype(object)
    batch = np.tile(["b0", "b1"], 200)
    one, _ = make("partial", truth_of(types), batch, Partial(fraction=0.5, seed=0))
    two, facts = make("partial", truth_of(types), batch, Partial(fraction=0.5, seed=1))
    counts = one.groupby([types, batch])["label"].count()
    assert counts.tolist() == [50, 50, 50, 50]
    assert split_hash(one) != split_hash(two)
    assert facts["seed"] == 1
    default, facts = make("partial", truth_of(types), batch)
    assert facts["seed"] == 0 and split_hash(default) == split_hash(one)


def test_newtype_hides_a_fifth_of_the_known_cells_to_tell_the_new_ones_from():
    types = np.repeat(["t0", "t1", "t2"], 100).astype(object)
    table, facts = make("newtype", truth_of(types), ["b0"] * 300)
    assert KNOWN_HIDDEN == 0.2
    assert facts["n_shown"] == 160 and facts["n_scored"] == 140 and facts["n_fitted"] == 160
    assert table["scored"].groupby(types).sum().to_dict() == {"t0": 20, "t1": 100, "t2": 20}


def test_usable_leaves_out_doublets_and_cells_without_label():
    truth = truth_of(["t0", None, "t1", "t1"], [0, 0, 1, np.nan])
    assert usable(truth).tolist() == [True, False, False, True]


def test_a_dataset_without_labels_has_the_split_all_and_no_scored_cell():
    table, facts = make("all", truth_of([None] * 5), ["b0"] * 5)
    assert table["fit_visible"].all() and not table["scored"].any()
    assert facts["n_fitted"] == 5 and facts["n_scored"] == 0


def test_errors_name_the_split():
    truth = truth_of(["t0", "t0", "t1", "t1"])
    batch = np.array(["b0", "b0", "b0", "b0"])
    with pytest.raises(DataError, match="'lobo-b9': no cell is of batch 'b9'; valid: b0"):
        make_split("lobo-b9", "b9", truth, batch, None)
    with pytest.raises(DataError, match="'newtype-t9': no cell is of type 't9'; valid: t0, t1"):
        make_split("newtype-t9", "t9", truth, batch, None)
    unlabelled = np.array(["b0", "b0", "b0", "b1"])
    with pytest.raises(DataError, match="'lobo-b1': no cell with a usable label"):
        make_split("lobo-b1", "b1", truth_of(["t0", "t0", "t1", None]), unlabelled, None)
    with pytest.raises(DataError, match="'lobo-b0': no label would be shown"):
        make_split("lobo-b0", "b0", truth, batch, None)
    with pytest.raises(DataError, match="'half-b0': unknown kind 'half'"):
        make_split("half-b0", "b0", truth, batch, None)
    with pytest.raises(DataError, match="'all': no cell with a usable label"):
        make_split("all", None, truth_of(["t0", "t1"], [1, 1]), np.array(["b", "b"]), None)
    with pytest.raises(DataError, match="'partial': no cell with a usable label"):
        make_split("partial", None, truth_of([None, None]), np.array(["b", "b"]), None)
