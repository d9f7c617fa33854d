"""The self-test: titrations of known strength, responses of known metrics, verdicts."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from morebench import config as configs
from morebench.errors import ContractError, DataError
from morebench.metrics import lisi
from morebench.metrics.neighbors import exact_neighbors
from morebench.registry import METRICS
from morebench.selftest import plan, response, titrate, verdicts
from morebench.tasks import integration
from morebench.tasks.contract import TaskData

NAMES = [m.name for m in METRICS.values() if m.task == "integration"]


def cells(n=240, n_types=4, n_batches=3, d=6, seed=0):
    """Make types in batches; (types, batch)-means are shifted, so no level is clean."""
    rng = np.random.default_rng(seed)
    kind, batch = np.arange(n) % n_types, rng.integers(n_batches, size=n)
    x = 5 * rng.normal(size=(n_types, d))[kind] + rng.normal(size=(n, d))
    x = x + 2 * rng.normal(size=(n_types, n_batches, d))[kind, batch]
    return x, np.array([f"t{k}" for k in kind]), np.array([f"b{b}" for b in batch])


def task_data(**options):
    x, labels, batch = cells(**options)
    n = len(x)
    return TaskData(
        dataset="d",
        split="all",
        batch=batch,
        cell_type=labels.astype(object),
        is_doublet=np.full(n, np.nan),
        scored=np.ones(n, dtype=bool),
        shown=np.full(n, None, dtype=object),
        pca_np=x.astype(np.float32),
    )


def group_means(x, *groups):
    keys = pd.DataFrame(dict(enumerate(groups)))
    return pd.DataFrame(x).groupby([keys[i] for i in keys]).mean()


# --- titrations -----------------------------------------------------------------------------------


def test_clean_cells_have_the_mean_of_their_type_in_every_batch():
    x, labels, batch = cells()
    found = titrate.clean(x, labels, batch)
    both, by_type = group_means(found, labels, batch), group_means(found, labels)
    for (kind, _), row in both.iterrows():
        np.testing.assert_allclose(row, by_type.loc[kind], atol=1e-9)
    np.testing.assert_allclose(
        by_type, group_means(x, labels, batch).groupby(level=0).mean(), atol=1e-9
    )
    # What is inside a type and batch stays: differences of its cells.
    inside = (labels == "t1") & (batch == "b2")
    np.testing.assert_allclose(pdist(found[inside]), pdist(x[inside]))


@pytest.mark.parametrize("name", titrate.TITRATIONS)
def test_level_0_is_the_embedding_itself_and_a_level_is_the_same_every_time(name):
    x, labels, batch = cells()
    effect = titrate.TITRATIONS[name]
    np.testing.assert_array_equal(effect(x, labels, batch, 0.0, 3), x)
    half = effect(x, labels, batch, 0.5, 3)
    np.testing.assert_array_equal(half, effect(x, labels, batch, 0.5, 3))
    assert not np.allclose(half, x)
    # Levels differ in strength only: half of the way at half of the level.
    np.testing.assert_allclose(half - x, (effect(x, labels, batch, 1.0, 3) - x) / 2, atol=1e-12)
    other = effect(x, labels, batch, 0.5, 4)
    assert np.allclose(half, other) == (name == "overcorrection")


def test_at_level_1_batches_are_as_far_apart_as_types_and_types_stay_as_they_are():
    x, labels, batch = cells()
    x = titrate.clean(x, labels, batch)
    moved = titrate.batch_strength(x, labels, batch, 1.0, 0)
    shifts = group_means(moved - x, batch)
    types = group_means(x, labels)
    assert np.sqrt(np.square(pdist(shifts)).mean()) == pytest.approx(
        np.sqrt(np.square(pdist(types)).mean())
    )
    np.testing.assert_allclose(moved - x, shifts.loc[batch], atol=1e-12)


def test_merged_types_have_one_mean_and_keep_their_cells_around_it():
    x, labels, batch = cells()
    merged = titrate.overcorrection(x, labels, batch, 1.0, 0)
    means = group_means(merged, labels).to_numpy()
    np.testing.assert_allclose(means, np.tile(x.mean(axis=0), (4, 1)), atol=1e-12)
    for kind in np.unique(labels):
        np.testing.assert_allclose(pdist(merged[labels == kind]), pdist(x[labels == kind]))


def test_noise_at_level_1_has_four_times_the_variance_in_all_directions():
    x, labels, batch = cells(n=4000)
    added = titrate.noise(x, labels, batch, 1.0, 0) - x
    total = x.var(axis=0).sum()
    np.testing.assert_allclose(added.var(axis=0), 4 * total / 6, rtol=0.1)


def test_batch_strength_needs_two_batches_and_two_types():
    x, labels, batch = cells()
    with pytest.raises(DataError, match="found 1 batches and 4 cell types"):
        titrate.batch_strength(x, labels, np.full(len(x), "b"), 0.5, 0)
    with pytest.raises(DataError, match="found 3 batches and 1 cell types"):
        titrate.batch_strength(x, np.full(len(x), "t"), batch, 0.5, 0)


# --- cells ----------------------------------------------------------------------------------------


def test_usable_cells_are_scored_and_labelled_and_one_type_is_isolated():
    data = task_data(n=400)
    data.scored[:20] = False
    data.cell_type[20:40] = None
    kept = response.usable(data)
    table = pd.crosstab(kept.cell_type, kept.batch)
    before = pd.crosstab(data.cell_type[40:].astype(str), data.batch[40:])
    alone = table.index[(table > 0).sum(axis=1) == 1]
    assert len(alone) == 1
    # It is the type that loses the smallest share, kept in its largest batch; others are whole.
    shares = before.max(axis=1) / before.sum(axis=1)
    assert alone[0] == shares.idxmax()
    assert table.loc[alone[0]].sum() == before.loc[alone[0]].max()
    pd.testing.assert_frame_equal(
        table.drop(alone), before.drop(alone), check_names=False, check_index_type=False
    )


def test_cells_stay_as_they_are_where_a_type_is_isolated_already_or_all_are_small():
    data = task_data()
    data.batch[data.cell_type == "t1"] = "b0"
    assert len(response.usable(data).batch) == 240
    assert len(response.usable(task_data(n=60)).batch) == 60
    data.cell_type[:] = None
    with pytest.raises(DataError, match="d: no scored cell has a label"):
        response.usable(data)


def test_subsamples_differ_by_seed_and_keep_the_order():
    data = task_data()
    data.pca_np[:, 0] = np.arange(240)
    first, again, other = (response.subsample(data, 100, s).pca_np[:, 0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 100 and (np.diff(first) > 0).all()
    assert set(first) != set(other)
    assert len(response.subsample(data, 999, 0).batch) == 240


# --- curves ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curves():
    return response.curves(task_data(n=420), levels=(0.0, 0.5, 1.0), seeds=(0, 1), n_cells=260)


def mean(curves, titration, metric, level):
    chosen = (curves["titration"] == titration) & (curves["metric"] == metric)
    return curves.loc[chosen & (curves["level"] == level), "value"].mean()


def test_every_metric_titration_level_and_seed_stands_once(curves):
    assert tuple(curves.columns) == response.CURVE_COLUMNS
    keys = curves[["titration", "level", "seed", "metric"]]
    assert not keys.duplicated().any()
    assert len(curves) == len(titrate.TITRATIONS) * 3 * 2 * len(NAMES)
    assert set(curves["metric"]) == set(NAMES)
    assert curves["value"].notna().all(), curves[curves["value"].isna()]
    assert list(dict.fromkeys(curves["titration"])) == list(titrate.TITRATIONS)


def test_level_0_is_the_same_for_all_titrations_and_is_the_tasks_own_score(curves):
    zero = curves[curves["level"] == 0].pivot(
        index=["seed", "metric"], columns="titration", values="value"
    )
    assert (zero.nunique(axis=1) == 1).all()
    data = response.subsample(response.usable(task_data(n=420)), 260, 1)
    x = titrate.clean(data.pca_np, data.cell_type.astype(str), data.batch)
    given = response._candidate(titrate.noise(x, data.cell_type, data.batch, 0.5, 1), "noise", 0)
    scores = integration.score(data, [given], seed=0, threads=1, params={})
    found = curves[
        (curves["seed"] == 1) & (curves["level"] == 0.5) & (curves["titration"] == "noise")
    ].set_index("metric")["value"]
    for score in scores:
        assert found[score.metric] == pytest.approx(score.value, abs=1e-12), score.metric


def test_batch_metrics_fall_as_batches_move_apart(curves):
    for metric in ("ilisi", "cilisi", "kbet", "pcr", "batch_total"):
        values = [mean(curves, "batch_strength", metric, level) for level in (0, 0.5, 1)]
        assert values[0] > values[1] > values[2] - 1e-9, metric
        # What PCR had to remove was little: the isolated type's batch is part of it.
        assert values[0] - values[2] > (0.05 if metric == "pcr" else 0.3), metric


def test_merged_types_take_biology(curves):
    for metric in ("clisi", "nmi_leiden", "ari_leiden", "nmi_kmeans", "silhouette_label"):
        start, end = (mean(curves, "overcorrection", metric, level) for level in (0, 1))
        assert start - end > 0.25, metric
    # Inside types nothing has moved: CiLISI says so exactly.
    start, end = (mean(curves, "overcorrection", "cilisi", level) for level in (0, 1))
    assert end == pytest.approx(start, abs=1e-9)


def test_merged_types_leave_batches_as_mixed_as_they_were(monkeypatch):
    """Batches that hold all types alike, types of more cells than LISI's 90 neighbours."""
    monkeypatch.setattr(response, "MIN_ISOLATED", 10**6)
    data = task_data(n=600)
    data.batch[:] = np.array(["b0", "b1", "b2"])[np.arange(600) // 4 % 3]
    rng = np.random.default_rng(0)
    data.pca_np = 5 * rng.normal(size=(4, 6))[np.arange(600) % 4] + rng.normal(size=(600, 6))
    found = response.curves(data, levels=(0.0, 1.0), seeds=(0,), n_cells=600)
    assert mean(found, "overcorrection", "clisi", 1) < 0.6
    assert mean(found, "overcorrection", "silhouette_label", 1) < 0.55
    start, end = (mean(found, "overcorrection", "ilisi", level) for level in (0, 1))
    # As mixed as by chance; before, 90 of a type's 150 cells left less to chance.
    chance = lisi.ilisi(exact_neighbors(rng.normal(size=(600, 6))), data.batch)
    assert start > 0.85 and end > start - 0.06
    assert end == pytest.approx(chance, abs=0.03)


def test_noise_takes_biology(curves):
    for metric in ("clisi", "nmi_leiden", "silhouette_label", "bio_total", "total"):
        assert mean(curves, "noise", metric, 0) > mean(curves, "noise", metric, 1) + 0.1, metric


def test_the_summary_of_real_curves(curves):
    found = verdicts.summarise(curves).set_index(["metric", "titration"])
    assert len(found) == 3 * len(NAMES) and (found["seeds"] == 2).all()
    assert found.loc[("ilisi", "batch_strength"), "verdict"] == "responds"
    assert found.loc[("clisi", "overcorrection"), "verdict"] == "responds"
    assert found.loc[("cilisi", "overcorrection"), "verdict"] == "flat"
    # Its share of variance shrinks with the types: less variance, fewer batches in it.
    assert found.loc[("pcr", "overcorrection"), "verdict"] == "wrong way"
    assert found.loc["pcr", "rises_with_overcorrection"].all()
    assert not found.loc["total", "rises_with_overcorrection"].any()


@pytest.mark.parametrize("levels", [(0.0,), (0.1, 1.0), (0.0, 0.5, 0.5), (0.0, 2.0)])
def test_levels_that_are_no_titration_are_refused(levels):
    with pytest.raises(DataError, match="valid: two or more, rising, from 0 to 1"):
        response.curves(task_data(), levels=levels)


def test_a_metric_without_a_value_stays_typed():
    data = task_data(n=60)
    found = response.curves(data, levels=(0.0, 1.0), seeds=(0,), n_cells=60)
    isolated = found[found["metric"] == "isolated_labels"]
    assert set(isolated["status"]) == {"not_applicable"} and isolated["value"].isna().all()
    assert isolated["reason"].str.contains("none is isolated").all()
    row = verdicts.summarise(found).set_index("metric").loc["isolated_labels"]
    assert set(row["verdict"]) == {"undefined"} and set(row["seeds"]) == {0}
    assert not row["rises_with_overcorrection"].any()


# --- verdicts on hand-made curves -----------------------------------------------------------------


def by_hand(**values):
    """One metric a keyword, two seeds that differ by .1 as a whole, over five levels."""
    rows = []
    for metric, column in values.items():
        for titration in titrate.TITRATIONS:
            for seed in (0, 1):
                for level, value in zip(np.linspace(0, 1, len(column)), column, strict=True):
                    value = value + 0.1 * seed
                    rows.append((titration, level, seed, metric, value, "ok", ""))
    return pd.DataFrame(rows, columns=list(response.CURVE_COLUMNS))


def test_verdicts_ranges_and_levels():
    found = verdicts.summarise(
        by_hand(
            ilisi=[0.2, 0.3, 0.4, 0.5, 0.6],
            clisi=[0.8, 0.79, 0.78, 0.4, 0.3],
            kbet=[0.5, 0.504, 0.501, 0.503, 0.5],
            bras=[0.5, 0.6, 0.9, 0.6, 0.5],
            pcr=[0.0] * 5,
        )
    )
    assert list(dict.fromkeys(found["metric"])) == ["bras", "ilisi", "kbet", "pcr", "clisi"]
    one = found[found["titration"] == "overcorrection"].set_index("metric")
    assert one["verdict"].to_dict() == {
        "bras": "not monotone",
        "ilisi": "wrong way",
        "kbet": "flat",
        "pcr": "flat",
        "clisi": "responds",
    }
    # Within a seed: an offset between seeds is no lack of a trend.
    assert one["spearman"]["ilisi"] == pytest.approx(1) and one["spearman"]["pcr"] == 0
    assert one["spearman"]["clisi"] == pytest.approx(-1)
    assert one.loc["clisi", ["range", "at_0", "at_end"]].tolist() == pytest.approx(
        [0.5, 0.85, 0.35]
    )
    assert one["half_at"].to_dict() == pytest.approx(
        {"bras": 0.5, "ilisi": 0.5, "kbet": 0.25, "pcr": np.nan, "clisi": 0.75}, nan_ok=True
    )
    marked = found.groupby("metric")["rises_with_overcorrection"].agg(["all", "any"])
    assert set(marked.index[marked["any"]]) == set(marked.index[marked["all"]]) == {"ilisi"}


def test_rising_with_another_titration_is_no_over_correction():
    curves = by_hand(ilisi=[0.2, 0.3, 0.4])
    falls = curves["titration"] == "overcorrection"
    curves.loc[falls, "value"] = 1 - curves.loc[falls, "value"]
    found = verdicts.summarise(curves)
    assert found["verdict"].tolist() == ["wrong way", "responds", "wrong way"]
    assert not found["rises_with_overcorrection"].any()


def test_a_seed_with_a_missing_value_is_left_out():
    curves = by_hand(clisi=[0.9, 0.5, 0.1])
    curves.loc[(curves["seed"] == 1) & (curves["level"] == 0.5), "value"] = np.nan
    found = verdicts.summarise(curves)
    assert (found["seeds"] == 1).all() and found["at_0"].tolist() == pytest.approx([0.9] * 3)


def test_expected_directions():
    expected = {
        (metric, titration): verdicts.expected_direction(metric, titration)
        for metric in ("ilisi", "clisi", "scgraph", "batch_total", "bio_total", "total")
        for titration in titrate.TITRATIONS
    }
    falls = {key for key, words in expected.items() if words == "falls"}
    assert falls == {
        ("ilisi", "batch_strength"),
        ("batch_total", "batch_strength"),
        *((m, t) for m in ("clisi", "scgraph", "bio_total") for t in ("overcorrection", "noise")),
        *(("total", t) for t in titrate.TITRATIONS),
    }
    assert set(expected.values()) == {"falls", "does not rise"}


def test_curves_without_a_column_are_refused():
    with pytest.raises(ContractError, match=r"lacks the columns \['seed'\]"):
        verdicts.summarise(by_hand(ilisi=[0, 1]).drop(columns="seed"))


# --- when a run has it ----------------------------------------------------------------------------


def test_a_run_tests_its_metrics_where_the_planted_dataset_is_labelled(repository):
    import yaml

    content = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    assert plan.dataset_of(configs.load(content)) == "pbmc68k_batches"
    others = {k: v for k, v in content["datasets"].items() if k != "pbmc68k_batches"}
    assert plan.dataset_of(configs.load({**content, "datasets": others})) is None
    entry = {**content["datasets"]["pbmc68k_batches"], "labels": None, "tasks": ["doublets"]}
    unlabelled = {**others, "pbmc68k_batches": {k: v for k, v in entry.items() if k != "splits"}}
    assert plan.dataset_of(configs.load({**content, "datasets": unlabelled})) is None
    entry = {**content["datasets"]["pbmc68k_batches"], "tasks": ["doublets"]}
    no_integration = {"pbmc68k_batches": entry}
    assert plan.dataset_of(configs.load({**content, "datasets": no_integration})) is None
