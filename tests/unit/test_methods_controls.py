"""Controls that are given every label: ceiling, chance, and a network that learned the test."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsClassifier

from morebench.contract import MethodInput
from morebench.errors import ContractError, DataError
from morebench.methods import controls
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
    assert {m.name for m in METHODS.values() if m.truth} == {
        "label_oracle", "labels_shuffled", "metric_gamer",
    }  # fmt: skip
    assert METHODS[name].track == "control"


def test_one_type_is_no_lesson():
    with pytest.raises(DataError, match="found 1 type"):
        controls.metric_gamer(
            data(np.array(["T"] * N, dtype=object)), seed=0, threads=1,
            n_components=5, n_hidden=8, n_latent=4, max_iter=5,
        )  # fmt: skip
