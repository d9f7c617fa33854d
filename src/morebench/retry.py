"""What a second try has to make anew: the outputs of a run that say that they failed."""

from __future__ import annotations

from pathlib import Path

from morebench.aggregate import scores_table, statuses
from morebench.config import Config, methods_of
from morebench.errors import ContractError
from morebench.io.outputs import STATUS_FILE, read_status
from morebench.paths import Paths
from morebench.plan import Run
from morebench.registry import ACCEPTED_STATES


def outputs_to_repeat(config: Config, paths: Paths) -> list[Path]:
    """Return the outputs that Snakemake does not make again by itself, since they are there.

    Those of runs and scorings that failed. What rests on them follows, and so does what is missing.
    """
    methods = methods_of(config)
    found = []
    for run, status in statuses(config, paths).items():
        if status is not None and status.state in ACCEPTED_STATES:
            continue
        if status is not None:
            found.append(paths.embedding(run))
        shards = config.datasets[run.dataset].shards
        if shards is not None and methods[run.method].spec.sharded:
            found += _parts_to_repeat(run, shards.number, paths)
    scores = scores_table(config, paths)
    failed = scores.loc[scores["status"] == "failed", ["dataset", "split", "task"]]
    keys = failed.drop_duplicates().itertuples(index=False)
    return found + [paths.scores(*key) for key in keys]


def _parts_to_repeat(run: Run, number: int, paths: Paths) -> list[Path]:
    """Return the parts of a run by ranges that failed: what was gathered of them only says so.

    The ranges follow the fit. After a fit that cannot be had (``unsupported``) they have failed
    for want of a model, and would again.
    """
    fit = paths.shard(run, "fit")
    state = _state(fit)
    if state != "ok":
        return [] if state is None or state in ACCEPTED_STATES else [fit]
    ranges = [paths.shard(run, str(i)) for i in range(number)]
    return [part for part in ranges if _state(part) not in (None, *ACCEPTED_STATES)]


def _state(part: Path) -> str | None:
    """Return the state of a part; None where it is not there, failed where its status is none."""
    if not (part / STATUS_FILE).exists():
        return "failed" if part.exists() else None
    try:
        return read_status(part).state
    except ContractError:
        return "failed"
