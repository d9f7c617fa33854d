"""The zero-shot task against scikit-learn, the single cells' LISI, and planted embeddings."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from morebench.contract import MethodOutput
from morebench.metrics import lisi
from morebench.metrics.neighbors import exact_neighbors
from morebench.registry import METRICS
from morebench.tasks import zero_shot
from morebench.tasks.contract import Candidate, TaskData

N = 360
RNG = np.random.default_rng(0)
TYPE_N = np.arange(N) % 3
TYPES = np.array(["a", "b", "c"], dtype=object)[TYPE_N]
BATCH = np.array(["seen1", "seen2", "new"])[np.arange(N) // 3 % 3]
CENTRES = np.eye(3)
GOOD = 8 * CENTRES[TYPE_N] + RNG.normal(size=(N, 3))
NAMES = [m.name for m in METRICS.values() if m.task == "zero_shot"]


def data(**changed):
    new = BATCH == "new"
    given = {
        "dataset": "d",
        "split": "unseen-new",
        "batch": BATCH,
        "cell_type": TYPES,
        "is_doublet": np.full(N, np.nan),
        "scored": new,
        "shown": np.where(new, None, TYPES),
        "pca_np": np.zeros((N, 2)),
    }
    return TaskData(**given | changed)


def score(x, given=None, state="ok", params=None):
    output = None if x is None else MethodOutput(embedding=x)
    c = Candidate("m", "unsupervised", 0, state, output, "why" if state != "ok" else "")
    scores = zero_shot.score(given or data(), [c], seed=0, threads=1, params=params or {})
    assert [s.metric for s in scores] == NAMES
    for s in scores:
        assert np.isfinite(s.value) == (s.status == "ok") and bool(s.reason) == (s.status != "ok")
    return {s.metric: s for s in scores}


def test_values_are_those_of_the_unseen_cells_among_all():
    found, asked = score(GOOD), np.flatnonzero(BATCH == "new")
    samples = silhouette_samples(GOOD, TYPES.astype(str))[asked]
    assert found["unseen_silhouette"].value == pytest.approx((samples.mean() + 1) / 2)
    assert found["unseen_nmi"].value == found["unseen_ari"].value == 1
    assert found["unseen_ilisi"].value > 0.8 and found["unseen_clisi"].value > 0.8
    assert {(s.n_cells, s.coverage) for s in found.values()} == {(len(asked), 1.0)}


def test_lisi_of_some_cells_is_the_median_of_theirs():
    near = exact_neighbors(GOOD)
    single = np.array([lisi.ilisi(near, BATCH, np.array([i])) for i in range(40)])
    assert lisi.ilisi(near, BATCH, np.arange(40)) == pytest.approx(np.median(single), abs=1e-6)
    assert lisi.clisi(near, TYPES.astype(str), np.arange(N)) == lisi.clisi(near, TYPES.astype(str))


def test_unseen_cells_that_stay_apart_do_not_mix():
    apart = GOOD + 40 * (BATCH == "new")[:, None]
    found = score(apart)
    assert found["unseen_ilisi"].value < 0.05 and found["unseen_nmi"].value == 1
    swapped = np.where((BATCH == "new")[:, None], GOOD[RNG.permutation(N)], GOOD)
    wrong = score(swapped)
    assert wrong["unseen_ilisi"].value > 0.8 and wrong["unseen_nmi"].value < 0.2
    assert wrong["unseen_silhouette"].value < 0.6 < score(GOOD)["unseen_silhouette"].value


def test_what_seen_cells_do_among_themselves_is_not_measured():
    moved = data(cell_type=np.where(BATCH == "seen1", TYPES[::-1], TYPES))
    assert score(GOOD, moved)["unseen_nmi"].value == 1


def test_doublets_and_cells_without_a_label_take_no_part():
    doublet, unlabelled = np.where(np.arange(N) < 9, 1.0, 0.0), TYPES.copy()
    unlabelled[20:40] = None
    given = data(is_doublet=doublet, scored=(BATCH == "new") & (doublet == 0), cell_type=unlabelled)
    wild = GOOD.copy()
    wild[:9], wild[20:40] = 1e3, -1e3
    first, second = score(GOOD, given), score(wild, given)
    assert [s.value for s in first.values()] == [s.value for s in second.values()]
    n, scored = first["unseen_nmi"].n_cells, int(given.scored.sum())
    assert first["unseen_nmi"].coverage == pytest.approx(n / scored) and n < scored


def test_a_type_never_shown_is_scored_as_any_other():
    new = TYPES == "c"
    found = score(GOOD, data(scored=new, shown=np.where(new, None, TYPES)))
    assert found["unseen_clisi"].value > 0.8
    assert found["unseen_nmi"].status == "not_applicable"
    assert "one cell type only" in found["unseen_nmi"].reason
    # as a split has it: some cells of the other types are set aside as well
    unseen = new | (np.arange(N) % 5 == 0)
    found = score(GOOD, data(scored=unseen, shown=np.where(unseen, None, TYPES)))
    assert found["unseen_nmi"].value == found["unseen_ari"].value == 1
    assert found["unseen_clisi"].value > 0.8 and found["unseen_nmi"].n_cells == unseen.sum()


def test_a_sample_of_the_cells():
    few = score(GOOD, params={"sample": 180, "repeats": 3})
    assert few["unseen_nmi"].value == 1 and few["unseen_nmi"].n_cells == 60
    assert few["unseen_nmi"].coverage == 0.5
    drawn = few["unseen_silhouette"]
    assert drawn.ci_low < drawn.value < drawn.ci_high
    assert drawn.ci_low < score(GOOD)["unseen_silhouette"].value < drawn.ci_high


def test_what_failed_is_typed():
    assert {s.status for s in score(None, state="timeout").values()} == {"timeout"}
    for x, reason in (
        (GOOD[:5], "found 5 rows; valid: 360"),
        (np.where(GOOD > 9, np.nan, GOOD), "NaN"),
        (None, "there is no embedding"),
    ):
        for s in score(x).values():
            assert s.status == "failed" and reason in s.reason
    nobody = score(GOOD, data(scored=np.zeros(N, dtype=bool)))
    assert {s.status for s in nobody.values()} == {"not_applicable"}
