"""Write docs/robustness.md, and its figure, from the tables of a finished run.

    python docs/make_robustness.py results/robustness

A value and, behind it, its low and high ends as `tables/robustness.tsv` has them; a point without a
value has the word for why. Words that are no numbers stand in `--note`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml
from make_results import markdown

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "robustness.md"
HEAD = """# Robustness

Made by `python docs/make_robustness.py {results}` from the tables of
`MOREBENCH_DATA=/path/to/data snakemake --cores 2 --configfile config/robustness.yaml`
(configuration {config_hash}, commit {commit}), whose {runs} runs of methods took {minutes:.0f}
minutes of CPU. Counts, labels and cells of a type are taken away from {base}; the first column is
the base. Annotation is of the held-out batches {batches}, together; an embedding gives a cell the
label of its nearest labelled cells. In brackets the smallest and largest value over draws and seeds
or, of one value, its 95 % interval over cells; a titration counts the cells of its draws together.
What is changed and how: [configuration](../config/README.md#derived-datasets).
"""
CHANGES = {
    "dropout": "Dropout: that share of the counts above 0 is lost",
    "depth": "Depth: that share of the molecules is kept",
    "label_noise": "Label noise: that share of the shown labels is wrong",
    "label_missing": "Missing labels: that share of the shown labels is hidden",
    "titration": "Titration: the share of {cell_type} in all cells",
}
MEASURES = {
    ("all", "total"): "Integration: total",
    ("all", "batch_total"): "Integration: batch removal",
    ("all", "bio_total"): "Integration: biology kept",
    ("lobo", "accuracy"): "Annotation: accuracy",
    ("lobo", "macro_f1"): "Annotation: macro F1",
    ("lobo", "type_f1"): "F1 of {cell_type}",
    ("lobo", "type_recall"): "Recall of {cell_type}",
}


def value(row: pd.Series) -> str:
    """Return a point as text: mean and interval, or the word for why there is none."""
    if row["status"] != "ok":
        return str(row["status"]).replace("_", " ")
    if pd.isna(row["low"]) or row["high"] - row["low"] < 0.0005:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Return methods by levels, in the order of the table."""
    words = [f"{100 * level:.3g} %" for level in rows["level"]]
    cells = rows.assign(text=rows.apply(value, axis=1), word=words)
    found = cells.pivot(index="title", columns="word", values="text").fillna("")
    return found.loc[list(dict.fromkeys(cells["title"])), list(dict.fromkeys(cells["word"]))]


def sections(table: pd.DataFrame) -> list[str]:
    """Return the tables of every change, in the order of the table of curves."""
    page = []
    for (change, cell_type), curve in table.groupby(["change", "cell_type"], sort=False):
        page.append(f"### {CHANGES[str(change)].format(cell_type=cell_type)}\n")
        for (split, metric), words in MEASURES.items():
            rows = curve[(curve["split"] == split) & (curve["metric"] == metric)]
            if not len(rows):
                continue
            head = words.format(cell_type=cell_type)
            page.append(f"{head}:\n\n{markdown(wide(rows), 'method')}\n")
            if change == "titration":
                scored = rows.groupby("level", sort=False)["n_cells"].max()
                listed = ", ".join(f"{n} at {100 * level:.3g} %" for level, n in scored.items())
                page.append(f"Scored cells of the type, all draws: {listed}.\n")
    return page


def main() -> None:
    """Read the tables, write the page and copy the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--note", default="", help="what a reader should know of this run")
    given = parser.parse_args()
    tables = given.results / "tables"
    if not (tables / "robustness.tsv").exists():
        sys.exit(
            f"{tables}/robustness.tsv: not there; valid: the results of a finished run of a "
            "configuration with derived datasets"
        )

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(tables / f"{name}.tsv", sep="\t", keep_default_na=False, na_values=[""])

    run = pd.read_json(tables / "run.json", typ="series")
    curves, datasets, runtime = read("robustness"), read("datasets"), read("runtime")
    curves["cell_type"] = curves["cell_type"].fillna("")
    titles = dict(zip(datasets["name"], datasets["title"], strict=True))
    manifest = read("manifest")
    settings = yaml.safe_load((given.results / "config.yaml").read_text())
    page = []
    for base, table in curves.groupby("dataset", sort=False):
        held = manifest[(manifest["dataset"] == base) & manifest["split"].str.startswith("lobo-")]
        batches = ", ".join(s.removeprefix("lobo-") for s in dict.fromkeys(held["split"]))
        page.append(
            HEAD.format(
                results=settings["results"], config_hash=run["config_hash"], commit=run["commit"],
                runs=len(runtime), minutes=runtime["cpu_s"].sum() / 60, base=titles[str(base)],
                batches=batches,
            )
        )  # fmt: skip
        if given.note:
            page.append(f"{given.note}\n")
        figure = DOCS / "images" / f"robustness-{base}.png"
        shutil.copyfile(given.results / "figures" / str(base) / "robustness.png", figure)
        page.append(f"![Robustness curves of {titles[str(base)]}](images/{figure.name})\n")
        page += sections(table)
    PAGE.write_text("\n".join(page))
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()
