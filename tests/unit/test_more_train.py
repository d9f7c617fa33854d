"""Training: seeds, switches, missing modalities and labels, and what is never trained."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from morebench.models.more import train, trainer
from morebench.models.more.cells import Cells, Modality
from morebench.models.more.inputs import fit_transforms, make_inputs
from morebench.models.more.losses import LossWeights
from morebench.models.more.network import n_parameters
from morebench.models.more.objective import Objective
from morebench.models.more.settings import Settings

TINY = {
    "backbone": "none", "n_components": 6, "structure": False, "n_latent": 5, "n_hidden": 8,
    "steps": 6, "batch_size": 32, "min_epochs": 1, "n_prototypes": 4,
    "spectrum": 1.0, "w_dense": 1.0,
}  # fmt: skip


def planted(n=90, batches=2, adt=False, seed=0):
    """Three types in batches whose genes have factors of their own; types by cell."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(0, 3, n), np.arange(n) % batches
    parts = {}
    for name, g in (("rna", 30), ("adt", 8))[: 1 + adt]:
        rate = rng.gamma(0.7, 4, (3, g))[kind] * rng.lognormal(0, 0.6, (batches, g))[batch]
        present = np.ones(n, dtype=bool)
        if name == "adt":
            present[::5] = False
        counts = rng.poisson(rate) * present[:, None]
        names = np.array([f"{name}{j}" for j in range(g)])
        parts[name] = Modality(sp.csr_matrix(counts.astype(np.float32)), names, present)
    return Cells(parts, np.array([f"b{b}" for b in batch])), kind


class Recorded(Objective):
    """An objective that keeps the terms of every step."""

    def terms(self, network, cells, step):
        found = super().terms(network, cells, step)
        self.kept.append({k: float(v.detach()) for k, v in found.items()})
        return found


@pytest.fixture
def kept(monkeypatch):
    Recorded.kept = []
    monkeypatch.setattr(trainer, "Objective", Recorded)
    return Recorded.kept


def inputs_of(cells, settings, features=None):
    features = features or {}
    transforms = fit_transforms(cells, features, settings, seed=0)
    return make_inputs(cells, transforms, features, settings, seed=0)


def fit(cells, label=None, *, seed=0, features=None, progress=None, **changes):
    settings = Settings(**{**TINY, **changes})
    batch = np.unique(cells.batch, return_inverse=True)[1]
    label = np.full(len(cells), -1) if label is None else label
    return train.fit_network(
        inputs_of(cells, settings, features), cells, batch, label, int(label.max()) + 1, settings,
        seed=seed, progress=progress,
    )  # fmt: skip


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- seeds --------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"likelihood": "nb", "loss_weights": "learned"}])
def test_the_seed_decides_every_bit(changes):
    cells, kind = planted(adt=True)
    one = fit(cells, kind, **changes)
    torch.rand(7)  # what was drawn before does not matter
    np.random.rand(7)
    assert same(one, fit(cells, kind, **changes))
    assert not same(one, fit(cells, kind, seed=1, **changes))
    assert not one.training


# --- terms --------------------------------------------------------------------------------

PLAIN = {"reconstruction", "dense", "means", "sparse"}
LABELS = {"classes", "contrast", "compact"}


def test_one_model_serves_both_tracks(kept):
    cells, kind = planted()
    network = fit(cells)
    assert network.classifier is None
    assert set(kept[0]) == PLAIN and set(kept[-1]) == PLAIN | {"prototype"}
    kept.clear()
    assert fit(cells, kind).classifier.out_features == 3
    assert set(kept[-1]) == PLAIN | {"prototype"} | LABELS
    assert all(np.isfinite(list(step.values())).all() for step in kept)


@pytest.mark.parametrize("term", sorted(PLAIN | LABELS | {"prototype", "modalities"}))
def test_a_weight_of_zero_leaves_the_term_out(kept, term):
    cells, kind = planted(adt=True)
    fit(cells, kind, **{f"w_{term}": 0})
    assert set(kept[-1]) == (PLAIN | LABELS | {"prototype", "modalities"}) - {term}


def test_hidden_labels_do_not_matter_beyond_the_classes(kept):
    """Where no cell of a step is labelled, no term of labels is there."""
    cells, kind = planted(n=200)
    label = np.full(200, -1)
    label[:2] = [0, 1]
    fit(cells, label, w_sparse=0, steps=30)
    with_labels = [LABELS <= set(step) for step in kept]
    assert any(with_labels) and not all(with_labels)
    without = [set(s) for s, there in zip(kept, with_labels, strict=True) if not there]
    assert not any(LABELS & terms for terms in without)


def test_axes_are_found_without_labels_only_and_can_be_left_out():
    cells, kind = planted()
    plain, labelled, off = fit(cells), fit(cells, kind), fit(cells, axes=False)
    assert not torch.equal(plain.axes_dd, torch.eye(5))
    for network in (labelled, off):
        assert torch.equal(network.axes_dd, torch.eye(5)) and not network.centre_d.any()
    parameters, wanted = dict(plain.named_parameters()), dict(off.named_parameters())
    assert all(torch.equal(parameters[k], v) for k, v in wanted.items())


def test_one_batch_has_no_terms_between_batches(kept):
    cells, _ = planted(batches=1)
    network = fit(cells)
    assert set(kept[-1]) == {"reconstruction"}
    assert torch.isfinite(network.refine.b_kd).all()


@pytest.mark.parametrize("learned", [False, True])
def test_the_loss_is_the_weighted_sum_of_its_terms(kept, monkeypatch, learned):
    losses = []
    forward = LossWeights.forward

    def noted(self, terms):
        losses.append(forward(self, terms))
        return losses[-1]

    monkeypatch.setattr(LossWeights, "forward", noted)
    settings = Settings(**TINY)
    fit(planted()[0], loss_weights="learned" if learned else "fixed", w_means=2.5)
    weight = {**settings.to_dict(), "w_means": 2.5}
    expected = [sum(weight[f"w_{k}"] * v for k, v in step.items()) for step in kept]
    equal = np.isclose(expected, [float(v.detach()) for v in losses], rtol=1e-5)
    assert equal[0] and equal.all() == (not learned)


def test_training_lowers_the_loss(kept):
    cells, kind = planted(n=120)
    fit(cells, kind, steps=60, learning_rate=1e-2, batch_size=96, w_means=1)
    # contrast cannot fall below the log of a type's cells, here about 4
    for term, share in (("reconstruction", 0.8), ("classes", 0.8), ("contrast", 0.95)):
        values = [step[term] for step in kept]
        assert np.mean(values[-10:]) < share * np.mean(values[:10]), term


# --- switches of the network --------------------------------------------------------------


def test_branches_are_left_out_by_their_switches():
    cells, _ = planted()
    features = {"rna": np.random.default_rng(0).normal(size=(90, 12)).astype(np.float16)}

    def kinds(**changes):
        settings = Settings(**{**TINY, "backbone": "random", **changes})
        return [b.kind for b in inputs_of(cells, settings, features).branches]

    assert kinds() == ["expression", "features"]
    assert kinds(structure=True) == ["expression", "structure", "features"]
    assert kinds(features=False) == kinds(backbone="none") == ["expression"]


def test_parameters_of_switches():
    cells, kind = planted(adt=True)
    full = fit(cells, kind)
    assert full.classifier is not None and full.refine.b_kd.requires_grad
    b = full.refine.b_kd.detach()
    assert (b != 0).any()
    flat = fit(cells, kind, refine_steps=0)
    assert not flat.refine.b_kd.any() and not flat.refine.step[-1].weight.any()
    mean = fit(cells, kind, fusion="mean")
    assert not mean.fusion.logit_md.any() and full.fusion.logit_md.any()
    assert n_parameters(full) - n_parameters(mean) == full.fusion.logit_md.numel()
    assert set(fit(cells, kind, likelihood="nb").dispersion) == {"rna", "adt"}
    assert not full.dispersion
    assert fit(cells, kind, likelihood="nb").decoders["rna"].out.out_features == 30
    assert full.decoders["rna"].out.out_features == 6


# --- cells of every kind ------------------------------------------------------------------


def test_a_cell_without_a_modality_is_reconstructed_where_it_has_one():
    cells, _ = planted(adt=True)
    network = fit(cells, likelihood="nb")
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_values_of_an_absent_modality_do_not_matter():
    cells, kind = planted(adt=True)
    settings = Settings(**TINY)
    inputs = inputs_of(cells, settings)
    noisy = inputs.x_np.copy()
    branch = next(b for b in inputs.branches if b.modality == "adt")
    place = inputs.branches.index(branch)
    noisy[~inputs.present_nm[:, place], branch.start : branch.stop] = 7.0
    assert (~inputs.present_nm[:, place]).sum() == 18
    batch = np.unique(cells.batch, return_inverse=True)[1]
    found = []
    for x_np in (inputs.x_np, noisy):
        other = type(inputs)(x_np, inputs.present_nm, inputs.branches)
        found.append(
            train.fit_network(
                other, cells, batch, kind, 3, Settings(**{**TINY, "n_pairs": 2}), seed=0
            )
        )
    assert same(*found)


def trainer_of(cells, label=None, n_classes=0, **changes):
    settings = Settings(**{**TINY, **changes})
    batch = np.unique(cells.batch, return_inverse=True)[1]
    label = np.full(len(cells), -1) if label is None else label
    torch.manual_seed(0)
    return trainer.Trainer(
        inputs_of(cells, settings), cells, batch, label, n_classes, settings, 0, "cpu"
    )


def test_modality_dropout_hides_whole_modalities_and_never_the_last():
    cells, _ = planted(n=300, adt=True)
    made = trainer_of(cells, structure=True, modality_dropout=0.5)
    modality = np.array([b.modality for b in made.branches])
    before = made.present_nm
    after = torch.cat([made._without_a_modality(before) for _ in range(20)])
    before = before.repeat(20, 1)
    assert after.any(1).all() and not (after & ~before).any()
    for name in ("rna", "adt"):
        own = after[:, torch.as_tensor(modality == name)]
        assert (own.all(1) | ~own.any(1)).all()
    both = before.all(1)
    share = (~after[both].all(1)).float().mean().item()
    assert share == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / both.sum().item()))
    assert torch.equal(after[~both], before[~both])


def test_what_dropout_hides_is_still_reconstructed():
    cells, _ = planted(n=100, adt=True)
    made = trainer_of(cells, modality_dropout=0.9, w_sparse=0)
    embedded, step = made.step(np.arange(100))
    for name, m in cells.modalities.items():
        assert step.target[name][1].tolist() == m.present.tolist()
    assert embedded.present_nm.sum() < made.present_nm.sum()


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
def test_targets_are_the_values_without_the_mask(likelihood):
    cells, _ = planted()
    made = trainer_of(cells, mask=0.5, likelihood=likelihood, w_sparse=0)
    rows = np.array([5, 2, 80])
    _, step = made.step(rows)
    values, has = step.target["rna"]
    assert has.all()
    if likelihood == "nb":
        counts = cells.modalities["rna"].counts_ng[rows].toarray()
        np.testing.assert_array_equal(values, counts)
        np.testing.assert_array_equal(step.library["rna"][:, 0], counts.sum(1))
    else:
        assert torch.equal(values, made.x_np[rows][:, :6])


def test_pairs_are_mutual_neighbours_of_two_batches_behind_the_sampled_cells():
    cells, _ = planted(batches=3)
    made = trainer_of(cells)
    assert len(made.pairs) > 10
    _, step = made.step(np.arange(32))
    assert step.n_single == 32 and len(step.batch_n) == 32 + 2 * 8
    left, right = step.batch_n[32:].chunk(2)
    assert (left != right).all()


def test_rare_classes_weigh_more_and_the_mean_cell_weighs_one():
    cells, _ = planted(n=90)
    label = np.repeat([0, 1, 2, -1], [64, 16, 4, 6])
    weight = trainer_of(cells, label, 3).objective.class_weight_c
    expected = np.array([1 / 8, 1 / 4, 1 / 2])
    expected *= 84 / (expected * [64, 16, 4]).sum()
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert (weight * torch.tensor([64, 16, 4])).sum().item() == pytest.approx(84)
    assert trainer_of(cells).objective.class_weight_c is None


@pytest.mark.parametrize("n", [20, 90])
def test_steps_have_the_same_size_and_no_cell_twice(n):
    made = trainer_of(planted(n=n)[0])
    size = min(n, 32)
    batches = list(made.batches(7))
    assert [len(b) for b in batches] == [size] * 7
    an_epoch = n // size
    for start in range(0, 7 - an_epoch + 1, an_epoch):
        rows = np.concatenate(batches[start : start + an_epoch])
        assert len(set(rows)) == len(rows)
    assert train.n_steps(n, Settings(**{**TINY, "steps": 3, "min_epochs": 2})) == (
        3 if n == 20 else 6
    )


def test_batches_of_very_different_size_train():
    cells, kind = planted(n=90)
    batch = np.array(["big"] * 88 + ["small"] * 2)
    network = fit(Cells(cells.modalities, batch), kind, batch_dropout=0.5, steps=12)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert torch.isfinite(network.refine.mean_kd).all() and network.refine.mean_kd.any(1).all()


def test_batch_means_are_those_of_the_trained_network():
    cells, _ = planted()
    settings = Settings(**TINY)
    inputs, network = inputs_of(cells, settings), fit(cells)
    fused, _ = network.fuse(torch.as_tensor(inputs.x_np), torch.as_tensor(inputs.present_nm))
    for k, name in enumerate(("b0", "b1")):
        expected = fused[torch.as_tensor(cells.batch == name)].mean(0)
        torch.testing.assert_close(network.refine.mean_kd[k], expected, atol=1e-5, rtol=1e-4)


def test_progress_counts_every_step():
    seen = []
    fit(planted()[0], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


# --- precision and frozen features ----------------------------------------------------------


def test_half_precision_is_for_gpus_only(monkeypatch):
    assert not torch.is_autocast_enabled("cpu")
    with train.autocast("cpu"):
        assert not torch.is_autocast_enabled("cpu")
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: asked.append((a, k)))
    train.autocast("cuda:0")
    assert asked == [(("cuda",), {"dtype": torch.bfloat16})]


def test_terms_keep_full_precision_where_the_network_has_less():
    cells, kind = planted(adt=True)
    made = trainer_of(cells, kind, 3, refine_steps=0, likelihood="nb")
    embedded, step = made.step(np.arange(32))
    embedded.z_nd = embedded.z_nd.bfloat16()
    embedded.z_nmd = embedded.z_nmd.bfloat16()
    exact = made.objective(made.network, embedded, step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made.objective(made.network, embedded, step), exact)
    assert exact.dtype == torch.float32 and torch.isfinite(exact)


def test_embedding_in_pieces_is_embedding_at_once(monkeypatch):
    cells, _ = planted()
    network, inputs = fit(cells), inputs_of(cells, Settings(**TINY))
    b = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    whole, before = train.embed(network, inputs, b)
    monkeypatch.setattr(train, "EMBED_AT_ONCE", 40)
    parts, _ = train.embed(network, inputs, b)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert whole.shape == before.shape == (90, 5) and whole.dtype == np.float32


def test_frozen_features_are_inputs_and_stay_what_they_are():
    cells, _ = planted()
    features = {"rna": np.random.default_rng(0).normal(size=(90, 12)).astype(np.float16)}
    kept = features["rna"].copy()
    network = fit(cells, features=features, backbone="random")
    assert np.array_equal(features["rna"], kept)
    assert [b.kind for b in network.branches] == ["expression", "features"]
