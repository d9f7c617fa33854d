"""Write docs/results.md from the tables of a finished run.

    python docs/make_results.py results/real

Mean over seeds and, behind it, the smallest and the largest; a method without a value has the
word for why. Controls stand last and are never ranked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

PAGE = Path(__file__).resolve().parent / "results.md"
HEAD = """# Results on real data

Made by `python docs/make_results.py {results}` from the tables of
`MOREBENCH_DATA=/path/to/data snakemake --cores 2 --configfile config/real.yaml`
(configuration {config_hash}, commit {commit}). Development sets may have been tuned on, reporting
sets not, but that MoRE's `noise_weight` was also tried on ding and baron (one seed, three values;
the development sets alone say the same). `laughney` has labels from markers, so its scores say
little. Means over seeds, with the smallest and largest where there are several. What each column
is: [README](../README.md). A dagger marks what rises when types are merged, as the self-test of the
metrics finds.
"""


def spread(values: pd.Series) -> str:
    """Return the mean, and the range of several values."""
    values = values.dropna()
    if not len(values):
        return ""
    text = f"{values.mean():.3f}"
    if len(values) > 1 and values.max() - values.min() >= 0.0005:
        text += f" ({values.min():.3f} to {values.max():.3f})"
    return text


def markdown(frame: pd.DataFrame, corner: str) -> str:
    """Return a table in Markdown; rows keep their order."""
    lines = ["| " + " | ".join([corner, *map(str, frame.columns)]) + " |"]
    lines.append("|" + "---|" * (len(frame.columns) + 1))
    for name, row in frame.iterrows():
        lines.append("| " + " | ".join([str(name), *map(str, row)]) + " |")
    return "\n".join(lines)


def wide(scores: pd.DataFrame, titles: dict[str, str], columns: list[str]) -> pd.DataFrame:
    """Return methods by columns, each cell the spread of its seeds or why there is none.

    ``scores`` has ``method``, ``column``, ``seed``, ``status`` and ``value``, one row a seed.
    """
    cells: dict[str, dict[str, str]] = {}
    for (method, column), group in scores.groupby(["method", "column"], sort=False):
        if group["seed"].duplicated().any():
            sys.exit(f"{method}, {column}: more than one value of a seed")
        bad = [s for s in group["status"] if s != "ok"]
        text = bad[0].replace("_", " ") if bad else spread(group["value"])
        cells.setdefault(str(method), {})[str(column)] = text
    kept = [m for m in titles if m in cells]
    columns = [d for d in columns if any(d in row for row in cells.values())]
    rows = [[cells[m].get(d, "") for d in columns] for m in kept]
    return pd.DataFrame(rows, index=[titles[m] for m in kept], columns=columns)


# The split or the kind of split, the metric, and the words above the table.
INTEGRATION = (
    ("all", "total", "Integration without labels: total"),
    (
        "all",
        "batch_total",
        "Integration without labels: batch removal (of which BRAS and PCR rise †)",
    ),
    ("all", "bio_total", "Integration without labels: biology kept"),
    ("all", "scgraph", "Integration without labels: scGraph"),
    ("partial", "total", "Half of the labels shown, hidden cells: total"),
    ("partial", "bras", "Half of the labels shown, hidden cells: BRAS †"),
)
POOLED = (
    ("macro_f1", "macro F1"),
    ("macro_f1_voted", "macro F1 after majority voting"),
    ("macro_f1_knn", "macro F1 of the nearest shown cells in the embedding"),
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
)
RARE = 0.02  # of a set's scored cells
AGREEING = ("more_sup", "celltypist")
SET_ASIDE = (
    ("unseen", "macro_f1", "Batches never seen (zero-shot): macro F1"),
    (
        "unseen",
        "unseen_ilisi",
        "Batches never seen, embedded: iLISI of their cells with those seen",
    ),
    ("unseen", "unseen_nmi", "Batches never seen, embedded: NMI of their cells' Leiden clusters"),
    ("newtype", "unknown_auroc", "Types never shown: AUROC of unknown"),
    ("newtype", "unseen_nmi", "Types never shown, embedded with other unseen cells: NMI"),
    ("all", "auprc", "Doublets: AUPRC"),
    ("all", "auroc", "Doublets: AUROC"),
    ("all", "recall_at_rate", "Doublets: recall at the true rate"),
)


def rare_types(types: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a value of each type below ``RARE`` of the scored cells, one column a type.

    Types that a split does not show are left out: nobody can be right there.
    """
    total = types.groupby(["dataset", "method", "seed"])["n_cells"].transform("sum")
    rows = types[(types["n_cells"] < RARE * total) & (types["n_shown"] == types["n_cells"])]
    column = rows["dataset"] + " " + rows["cell_type"] + " (" + rows["n_cells"].astype(str) + ")"
    return rows.assign(column=column, value=rows[value], status="ok", share=rows["n_cells"] / total)


def batch_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over the held-out batches of a set, or why there is none."""
    rows = []
    keys = ["method", "dataset", "seed"]
    for (method, dataset, seed), group in scores.groupby(keys, sort=False):
        bad = group.loc[group["status"] != "ok", "status"]
        status = bad.iloc[0] if len(bad) else "ok"
        rows.append((method, dataset, seed, status, group["value"].mean()))
    return pd.DataFrame(rows, columns=["method", "column", "seed", "status", "value"])


def agreement(table: pd.DataFrame, titles: dict[str, str]) -> str:
    """Return how far two methods give cells the same label, by set."""
    pair = table[table[["method", "other"]].isin(AGREEING).all(axis=1)]
    pair = pair.drop_duplicates(["dataset", "seed"])  # a pair stands there both ways
    shown = pair[["dataset", "share", "kappa", "n_cells"]].set_index("dataset").round(3)
    shown = shown.astype({"n_cells": object})
    words = f"## Agreement of {titles[AGREEING[0]]} with {titles[AGREEING[1]]}"
    return f"{words}, held-out batches\n\n{markdown(shown, 'set')}\n"


def main() -> None:
    """Read the tables, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--note", default="", help="what a reader should know of this run")
    given = parser.parse_args()
    tables = given.results / "tables"
    if not (tables / "run.json").exists():
        sys.exit(f"{tables}/run.json: not there; valid: the results of a finished run")

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(tables / f"{name}.tsv", sep="\t", keep_default_na=False, na_values=[""])

    run = pd.read_json(tables / "run.json", typ="series")
    methods, datasets = read("methods"), read("datasets")
    methods = methods.sort_values("track", key=lambda t: t == "control", kind="stable")
    titles = dict(zip(methods["name"], methods["title"], strict=True))
    order = list(datasets["name"])
    scores, pooled, runtime = read("scores"), read("annotation_pooled"), read("runtime")
    page = [
        HEAD.format(results=given.results, config_hash=run["config_hash"], commit=run["commit"])
    ]
    uses = ", ".join(f"{n} ({u})" for n, u in zip(order, datasets["use"], strict=True))
    page.append(f"Sets: {uses}.\n")
    if given.note:
        page.append(f"{given.note}\n")

    def add(words: str, rows: pd.DataFrame, columns: list[str], note: str = "") -> None:
        if len(rows):
            table = markdown(wide(rows, titles, columns), "method")
            page.append(f"## {words}\n\n{note}{table}\n")

    scores = scores.assign(column=scores["dataset"])
    for split, metric, words in INTEGRATION:
        add(words, scores[(scores["split"] == split) & (scores["metric"] == metric)], order)
    pooled = pooled.assign(column=pooled["dataset"])
    for metric, words in POOLED:
        rows = pooled[pooled["metric"] == metric]
        add(f"Annotation of held-out batches, pooled: {words}", rows, order)
    types = read("annotation_types")
    for value, words in (("f1", "F1"), ("recall", "recall")):
        rows = rare_types(types, value)
        words = f"Types below {RARE:.0%} of the cells, held-out batches (scored cells): {words}"
        note = (
            f"The rarest that a split shows has {rows['share'].min():.2%} of its set's cells: "
            "[robustness.md](robustness.md)\ntakes NK cells down to .05 %.\n\n"
        )
        add(words, rows, list(dict.fromkeys(rows["column"])), note)
    lobo = scores["split"].str.startswith("lobo-") & (scores["metric"] == "calibration")
    words = "Calibration in held-out batches: 1 - expected error, their mean"
    add(words, batch_means(scores[lobo]), order)
    page.append(agreement(read("annotation_agreement"), titles))
    for kind, metric, words in SET_ASIDE:
        here = (scores["split"].str.split("-").str[0] == kind) & (scores["metric"] == metric)
        rows = scores[here].copy()
        if kind != "all":  # a set may have several of them
            rows["column"] = rows["dataset"] + " " + rows["split"].str.split("-", n=1).str[1]
        add(words, rows, list(dict.fromkeys(rows["column"])))
    rows = runtime[(runtime["state"] == "ok") & (runtime["split"] == "all")]
    cost = rows.assign(value=rows["cpu_s"], status="ok", column=rows["dataset"])
    note = (
        "MoRE's frozen features are made once and not counted here; scANVI's own scVI neither.\n\n"
    )
    add("Seconds of CPU of one run on all cells", cost, order, note)
    PAGE.write_text("\n".join(page))
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()
