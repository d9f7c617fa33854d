"""Where every file of a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morebench.plan import Run


@dataclass(frozen=True)
class Paths:
    """Paths below a results folder; wildcards such as ``{dataset}`` may stand for names."""

    root: Path

    def downloaded(self, dataset: str) -> Path:
        """Return the manifest of a dataset's downloads."""
        return self.root / "downloads" / f"{dataset}.json"

    def prepared(self, dataset: str) -> Path:
        """Return the prepared dataset."""
        return self.root / "prepared" / f"{dataset}.h5mu"

    def prepared_part(self, dataset: str, part: str) -> Path:
        """Return a side file of prepare: ``json``, ``qc.parquet``, ``top_genes.parquet``."""
        return self.root / "prepared" / f"{dataset}.{part}"

    def truth(self, dataset: str) -> Path:
        """Return the truth table."""
        return self.root / "truth" / f"{dataset}.parquet"

    def split(self, dataset: str, split: str) -> Path:
        """Return the split table; its sidecar has the suffix ``.json``."""
        return self.root / "splits" / dataset / f"{split}.parquet"

    def input(self, dataset: str, split: str, part: str = "h5ad") -> Path:
        """Return the input of a split, or a side file (``json``, ``genes.parquet``)."""
        return self.root / "inputs" / dataset / f"{split}.{part}"

    def features(self, dataset: str, split: str, backbone: str) -> Path:
        """Return the directory of a split's frozen features."""
        return self.root / "features" / dataset / split / backbone

    @property
    def feature_cache(self) -> Path:
        """Where frozen features and vectors of texts are kept for good."""
        return self.root / "features" / "cache"

    def embedding(self, run: Run) -> Path:
        """Return the directory of a run."""
        return self.root / "embeddings" / run.dataset / run.split / run.method / str(run.seed)

    def shard(self, run: Run, part: str) -> Path:
        """Return the directory of a part of a run by ranges: ``fit``, or the range's number."""
        return self.root / "shards" / run.dataset / run.split / run.method / str(run.seed) / part

    def shard_features(self, dataset: str, split: str, backbone: str, part: str) -> Path:
        """Return the directory of a range's frozen features."""
        return self.root / "shards" / dataset / split / "features" / backbone / part

    def scores(self, dataset: str, split: str, task: str) -> Path:
        """Return the scores of a (dataset, split, task)."""
        return self.root / "scores" / dataset / split / f"{task}.parquet"

    def pooled(self, dataset: str, part: str) -> Path:
        """Return what is pooled over held-out batches: annotation, differences, crosstab."""
        return self.root / "pooled" / dataset / f"{part}.parquet"

    def umap(self, dataset: str, split: str) -> Path:
        """Return UMAP coordinates of a (dataset, split)."""
        return self.root / "umap" / dataset / f"{split}.parquet"

    def table(self, name: str) -> Path:
        """Return a table, ``scores.tsv`` say."""
        return self.root / "tables" / name

    def figure(self, name: str) -> Path:
        """Return a figure without its suffix's PNG preview, ``{dataset}/qc.svg`` say."""
        return self.root / "figures" / name

    @property
    def report(self) -> Path:
        """The web report."""
        return self.root / "report" / "index.html"

    def log(self, run: Run) -> Path:
        """Return the log of a run."""
        return self.log_of("embed", run.dataset, run.split, run.method, str(run.seed))

    def log_of(self, stage: str, *names: str) -> Path:
        """Return the log of a stage's job."""
        return self.root.joinpath("logs", stage, *names[:-1], f"{names[-1]}.log")
