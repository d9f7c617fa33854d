"""Run one method on one split with one seed, in a process of its own."""

from morebench import job  # isort: split

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from morebench import environments, runner, shards
from morebench.io.outputs import MODEL_FILE, Status, read_status
from morebench.io.prepared import read_shown_truth
from morebench.io.splits import read_split


def main(
    output: Path,
    input_file: Annotated[Path, typer.Option("--input")],
    settings: Annotated[str, typer.Option()],
    dataset: Annotated[str, typer.Option()],
    split: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    log: Annotated[Path, typer.Option()],
    root: Annotated[Path, typer.Option(envvar="MOREBENCH_ROOT", help="has envs/ and .venvs/")],
    threads: Annotated[int, typer.Option()],
    mem_mb: Annotated[float, typer.Option()],
    gpu: Annotated[int, typer.Option()],
    runtime_min: Annotated[float, typer.Option()],
    attempt: Annotated[int, typer.Option()] = 1,
    attempts: Annotated[int, typer.Option()] = 1,
    labels: Annotated[Path | None, typer.Option()] = None,
    truth: Annotated[Path | None, typer.Option(help="of all cells, for controls")] = None,
    all_genes: Annotated[Path | None, typer.Option()] = None,
    features: Annotated[Path | None, typer.Option()] = None,
    pretrained: Annotated[Path | None, typer.Option(help="run whose model to start from")] = None,
    this_environment: Annotated[bool, typer.Option()] = False,
    part: Annotated[str, typer.Option(help="of a dataset with shards: see shards.part_of")] = "",
) -> None:
    """Write the run's directory: its status always, its output when ok."""
    method = json.loads(settings)
    given = {"input": input_file, "all_genes": all_genes, "features": features}
    files = {name: path for name, path in given.items() if path is not None}
    if pretrained is not None and read_status(pretrained).state == "ok":
        files["pretrained"] = pretrained / MODEL_FILE
    shown = None
    if labels is not None:
        table = read_split(labels)
        shown = (table["cell_id"].to_numpy(dtype=object), table["label"].to_numpy(dtype=object))
    if truth is not None:
        shown = read_shown_truth(truth, method["truth"])
    status = Status(
        dataset, split, method["name"], seed, "failed", attempt=attempt, log=log.as_posix()
    )
    what = f"{dataset} / {split} / {method['name']} / seed {seed}"
    try:
        python = Path(sys.executable)
        if not this_environment:
            python = environments.interpreter(method["environment"], root=root, on_progress=print)
        with shards.part_of(files, shown, method["outputs"], part) as (files, shown, outputs):
            status = runner.run(
                {**method, "outputs": outputs},
                status,
                files={runner.INPUT_NAMES[k]: path for k, path in files.items()},
                labels=shown,
                output=output,
                limits=runner.Limits(threads, mem_mb, runtime_min * 60, gpu),
                interpreter=python,
                attempts=attempts,
            )
    except shards.NoModel as error:
        status.reason = str(error)
        runner.write_unrun(output, status)
    except environments.EnvironmentBuildError as error:
        print(error, file=sys.stderr)
        status.reason = f"its environment could not be made: {str(error).splitlines()[0]}"
        runner.write_unrun(output, status)
    except runner.RetryWithMoreMemory as error:
        sys.exit(f"{what}: out of memory in attempt {attempt} of {attempts}: {error}")
    took = f"{status.wall_s:.1f} s, {status.peak_rss_mb:.0f} MiB"
    why = f": {status.reason} (log: {log})" if status.reason else ""
    print(f"{what}: {status.state} in {took}{why}", flush=True)


if __name__ == "__main__":
    job.run(main)
