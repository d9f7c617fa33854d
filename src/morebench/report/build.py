"""The web report: one ``index.html`` from the tables and figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd

from morebench.errors import ContractError, listed
from morebench.files import atomic_path
from morebench.plots.selftest import rising_metrics
from morebench.registry import split_kind
from morebench.report.context import ReportContext
from morebench.report.figures import FigureLink, link_figure, link_path
from morebench.report.scores import SCORE_COLUMNS, ScoreTable, score_table
from morebench.report.selftest import selftest_table
from morebench.report.tables import (
    MANIFEST_COLUMNS,
    SPLITS,
    Table,
    cost_table,
    need_columns,
    plain_table,
    problem_table,
    split_table,
    state_counts,
    threshold_table,
)

_DATASET_HEAD = {
    "title": "Dataset", "name": "Name", "cells": "Cells", "genes": "Genes",
    "batches": "Batches", "types": "Types", "label_source": "Labels by", "use": "Use",
}  # fmt: skip
_METHOD_HEAD = {
    "title": "Method", "name": "Name", "track": "Track", "source": "Source",
    "version": "Version", "licence": "Licence", "params": "Parameters",
}  # fmt: skip


@dataclass
class _TaskSection:
    title: str
    figure: FigureLink | None
    table: ScoreTable | None


@dataclass
class _SplitSection:
    name: str
    shows: str
    umap: FigureLink | None
    tasks: list[_TaskSection]


@dataclass
class _DatasetSection:
    anchor: str
    name: str
    title: str
    qc: FigureLink | None
    thresholds: Table | None
    annotation: list[FigureLink]
    curves: FigureLink | None
    splits: list[_SplitSection]


@dataclass
class _SelftestSection:
    figure: FigureLink | None
    table: Table


def build_report(
    out_html: str | Path, *, title: str, context: ReportContext, embed: bool = False
) -> None:
    """Write the report as one HTML file that needs no network.

    Figures are PNG previews that link to their SVG, by paths relative to the report: the
    results folder travels as a whole. Equal inputs give an equal file.

    Parameters
    ----------
    out_html
        File to write.
    title
        Title of the page.
    context
        Tables, figures and settings.
    embed
        Put the previews into the file itself, for a report that travels alone; the links
        to the SVG files then work only beside them.

    Raises
    ------
    ContractError
        If a table lacks a column, or a dataset of the other tables is not in ``datasets``.
    DataError
        If a figure or its preview does not exist.
    """
    import jinja2

    out = Path(out_html)
    need_columns(context.manifest, MANIFEST_COLUMNS, "manifest")
    need_columns(context.summary, ("dataset", "split", "task"), "summary")
    need_columns(context.scores, SCORE_COLUMNS, "scores")
    datasets = plain_table(context.datasets, _DATASET_HEAD, "Datasets, as prepared", "datasets")
    methods = plain_table(
        context.methods, _METHOD_HEAD, "Methods, their versions and parameters", "methods"
    )
    method_titles = dict(zip(context.methods["name"], context.methods["title"], strict=True))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("morebench.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title,
        counts=state_counts(context.manifest),
        problems=problem_table(context.manifest, context.failures),
        what_ran=[datasets, methods, split_table(context.manifest)],
        sections=_sections(out, context, embed),
        selftest=_selftest_section(out, context, embed),
        cost=cost_table(context.runtime, method_titles),
        tables={name: link_path(path, out) for name, path in context.tables.items()},
        settings=context.settings_yaml,
        provenance=dict(context.provenance),
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _sections(out: Path, context: ReportContext, embed: bool) -> list[_DatasetSection]:
    """Collect what the report shows of each dataset, in the order of the datasets table."""
    known = list(context.datasets["name"].astype(str))
    named = {
        "manifest": set(context.manifest["dataset"].astype(str)),
        "summary": set(context.summary["dataset"].astype(str)),
        "thresholds": set(context.thresholds),
        "qc_figures": set(context.qc_figures),
        "type_figures": set(context.type_figures),
        "agreement_figures": set(context.agreement_figures),
        "curve_figures": set(context.curve_figures),
        "umap_figures": {dataset for dataset, _ in context.umap_figures},
        "score_figures": {dataset for dataset, _, _ in context.score_figures},
    }
    for where, names in named.items():
        unknown = sorted(str(n) for n in names if n not in known)
        if unknown:
            raise ContractError(f"{where}: datasets {unknown} are not in datasets: {listed(known)}")
    sections = []
    for i, row in enumerate(context.datasets.to_dict("records"), start=1):
        name, title = str(row["name"]), str(row["title"])
        splits = dict.fromkeys(
            str(split)
            for frame in (context.manifest, context.summary)
            for split in _of(frame, dataset=name)["split"]
        )
        splits |= dict.fromkeys(split for dataset, split in context.umap_figures if dataset == name)
        splits |= dict.fromkeys(s for dataset, s, _ in context.score_figures if dataset == name)

        def link(figures: Mapping[str, Path], alt: str, name: str = name) -> FigureLink | None:
            return link_figure(figures[name], out, alt, embed) if name in figures else None

        qc = link(
            context.qc_figures,
            f"Quality control of {title}: cells by batch, variance of components, genes",
        )
        annotation = [
            link(context.type_figures, f"F1 of the cell types of {title} by every method"),
            link(
                context.agreement_figures,
                f"Who calls what what in {title}: annotators against the truth and each other",
            ),
        ]
        curves = link(
            context.curve_figures,
            f"Scores on {title} as counts, labels or cells of a type are taken away",
        )
        thresholds = None
        if name in context.thresholds and len(context.thresholds[name]):
            thresholds = threshold_table(context.thresholds[name], title)
        shown = [_split_section(out, context, embed, name, title, split) for split in splits]
        filled = [s for s in shown if s.umap or s.tasks]
        sections.append(
            _DatasetSection(
                f"dataset-{i}",
                name,
                title,
                qc,
                thresholds,
                [f for f in annotation if f],
                curves,
                filled,
            )
        )
    return sections


def _selftest_section(out: Path, context: ReportContext, embed: bool) -> _SelftestSection | None:
    """Collect how the metrics answered to effects of known strength."""
    if context.selftest is None:
        return None
    figure = None
    if context.selftest_figure is not None:
        alt = "Every metric against batches that move apart, merged types and noise"
        figure = link_figure(context.selftest_figure, out, alt, embed)
    return _SelftestSection(figure, selftest_table(context.selftest, context.metric_titles))


def _split_section(
    out: Path, context: ReportContext, embed: bool, dataset: str, title: str, split: str
) -> _SplitSection:
    """Collect the figures and tables of one dataset and split."""
    umap = None
    if (dataset, split) in context.umap_figures:
        alt = f"UMAP of every method on {title}, split {split}, by cell type and by batch"
        umap = link_figure(context.umap_figures[dataset, split], out, alt, embed)
    here = _of(context.summary, dataset=dataset, split=split)
    tasks = dict.fromkeys(here["task"].astype(str))
    tasks |= dict.fromkeys(t for d, s, t in context.score_figures if (d, s) == (dataset, split))
    shown = []
    for task in tasks:
        task_title = context.task_titles.get(task, task)
        caption = f"{task_title}: {title}, split {split}"
        figure, table = None, None
        if (dataset, split, task) in context.score_figures:
            alt = f"Scores of {caption}; the table below holds the same numbers"
            path = context.score_figures[dataset, split, task]
            figure = link_figure(path, out, alt, embed)
        summary = _of(here, task=task)
        if len(summary):
            table = score_table(
                summary,
                _of(context.scores, dataset=dataset, split=split, task=task),
                context.metric_titles,
                caption,
                context.rank_by.get(task, "total"),
                rising_metrics(context.selftest),
            )
        shown.append(_TaskSection(task_title, figure, table))
    kind = SPLITS.get(split_kind(split), "")
    return _SplitSection(split, kind, umap, shown)


def _of(frame: pd.DataFrame, **values: str) -> pd.DataFrame:
    """Return the rows in which the columns have these values."""
    chosen = pd.Series(True, index=frame.index)
    for column, value in values.items():
        chosen &= frame[column].astype(str) == value
    return frame[chosen]
