"""Quality control against plain numpy and scipy."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import median_abs_deviation

from morebench.data.qc import METRICS, cut_offs, qc_metrics, top_genes
from morebench.data.spec import QC

GENES = pd.Index(
    ["MT-CO1", "MT-ND1", "RPS3", "RPL10", "Rpl4", "mt-Co2", "MTOR", "ACTB"]
    + [f"G{i}" for i in range(32)]
)


@pytest.fixture
def dense():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(0, 1, 40) * rng.lognormal(0, 0.8, (150, 1)))
    counts[7] = 0  # a cell without counts
    return counts.astype(np.float32)


def metrics_of(dense, genes=GENES, **qc):
    return qc_metrics(sp.csr_matrix(dense), genes, QC(**qc))


def test_metrics_equal_plain_sums(dense):
    found = metrics_of(dense)
    assert tuple(found.columns) == METRICS
    total = dense.astype(float).sum(1)
    np.testing.assert_array_equal(found["n_genes"], (dense > 0).sum(1))
    np.testing.assert_allclose(found["total_counts"], total)
    full = total > 0
    for column, members in (("pct_mt", [0, 1, 5]), ("pct_ribo", [2, 3, 4])):
        expected = 100 * dense[full][:, members].sum(1) / total[full]
        np.testing.assert_allclose(found[column][full], expected, rtol=1e-5)
    assert found.iloc[7][["n_genes", "total_counts"]].tolist() == [0, 0]


def test_prefixes_are_settings(dense):
    found = metrics_of(dense, mt_prefixes=["MTOR"], ribo_prefixes=[])
    full = dense.sum(1) > 0
    expected = 100 * dense[full, 6] / dense[full].sum(1)
    np.testing.assert_allclose(found["pct_mt"][full], expected, rtol=1e-5)
    assert found["pct_ribo"].isna().all()


def test_an_absent_family_is_not_applicable_and_removes_nobody(dense):
    names = pd.Index([f"P{i}" for i in range(40)])
    found = metrics_of(dense, names)
    assert found["pct_mt"].isna().all() and found["pct_ribo"].isna().all()
    assert found[["n_genes", "total_counts"]].notna().all(axis=None)
    keep, records = cut_offs(found, QC(max_pct_mt=0.0, mads={"pct_ribo": 1}))
    assert keep.all()
    assert [(r["metric"], r["rule"], r["removed"], r["applicable"]) for r in records] == [
        ("pct_mt", "fixed", 0, False),
        ("pct_ribo", "mad 1", 0, False),
    ]
    assert records[1]["low"] is None and records[1]["high"] is None


def test_nothing_is_cut_by_default(dense):
    keep, records = cut_offs(metrics_of(dense), QC())
    assert keep.all() and records == []


def test_mad_limits_equal_the_closed_form(dense):
    found = metrics_of(np.delete(dense, 7, axis=0))
    keep, records = cut_offs(found, QC(mads={"n_genes": 2, "total_counts": 1.5, "pct_mt": 2.5}))
    expected = np.ones(len(found), dtype=bool)
    assert len(records) == 3
    for record, width in zip(records, (2, 1.5, 2.5), strict=True):
        values = found[record["metric"]].to_numpy()
        log = record["metric"] != "pct_mt"
        x = np.log1p(values) if log else values
        low = np.median(x) - width * median_abs_deviation(x)
        high = np.median(x) + width * median_abs_deviation(x)
        if log:
            assert record["low"] == pytest.approx(np.expm1(low))
            assert record["high"] == pytest.approx(np.expm1(high))
            beyond = (x < low - 1e-12) | (x > high + 1e-12)
        else:  # a small share of mitochondrial counts is no fault
            assert record["low"] is None and record["high"] == pytest.approx(high)
            beyond = x > high + 1e-12
        assert record["rule"] == f"mad {width:g}" and record["applicable"]
        assert record["removed"] == beyond.sum() > 0
        expected &= ~beyond
    np.testing.assert_array_equal(keep, expected)


def test_fixed_limits_are_inclusive_and_counted_one_by_one():
    found = pd.DataFrame(
        {
            "n_genes": [10.0, 20, 30, 40],
            "total_counts": [100.0, 200, 300, 400],
            "pct_mt": [1.0, 50, 5, np.nan],
            "pct_ribo": np.nan,
        }
    )
    qc = QC(min_genes=20, max_genes=30, min_counts=200, max_counts=1000, max_pct_mt=5)
    keep, records = cut_offs(found, qc)
    assert keep.tolist() == [False, False, True, False]
    assert [(r["metric"], r["low"], r["high"], r["removed"]) for r in records] == [
        ("n_genes", 20, 30, 2),  # the first and the last
        ("total_counts", 200, 1000, 1),  # the first once more
        ("pct_mt", None, 5, 1),  # the one without a value passes
    ]
    assert cut_offs(found, QC(max_pct_mt=5))[0].tolist() == [True, False, True, True]


def test_cells_without_a_value_do_not_move_the_median():
    values = np.arange(1.0, 12)
    found = pd.DataFrame({m: values for m in METRICS})
    more = pd.concat([found, pd.DataFrame({m: [np.nan] * 50 for m in METRICS})])
    one, two = (cut_offs(f, QC(mads={"pct_mt": 1}))[1][0] for f in (found, more))
    assert one == two == {
        "metric": "pct_mt", "rule": "mad 1", "low": None, "high": 9.0, "removed": 2,
        "applicable": True,
    }  # fmt: skip


def test_top_genes_equal_a_dense_computation(dense):
    found = top_genes(sp.csr_matrix(dense), GENES, n_top=6)
    full = dense[dense.sum(1) > 0].astype(float)
    share = 100 * full / full.sum(1, keepdims=True)
    order = np.argsort(-share.mean(0), kind="stable")[:6]
    assert list(found["gene"]) == list(GENES[order])
    assert list(found.columns) == ["gene", "q05", "q25", "q50", "q75", "q95"]
    for column, q in (("q05", 5), ("q25", 25), ("q50", 50), ("q75", 75), ("q95", 95)):
        np.testing.assert_allclose(found[column], np.percentile(share, q, axis=0)[order], rtol=1e-5)


def test_top_genes_of_a_small_panel_and_ties_in_the_order_of_the_panel():
    counts = sp.csr_matrix(np.array([[1, 2, 1], [1, 2, 1]], dtype=np.float32))
    found = top_genes(counts, pd.Index(["b", "c", "a"]))
    assert list(found["gene"]) == ["c", "b", "a"]
    assert found["q50"].tolist() == [50.0, 25.0, 25.0]
