"""Join the frozen features of all ranges of a dataset."""

from morebench import job  # isort: split

from pathlib import Path

from morebench import shards


def main(output: Path, parts: list[Path]) -> None:
    """Write a directory with the features and their sidecar."""
    shards.gather_features(output, parts)


if __name__ == "__main__":
    job.run(main)
