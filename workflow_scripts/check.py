"""End the run: succeed only if every expected cell has its result."""

from morebench import job  # isort: split

import sys
from pathlib import Path

from morebench.aggregate import not_accepted
from morebench.files import atomic_path
from morebench.io.tables import read_tsv


def main(manifest: Path, failures: Path, output: Path) -> None:
    """Write the marker, or name what failed and exit with 1."""
    cells = read_tsv(manifest)
    bad = not_accepted(cells)
    if len(bad):
        for row in read_tsv(failures).fillna("").itertuples():
            print(
                f"{row.dataset} / {row.split} / {row.method} / seed {row.seed}: {row.state}: "
                f"{row.reason} (log: {row.log})",
                file=sys.stderr,
            )
        sys.exit(
            f"{len(bad)} of {len(cells)} expected cells have no result; everything else is "
            f"written. See {failures}; 'make retry' runs them again."
        )
    with atomic_path(output) as temporary:
        temporary.write_text(f"all {len(cells)} expected cells are accounted for\n")


if __name__ == "__main__":
    job.run(main)
