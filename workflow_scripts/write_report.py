"""Write the web report of a run."""

from morebench import job  # isort: split

from pathlib import Path

from morebench.report.build import build_report
from morebench.report.context import read_context


def main(output: Path, config: Path) -> None:
    """Write ``index.html``; figures are linked by paths relative to it."""
    build_report(output, title="morebench", context=read_context(config.parent))


if __name__ == "__main__":
    job.run(main)
