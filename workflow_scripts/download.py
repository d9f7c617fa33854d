"""Fetch the files of a dataset, and write down which they are."""

from morebench import job  # isort: split

import json
from pathlib import Path

from morebench.data.obtain import obtain
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import Downloads
from morebench.files import write_json


def main(name: str, spec: str, downloads: str, manifest: Path) -> None:
    """Write the manifest: name, path, URL, size and hash of every file."""
    dataset = DatasetConfig.model_validate(json.loads(spec))
    told = Downloads.model_validate(json.loads(downloads))
    write_json(manifest, {"files": obtain(dataset, told, f"datasets.{name}")})


if __name__ == "__main__":
    job.run(main)
