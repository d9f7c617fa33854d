"""Write docs/results.md from the tables of a finished run.

    python docs/make_results.py results/real

Mean over seeds and, behind it, the smallest and the largest; a method without a value has the
word for why. Controls stand below the line and are never ranked.
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
is: [README](../README.md).
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


def wide(scores: pd.DataFrame, titles: dict[str, str], datasets: list[str]) -> pd.DataFrame:
    """Return methods by datasets, each cell the spread of its seeds or why there is none."""
    cells: dict[str, dict[str, str]] = {}
    for (method, dataset), group in scores.groupby(["method", "dataset"], sort=False):
        bad = [s for s in group["status"] if s != "ok"]
        text = bad[0].replace("_", " ") if bad else spread(group["value"])
        cells.setdefault(str(method), {})[str(dataset)] = text
    kept = [m for m in titles if m in cells]
    columns = [d for d in datasets if any(d in row for row in cells.values())]
    rows = [[cells[m].get(d, "") for d in columns] for m in kept]
    return pd.DataFrame(rows, index=[titles[m] for m in kept], columns=columns)


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
    for split, metric, words in (
        ("all", "total", "Integration without labels: total"),
        ("all", "batch_total", "Integration without labels: batch removal"),
        ("all", "bio_total", "Integration without labels: biology kept"),
        ("all", "scgraph", "Integration without labels: scGraph"),
        ("partial", "total", "Half of the labels shown, hidden cells: total"),
        ("partial", "bras", "Half of the labels shown, hidden cells: BRAS"),
    ):
        rows = scores[(scores["split"] == split) & (scores["metric"] == metric)]
        if len(rows):
            page.append(f"## {words}\n\n{markdown(wide(rows, titles, order), 'method')}\n")
    for metric, words in (("macro_f1", "macro F1"), ("accuracy", "accuracy")):
        rows = pooled[pooled["metric"] == metric]
        if len(rows):
            head = f"## Annotation of held-out batches, pooled: {words}"
            page.append(f"{head}\n\n{markdown(wide(rows, titles, order), 'method')}\n")
    rest = scores[scores["split"].str.startswith(("unseen-", "newtype-"))]
    for metric, words in (
        ("macro_f1", "Batches never seen (zero-shot): macro F1"),
        ("unseen_ilisi", "Cells never seen, embedded (zero-shot): iLISI with those seen"),
        ("unseen_nmi", "Cells never seen, embedded (zero-shot): NMI of their Leiden clusters"),
        ("unknown_auroc", "Types never shown: AUROC of unknown"),
        ("auprc", "Doublets: AUPRC"),
        ("recall_at_rate", "Doublets: recall at the true rate"),
    ):
        of = scores if metric in ("auprc", "recall_at_rate") else rest
        rows = of[of["metric"] == metric]
        if len(rows):
            page.append(f"## {words}\n\n{markdown(wide(rows, titles, order), 'method')}\n")
    rows = runtime[(runtime["state"] == "ok") & (runtime["split"] == "all")]
    cost = rows.assign(value=rows["cpu_s"], status="ok")
    page.append(
        "## Seconds of CPU of one run on all cells\n\nMoRE's frozen features are made once and not "
        "counted here; scANVI's own scVI neither.\n\n"
        f"{markdown(wide(cost, titles, order), 'method')}\n"
    )
    PAGE.write_text("\n".join(page))
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()
