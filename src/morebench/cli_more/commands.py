"""The commands of MoRE: fit a model on cells, then embed and annotate cells with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morebench.errors import DataError, Unsupported, listed

if TYPE_CHECKING:
    from rich.progress import Progress

    from morebench.models.more.model import MoRE


class Device(StrEnum):
    """Where torch computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Data = Annotated[
    Path, typer.Argument(help="cells with raw counts: .h5ad, or .h5mu for several modalities")
]
Folder = Annotated[Path, typer.Option("--model", help="folder of the model")]
Output = Annotated[
    Path, typer.Option(help="a copy of DATA (.h5ad or .h5mu, as DATA), or a table: .tsv, .parquet")
]
OtherBatchKey = Annotated[
    str | None, typer.Option("--batch-key", help="column of batches; default: that of the fit")
]
OtherLayer = Annotated[
    str | None, typer.Option("--layer", help="layer of raw counts; default: that of the fit")
]
Where = Annotated[Device, typer.Option("--device", help="auto takes a GPU where there is one")]
Threads = Annotated[int | None, typer.Option(min=1, help="of torch; default: torch's own choice")]
Cache = Annotated[Path | None, typer.Option(help="folder that keeps frozen features")]
Force = Annotated[bool, typer.Option("--force", help="replace what is there")]


def register(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    for command in (fit, embed, annotate, settings):
        app.command()(command)


def fit(
    data: Data,
    model: Folder,
    batch_key: Annotated[str | None, typer.Option(help="column of obs: batches")] = None,
    labels_key: Annotated[str | None, typer.Option(help="column of obs: cell types")] = None,
    unlabeled: Annotated[
        str | None, typer.Option(help="value of that column that says: not known")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="layer of raw counts; default: X")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; see: morebench settings")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    device: Where = Device.auto,
    threads: Threads = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Fit MoRE on cells, with or without labels, and write the model."""
    from morebench.cli_more import files
    from morebench.cli_more.settings import settings_of

    chosen = settings_of(assignments or ())
    files.check_input(data)
    files.check_model_target(model, force)
    files.check_cache(cache)
    where = _device(device)
    cells = files.read_cells(data, layer)
    files.check_columns(cells, batch_key, labels_key, unlabeled)

    from morebench.models.more.model import MoRE

    with _progress() as bar:
        fitted = MoRE.fit(
            cells, batch_key, labels_key, unlabeled=unlabeled, layer=layer, settings=chosen,
            seed=seed, device=where, threads=threads, cache=cache, progress=_stages(bar),
        )  # fmt: skip
    fitted.save(model)
    print(fitted.summary())
    print(f"wrote {model}")


def embed(
    data: Data,
    model: Folder,
    output: Output,
    batch_key: OtherBatchKey = None,
    layer: OtherLayer = None,
    device: Where = Device.auto,
    threads: Threads = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Write the embedding of cells: obsm["X_more"] of a copy, or a table."""
    from morebench.cli_more import files
    from morebench.models.more.devices import threads_of

    files.check_output(output, data, force)
    files.check_cache(cache)
    fitted, cells = _ready(data, model, batch_key, layer, device, cache)
    with threads_of(threads), _progress() as bar:
        bar.add_task("embedding", total=None)
        z_nd = fitted.embed(cells)
    files.write_embedding(cells, z_nd, output)
    _done(fitted, cells, output, f"{z_nd.shape[1]} dimensions")


def annotate(
    data: Data,
    model: Folder,
    output: Output,
    batch_key: OtherBatchKey = None,
    layer: OtherLayer = None,
    device: Where = Device.auto,
    threads: Threads = None,
    cache: Cache = None,
    force: Force = False,
) -> None:
    """Write the types of cells: obs["more_label"] and its probability, or a table."""
    from morebench.cli_more import files
    from morebench.models.more.devices import threads_of

    files.check_output(output, data, force)
    files.check_cache(cache)
    fitted, cells = _ready(data, model, batch_key, layer, device, cache, with_labels=True)
    with threads_of(threads), _progress() as bar:
        bar.add_task("annotation", total=None)
        found = fitted.annotate(cells)
    files.write_annotation(cells, found, output)
    _done(fitted, cells, output, f"{int(found.unknown.sum())} of them unknown")


def settings(
    page: Annotated[
        Path | None, typer.Option(help="write the tables into this page, between their marks")
    ] = None,
) -> None:
    """List the settings of MoRE: default and meaning of each."""
    from morebench.cli_more import settings as tables

    if page is None:
        for name in tables.TABLES:
            print(f"{name}\n\n{tables.table(name)}\n")
        return
    if not page.is_file():
        raise DataError(f"--page: there is no file {page}")
    from morebench.files import atomic_path

    text = tables.with_tables(page.read_text(), str(page))
    with atomic_path(page, checksum=False) as temporary:
        temporary.write_text(text)


def _ready(
    data: Path,
    folder: Path,
    batch_key: str | None,
    layer: str | None,
    device: Device,
    cache: Path | None,
    *,
    with_labels: bool = False,
) -> tuple[MoRE, Any]:
    """Return the model and the cells; what is wrong with the model is found first."""
    from morebench.cli_more import files

    files.check_input(data)

    from morebench.models.more.model import MoRE

    fitted = MoRE.load(folder, device=_device(device)).with_features(cache)
    if with_labels and fitted.annotator is None:
        raise Unsupported(f"{folder}: was fitted without labels; fit it with --labels-key")
    fitted.batch_key = batch_key or fitted.batch_key
    fitted.layer = layer or fitted.layer
    cells = files.read_cells(data, fitted.layer)
    files.check_columns(cells, fitted.batch_key)
    return fitted, cells


def _device(device: Device) -> str:
    from morebench.models.more.devices import choose_device

    return choose_device(device.value)


def _done(fitted: MoRE, cells: Any, output: Path, what: str) -> None:
    if fitted.batch_key is not None:
        seen = set(fitted.batches)
        new = [b for b in cells.obs[fitted.batch_key].astype(str).unique() if b not in seen]
        if new:
            print(f"batches that the fit has not seen, served by estimates: {listed(new)}")
    print(f"wrote {output}: {cells.n_obs} cells, {what}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show what is under way on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        yield bar


def _stages(bar: Progress) -> Callable[[int, int], None]:
    """Return what tells the bar of training steps; before the first, features are made."""
    before = bar.add_task("cells and frozen features", total=None)
    training = bar.add_task("training steps", total=None, start=False)

    def report(done: int, total: int) -> None:
        if not bar.tasks[training].started:
            bar.update(before, completed=1, total=1)
            bar.start_task(training)
        bar.update(training, completed=done, total=total)

    return report
