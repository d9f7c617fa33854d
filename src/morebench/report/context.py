"""What the report shows of a run, read from its results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from morebench.config import load_file
from morebench.files import read_json, verify
from morebench.io.tables import read_tsv
from morebench.paths import Paths
from morebench.plan import pooled, scored
from morebench.registry import METRICS, TASKS
from morebench.robustness.plan import curves
from morebench.selftest.plan import dataset_of

TABLES = ("scores", "summary", "runtime", "failures", "manifest", "methods", "datasets")


@dataclass
class ReportContext:
    """All that the report shows; tables as they are written to ``results/tables``.

    Attributes
    ----------
    datasets : DataFrame
        ``name, title, cells, genes, batches, types, label_source, use``.
    methods : DataFrame
        ``name, title, track, source, version, licence, params``.
    manifest : DataFrame
        ``dataset, split, method, seed, state`` of every expected run.
    failures : DataFrame
        ``dataset, split, method, seed, state, reason, log``.
    scores : DataFrame
        ``dataset, split, task, method, track, seed, metric, value, ci_low, ci_high,
        n_cells, coverage, status, reason``.
    summary : DataFrame
        ``dataset, split, task, method, title, track, metric, aspect, mean, sd, n_seeds,
        status``.
    runtime : DataFrame
        ``dataset, split, method, seed, state, wall_s, cpu_s, peak_rss_mb,
        parameters_trained, parameters_frozen, hardware``.
    metric_titles
        Metric to its title, in the order of the columns.
    task_titles
        Task to its title.
    thresholds
        Dataset to its QC thresholds: ``metric, low, high, rule, removed``.
    qc_figures
        Dataset to the SVG of its QC figure; the PNG preview lies beside each SVG.
    umap_figures
        (dataset, split) to the SVG of its UMAP grid.
    score_figures
        (dataset, split, task) to the SVG of its score table.
    type_figures, agreement_figures
        Dataset to the SVG of F1 by cell type, and of who calls what what, where batches are
        held out.
    curve_figures
        Dataset to the SVG of its robustness curves, where others are derived of it.
    tables
        Name to the path of a written table, linked from the report.
    settings_yaml
        The resolved configuration.
    provenance
        Facts such as ``commit``, ``config hash`` and package versions.
    rank_by
        Task to the metric that ranks its methods (``total`` where not given).
    selftest
        The self-test's verdicts: ``metric, titration, spearman, range, at_0, at_end, half_at,
        seeds, expected, verdict, rises_with_overcorrection``; None where the run has no self-test.
    selftest_figure
        The SVG of its curves.
    """

    datasets: pd.DataFrame
    methods: pd.DataFrame
    manifest: pd.DataFrame
    failures: pd.DataFrame
    scores: pd.DataFrame
    summary: pd.DataFrame
    runtime: pd.DataFrame
    metric_titles: Mapping[str, str]
    task_titles: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    qc_figures: Mapping[str, Path] = field(default_factory=dict)
    umap_figures: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    score_figures: Mapping[tuple[str, str, str], Path] = field(default_factory=dict)
    type_figures: Mapping[str, Path] = field(default_factory=dict)
    agreement_figures: Mapping[str, Path] = field(default_factory=dict)
    curve_figures: Mapping[str, Path] = field(default_factory=dict)
    tables: Mapping[str, Path] = field(default_factory=dict)
    settings_yaml: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    rank_by: Mapping[str, str] = field(default_factory=dict)
    selftest: pd.DataFrame | None = None
    selftest_figure: Path | None = None


def told_by_cell(manifest: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """Give each expected cell the reason of its run, which may be shared with other splits.

    Parameters
    ----------
    manifest : DataFrame
        Expected cells; ``split`` is where a cell is scored, ``fitted_on`` where it ran.
    failures : DataFrame
        One row a run (by the split it ran on) or a scoring.

    Returns
    -------
    DataFrame
        ``failures`` with the rows of shared runs repeated for each split they are scored on.
    """
    keys = ["dataset", "method", "seed"]
    cells = manifest.loc[manifest["state"] != "ok", [*keys, "split", "fitted_on"]]
    shared = cells[cells["split"] != cells["fitted_on"]].drop_duplicates()
    told = failures.rename(columns={"split": "fitted_on"})
    again = told.assign(**{k: told[k].astype(str) for k in keys}).merge(
        shared.assign(**{k: shared[k].astype(str) for k in keys}), on=[*keys, "fitted_on"]
    )
    return pd.concat([failures, again[list(failures.columns)]], ignore_index=True)


def read_context(results: Path) -> ReportContext:
    """Read tables, figures' paths and settings of a finished run."""
    config_file = results / "config.yaml"
    verify(config_file)
    config, paths = load_file(config_file), Paths(results)
    tables = {name: paths.table(f"{name}.tsv") for name in TABLES}
    frames = {name: read_tsv(path) for name, path in tables.items()}
    # A cell that ran but could not be scored is a failure too.
    manifest = frames["manifest"]
    manifest["state"] = manifest["state"].where(manifest["state"] != "ok", manifest["scoring"])
    frames["failures"] = told_by_cell(manifest, frames["failures"])
    facts = read_json(paths.table("run.json"))
    provenance = {k: str(facts[k]) for k in ("commit", "config_hash", "python")}
    provenance |= {k: str(v) for k, v in facts["packages"].items()}
    keys = scored(config)
    tested = dataset_of(config) is not None
    if tested:
        tables |= {n: paths.table(f"{n}.tsv") for n in ("selftest", "selftest_curves")}
    bases = list(dict.fromkeys(curve.base for curve in curves(config)))
    if bases:
        tables["robustness"] = paths.table("robustness.tsv")
    umaps = {(d, s): paths.figure(f"{d}/umap-{s}.svg") for d, s, _ in keys}
    return ReportContext(
        **frames,
        metric_titles={name: m.title for name, m in METRICS.items()},
        task_titles={name: t.title for name, t in TASKS.items()},
        thresholds={
            name: pd.DataFrame(read_json(paths.prepared_part(name, "json"))["thresholds"])
            for name in config.datasets
        },
        qc_figures={name: paths.figure(f"{name}/qc.svg") for name in config.datasets},
        umap_figures={key: path for key, path in umaps.items() if path.exists()},
        score_figures={(d, s, t): paths.figure(f"{d}/scores-{s}-{t}.svg") for d, s, t in keys},
        type_figures={name: paths.figure(f"{name}/types.svg") for name in pooled(config)},
        agreement_figures={name: paths.figure(f"{name}/agreement.svg") for name in pooled(config)},
        curve_figures={name: paths.figure(f"{name}/robustness.svg") for name in bases},
        tables=tables,
        settings_yaml=config_file.read_text(),
        provenance=provenance,
        rank_by={name: t.rank_by for name, t in TASKS.items()},
        selftest=read_tsv(tables["selftest"]) if tested else None,
        selftest_figure=paths.figure("selftest.svg") if tested else None,
    )
