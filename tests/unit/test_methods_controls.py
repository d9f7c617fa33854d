"""Controls that are given every label: ceiling, chance, and a network that learned the test."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from morebench.contract import MethodInput
from morebench.errors import ContractError, DataError
from morebench.io.prepared import TRUTH_COLUMNS, read_shown_truth, write_truth
from morebench.methods import controls, doublet_controls
from morebench.registry import METHODS

N = 240
KIND = np.arange(N) % 3
BATCH = np.where(np.arange(N) < 100, "a", "b")
TYPES = np.array(["T", "B", "NK"], dtype=object)[KIND]


def data(labels=TYPES):
    rng = np.random.default_rng(0)
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(N)], dtype=object),
        genes=np.array(["g"], dtype=object),
        counts_ng=sp.csr_matrix((N, 1), dtype=np.float32),
        pca_np=(rng.normal(size=(N, 5)) + 2 * np.eye(5)[KIND]).astype(np.float32),
        obs=pd.DataFrame({"batch": BATCH}),
        fit_visible=np.ones(N, dtype=bool),
        labels=labels,
    )


def own_share(z, labels):
    """Accuracy of the 5 nearest other cells."""
    model = KNeighborsClassifier(6).fit(z, labels)
    near = model.kneighbors(z, return_distance=False)[:, 1:]
    return np.mean([(labels[row] == label).mean() for row, label in zip(near, labels, strict=True)])


def test_the_oracle_puts_each_type_at_one_corner():
    z = controls.label_oracle(data(), seed=0, threads=1, jitter=0.0).embedding
    assert z.shape == (N, 4)
    np.testing.assert_array_equal(z[:, :3], np.eye(3)[np.searchsorted(["B", "NK", "T"], TYPES)])
    noisy = controls.label_oracle(data(), seed=0, threads=1, jitter=0.1).embedding
    assert own_share(noisy, TYPES.astype(str)) == 1.0
    np.testing.assert_allclose((noisy - z).std(), 0.1, rtol=0.1)


def test_cells_without_a_label_stand_apart():
    labels = TYPES.copy()
    labels[:7] = None
    z = controls.label_oracle(data(labels), seed=0, threads=1, jitter=0.0).embedding
    assert (z[:7, 3] == 1).all() and not z[7:, 3].any()


def test_shuffling_keeps_compositions_and_nothing_else():
    z = controls.labels_shuffled(data(), seed=0, threads=1, jitter=0.0).embedding
    place = z.argmax(1)
    true = np.searchsorted(["B", "NK", "T"], TYPES)
    for batch in "ab":
        rows = batch == BATCH
        assert (np.bincount(place[rows]) == np.bincount(true[rows])).all()
    assert 0.2 < (place == true).mean() < 0.47  # a third, by chance
    other = controls.labels_shuffled(data(), seed=1, threads=1, jitter=0.0).embedding
    assert (other != z).any()


def test_the_gamer_learns_the_labels_it_is_scored_on():
    options = {"n_components": 5, "n_hidden": 32, "n_latent": 8, "max_iter": 200}
    out = controls.metric_gamer(data(), seed=0, threads=1, **options)
    assert out.embedding.shape == (N, 8) and (out.embedding >= 0).all()
    pca = own_share(data().pca_np, TYPES.astype(str))
    assert own_share(out.embedding, TYPES.astype(str)) > pca + 0.05
    assert out.notes["accuracy_on_taught"] > 0.9
    assert out.parameters_trained == 5 * 32 + 32 + 32 * 8 + 8 + 8 * 3 + 3
    again = controls.metric_gamer(data(), seed=0, threads=1, **options)
    np.testing.assert_array_equal(out.embedding, again.embedding)
    # noise that says nothing of types can be learned by heart all the same
    noise = data()
    noise.pca_np = np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)
    cheat = controls.metric_gamer(noise, seed=0, threads=1, **{**options, "max_iter": 2000})
    assert cheat.notes["accuracy_on_taught"] > 0.6


@pytest.mark.parametrize("name", ["label_oracle", "labels_shuffled", "metric_gamer"])
def test_controls_need_the_truth_and_only_they_get_it(name):
    run = getattr(controls, name)
    params = METHODS[name].params
    with pytest.raises(ContractError, match="labels: found None"):
        run(data(None), seed=0, threads=1, **params)
    with pytest.raises(DataError, match="no cell has one"):
        run(data(np.array([None] * N, dtype=object)), seed=0, threads=1, **params)
    assert METHODS[name].track == "control"


def test_only_controls_get_the_truth():
    assert {m.name: m.truth for m in METHODS.values() if m.truth} == {
        "label_oracle": "cell_type", "labels_shuffled": "cell_type", "metric_gamer": "cell_type",
        "doublet_oracle": "is_doublet", "doublets_shuffled": "is_doublet",
        "doublet_gamer": "is_doublet",
    }  # fmt: skip
    assert {m.track for m in METHODS.values() if m.truth} == {"control"}


def test_one_type_is_no_lesson():
    with pytest.raises(DataError, match="found 1 type"):
        controls.metric_gamer(
            data(np.array(["T"] * N, dtype=object)), seed=0, threads=1,
            n_components=5, n_hidden=8, n_latent=4, max_iter=5,
        )  # fmt: skip


# --- doublets ------------------------------------------------------------------------------

# A tenth of batch a and a third of batch b; every eleventh cell has no truth.
IS_DOUBLET = np.where(BATCH == "a", np.arange(N) % 10 == 0, np.arange(N) % 3 == 0).astype(float)
IS_DOUBLET[::11] = np.nan
KNOWN = np.isfinite(IS_DOUBLET)
GAMER = METHODS["doublet_gamer"].params


def doublet_labels(tmp_path):
    """As a control's process is given them."""
    truth = pd.DataFrame(dict.fromkeys(TRUTH_COLUMNS), index=range(N))
    truth["cell_id"] = truth["original_id"] = [f"c{i:06d}" for i in range(1, N + 1)]
    truth["is_doublet"], truth["cell_type"] = IS_DOUBLET, TYPES
    truth.loc[:4, "cell_type"] = None
    write_truth(tmp_path / "truth.parquet", truth)
    return read_shown_truth(tmp_path / "truth.parquet", "is_doublet")[1]


def test_the_truth_is_shown_as_labels(tmp_path):
    labels = doublet_labels(tmp_path)
    assert (labels[~KNOWN] == None).all()  # noqa: E711
    assert (labels[KNOWN] == np.where(IS_DOUBLET[KNOWN] == 1, "doublet", "singlet")).all()
    ids, types = read_shown_truth(tmp_path / "truth.parquet", "cell_type")
    assert types.tolist() == [None] * 5 + TYPES[5:].tolist() and ids[0] == "c000001"


def test_the_doublet_oracle_is_the_ceiling(tmp_path):
    given = data(doublet_labels(tmp_path))
    score = doublet_controls.doublet_oracle(given, seed=0, threads=1).doublet_score
    np.testing.assert_array_equal(score, np.nan_to_num(IS_DOUBLET))
    found = IS_DOUBLET[KNOWN] == 1, score[KNOWN]
    assert roc_auc_score(*found) == average_precision_score(*found) == 1.0


def test_shuffled_doublets_keep_the_rates_of_batches_and_nothing_else(tmp_path):
    given = data(doublet_labels(tmp_path))
    score, other = (
        doublet_controls.doublets_shuffled(given, seed=s, threads=1).doublet_score for s in (0, 1)
    )
    for batch in "ab":
        rows = (batch == BATCH) & KNOWN
        assert score[rows].sum() == IS_DOUBLET[rows].sum()
        assert 0.3 < roc_auc_score(IS_DOUBLET[rows] == 1, score[rows]) < 0.7
    assert not score[~KNOWN].any() and (score != other).any()


def test_the_gamer_of_doublets_learns_what_it_is_scored_on(tmp_path):
    given = data(doublet_labels(tmp_path))  # types show in the PCA, doublets do not
    options = {**GAMER, "n_components": 5, "max_iter": 2000}
    out = doublet_controls.doublet_gamer(given, seed=0, threads=1, **options)
    assert out.doublet_score.shape == (N,)
    assert 0 <= out.doublet_score.min() and out.doublet_score.max() <= 1
    assert roc_auc_score(IS_DOUBLET[KNOWN] == 1, out.doublet_score[KNOWN]) > 0.8
    assert out.notes["accuracy_on_taught"] > 0.75
    assert out.parameters_trained == 5 * 64 + 64 + 64 * 16 + 16 + 16 + 1
    again = doublet_controls.doublet_gamer(given, seed=0, threads=1, **options)
    np.testing.assert_array_equal(out.doublet_score, again.doublet_score)


@pytest.mark.parametrize("name", ["doublet_oracle", "doublets_shuffled", "doublet_gamer"])
def test_controls_of_doublets_need_a_truth_of_doublets(name):
    run, params = getattr(doublet_controls, name), METHODS[name].params
    with pytest.raises(ContractError, match="labels: found None"):
        run(data(None), seed=0, threads=1, **params)
    with pytest.raises(DataError, match="no cell has one"):
        run(data(np.array([None] * N, dtype=object)), seed=0, threads=1, **params)
    with pytest.raises(DataError, match=r"found B, NK, T; .* needs doublet and singlet"):
        run(data(), seed=0, threads=1, **params)
    if name == "doublet_gamer":
        with pytest.raises(DataError, match="found 1 type"):
            run(data(np.array(["singlet"] * N, dtype=object)), seed=0, threads=1, **params)
