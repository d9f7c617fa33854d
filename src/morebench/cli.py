"""The command line: MoRE on your cells; what there is, whether a configuration holds, a run."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from morebench.cli_more import commands
from morebench.errors import MorebenchError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
commands.register(app)
ConfigFile = Annotated[Path, typer.Option("--configfile", help="configuration of the run")]
DEFAULT_CONFIG = Path("config/config.yaml")


class Kind(StrEnum):
    """What ``list`` can show."""

    datasets = "datasets"
    methods = "methods"
    tasks = "tasks"
    metrics = "metrics"


@app.command("list")
def list_(kind: Kind) -> None:
    """List the bundled datasets, methods, tasks or metrics."""
    from rich.console import Console
    from rich.table import Table

    from morebench import registry

    specs = getattr(registry, kind.name.upper())
    extra = {
        Kind.datasets: ("params",),
        Kind.methods: ("track", "outputs", "environment", "params", "source"),
        Kind.tasks: ("splits", "outputs", "needs"),
        Kind.metrics: ("task", "aspect", "in_total", "rises"),
    }[kind]
    table = Table("name", "title", *extra)
    for spec in specs.values():
        cells = [getattr(spec, k) for k in extra]
        table.add_row(spec.name, spec.title, *(_words(c) for c in cells))
    Console().print(table)


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if hasattr(value, "items"):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return str(value)


@app.command()
def check(configfile: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check a configuration and the data that it names, without running anything."""
    from morebench import plan
    from morebench.config import load_file
    from morebench.preflight import check as preflight

    config = load_file(configfile)
    preflight(config)
    print(
        f"{configfile}: {len(config.datasets)} datasets, {len(config.methods)} methods, "
        f"{len(plan.runs(config))} runs, {len(plan.expected(config))} expected cells"
    )


@app.command()
def geo(accession: str, configfile: ConfigFile = DEFAULT_CONFIG) -> None:
    """List the supplementary files of a GEO series (GSE...) or sample (GSM...)."""
    from morebench.config import load_file
    from morebench.data.geo import list_files

    print("\n".join(list_files(accession, load_file(configfile).downloads).files))


@app.command()
def download(configfile: ConfigFile = DEFAULT_CONFIG) -> None:
    """Fetch the files of all datasets from the web, so that a run needs no network."""
    from morebench.config import load_file
    from morebench.data.obtain import obtain

    config = load_file(configfile)
    for name, dataset in config.datasets.items():
        if dataset.remote and dataset.derive is None:
            for file in obtain(dataset, config.downloads, f"datasets.{name}"):
                print(f"{name}: {file['path']}, {file['size']:,} bytes")


@app.command()
def status(configfile: ConfigFile = DEFAULT_CONFIG) -> None:
    """Show how far a run is: what is done, what is left, and the logs of what failed."""
    from rich.console import Console
    from rich.table import Table

    from morebench.aggregate import MISSING, statuses
    from morebench.config import load_file
    from morebench.paths import Paths

    config = load_file(configfile)
    paths = Paths(Path(config.results))
    found = statuses(config, paths)
    table = Table("dataset", "split", "method", "seed", "state", "seconds", "reason", "log")
    counts: dict[str, int] = {}
    for run, one in found.items():
        state = one.state if one is not None else MISSING
        counts[state] = counts.get(state, 0) + 1
        log = paths.log(run)
        if one is not None and one.state == "ok":
            cells = (f"{one.wall_s:.1f}", "", "")
        elif one is not None:
            cells = (f"{one.wall_s:.1f}", one.reason, one.log)
        else:
            cells = ("", "started" if log.exists() else "", str(log) if log.exists() else "")
        table.add_row(run.dataset, run.split, run.method, str(run.seed), state, *cells)
    console = Console()
    console.print(table)
    console.print(", ".join(f"{n} {state}" for state, n in sorted(counts.items())))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def retry(
    context: typer.Context,
    configfile: ConfigFile = DEFAULT_CONFIG,
    cores: Annotated[str, typer.Option(help="as snakemake --cores")] = "all",
) -> None:
    """Run again every method run and scoring that failed, and what rests on it.

    Further options go to snakemake as they are: --profile, --sdm and the like.
    """
    from morebench.config import load_file
    from morebench.paths import Paths
    from morebench.retry import outputs_to_repeat

    config = load_file(configfile)
    bad = outputs_to_repeat(config, Paths(Path(config.results)))
    command = [sys.executable, "-m", "snakemake", "--cores", cores, *context.args]
    if configfile != DEFAULT_CONFIG:
        command += ["--configfile", str(configfile)]
    if bad:
        print(f"again: {', '.join(map(str, bad))}")
        command += ["--forcerun", *map(str, bad)]
    raise typer.Exit(subprocess.run(command, env=os.environ).returncode)


@app.command()
def canary(
    methods: Annotated[list[str] | None, typer.Argument(help="all configured ones if none")] = None,
    configfile: ConfigFile = DEFAULT_CONFIG,
    root: Annotated[Path, typer.Option(help="checkout that holds envs/ and .venvs/")] = Path(),
) -> None:
    """Look for leaks: no method's output may change when labels that it must not see do."""
    import tempfile

    from rich.console import Console
    from rich.table import Table

    from morebench.canary import watch_methods
    from morebench.canary_world import canary_config
    from morebench.config import closest, load_file, methods_of
    from morebench.errors import ConfigError
    from morebench.registry import ACCEPTED_STATES

    given = load_file(configfile)
    for name in methods or []:
        if name not in given.methods:
            raise ConfigError(f"{name!r} is not configured; {closest(name, given.methods)}")
    chosen = {k: v for k, v in given.methods.items() if not methods or k in methods}
    table, bad = Table("method", "outcome", "reason"), 0
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        config = canary_config(world, chosen)
        for verdict in watch_methods(methods_of(config), world, config, root=root):
            table.add_row(verdict.method, verdict.outcome, verdict.reason)
            bad += verdict.outcome not in ("passed", "exempt", *ACCEPTED_STATES)
    Console().print(table)
    raise typer.Exit(int(bad > 0))


@app.command()
def crate(
    results: Annotated[Path, typer.Argument(help="folder of a finished run")],
    output: Annotated[Path, typer.Argument(help="folder, or file that ends in .zip")],
) -> None:
    """Write a finished run as an RO-Crate: tables, figures, statuses, configuration, code."""
    from morebench.crate import write_crate

    print(f"{output}: {write_crate(results, output)} files and their metadata")


@app.command()
def environments(
    root: Annotated[Path, typer.Option(help="checkout that holds envs/ and .venvs/")] = Path(),
) -> None:
    """Make the virtual environments of methods whose pins conflict with the main one."""
    from morebench.environments import interpreter
    from morebench.registry import ENVIRONMENTS

    for name, spec in ENVIRONMENTS.items():
        if spec.isolated:
            print(f"{name}: {interpreter(name, root=root, on_progress=print)}")


def main() -> None:
    """Run the command line; an error that a user can act on is one line."""
    try:
        app()
    except MorebenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
