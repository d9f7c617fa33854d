"""The command line and the frame of the workflow scripts."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from morebench import cli, job
from morebench.errors import DataError
from morebench.io.outputs import Status, write_status
from morebench.paths import Paths
from morebench.plan import Run
from morebench.provenance import commit, figure_source
from morebench.registry import DATASETS, METHODS, METRICS, TASKS

CONTENT = {
    "seeds": [0, 1],
    "datasets": {
        "d": {
            "bundled": "pbmc68k_batches",
            "batch": "batch",
            "labels": {"column": "cell_type", "source": "derived"},
            "tasks": ["integration"],
        }
    },
    "methods": {"pca": None, "random": None},
}


@pytest.fixture
def configfile(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "results": str(tmp_path / "results")}))
    return path


def call(*words):
    return CliRunner().invoke(cli.app, [str(w) for w in words])


def leave(configfile, run, state, reason=""):
    paths = Paths(configfile.parent / "results")
    directory = paths.embedding(run)
    directory.mkdir(parents=True)
    status = Status(*(run.dataset, run.split, run.method, run.seed), state, reason, wall_s=1.25,
                    log=str(paths.log(run)))  # fmt: skip
    if state == "ok":
        (directory / "output.h5ad").write_text("")
    write_status(directory, status)
    return directory


@pytest.mark.parametrize(
    ("kind", "specs"),
    [("datasets", DATASETS), ("methods", METHODS), ("tasks", TASKS), ("metrics", METRICS)],
)
def test_list_names_everything(kind, specs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    found = call("list", kind)
    assert found.exit_code == 0
    words = found.stdout.replace("│", " ").split()
    assert set(specs) <= set(words)
    if kind == "methods":
        assert "n_components=30" in found.stdout and "semi-supervised" in found.stdout


def test_list_of_something_else_is_refused():
    found = call("list", "papers")
    assert found.exit_code == 2 and "datasets" in found.output


def test_check_counts_what_would_run(configfile):
    found = call("check", "--configfile", configfile)
    assert found.exit_code == 0, found.output
    assert "1 datasets, 2 methods, 3 runs, 3 expected cells" in " ".join(found.stdout.split())


def test_a_mistake_is_one_line_on_standard_error(configfile, monkeypatch, capsys):
    configfile.write_text(configfile.read_text().replace("pca", "pcaa"))
    monkeypatch.setattr(sys, "argv", ["morebench", "check", "--configfile", str(configfile)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    line = str(stop.value.code)
    assert line.startswith("error: ") and "'pcaa'; did you mean 'pca'?" in line
    assert "\n" not in line and capsys.readouterr().out == ""


def test_status_tells_done_failed_and_left(configfile):
    leave(configfile, Run("d", "all", "pca", 0), "ok")
    leave(configfile, Run("d", "all", "random", 0), "failed", "ValueError: boom")
    started = Paths(configfile.parent / "results").log(Run("d", "all", "random", 1))
    started.parent.mkdir(parents=True)
    started.write_text("")
    found = call("status", "--configfile", configfile)
    assert found.exit_code == 0, found.output
    assert "1 failed, 1 missing, 1 ok" in found.stdout
    lines = found.stdout.splitlines()
    assert any("pca" in x and " ok " in x and "1.2" in x for x in lines)
    assert any("random" in x and "ValueError: boom" in x and "0.log" in x for x in lines)
    assert any("random" in x and "missing" in x and "started" in x for x in lines)


@pytest.fixture
def commands(monkeypatch):
    found = []

    def record(command, env):
        found.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(cli.subprocess, "run", record)
    return found


@pytest.mark.faults
def test_retry_forces_what_is_not_ok_and_passes_the_exit_code_on(configfile, commands):
    leave(configfile, Run("d", "all", "pca", 0), "ok")
    bad = leave(configfile, Run("d", "all", "random", 1), "timeout", "slow")
    found = call("retry", "--configfile", configfile, "--cores", "2")
    assert found.exit_code == 3
    assert commands == [
        [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(configfile),
         "--forcerun", str(bad)]
    ]  # fmt: skip
    assert str(bad) in found.stdout.replace("\n", "")


@pytest.mark.faults
def test_retry_forces_a_scoring_that_failed(configfile, commands):
    import pandas as pd

    from morebench.evaluate import SCORE_COLUMNS
    from morebench.io.tables import write_parquet

    leave(configfile, Run("d", "all", "pca", 0), "ok")
    row = dict.fromkeys(SCORE_COLUMNS, "") | {
        "dataset": "d", "split": "all", "task": "integration", "method": "pca", "seed": 0,
        "metric": "ilisi", "status": "failed", "reason": "x",
    }  # fmt: skip
    scores = Paths(configfile.parent / "results").scores("d", "all", "integration")
    write_parquet(scores, pd.DataFrame([row]))
    call("retry", "--configfile", configfile)
    assert commands[0][-2:] == ["--forcerun", str(scores)]


def test_retry_without_faults_goes_on_with_the_run(configfile, commands):
    call("retry", "--configfile", configfile)
    assert commands == [
        [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", str(configfile)]
    ]


@pytest.fixture
def parts(tmp_path, commands):
    """Return a function: from the states of a run by three ranges to what is forced of it."""
    dataset = {**CONTENT["datasets"]["d"], "shards": {"number": 3}}
    file = tmp_path / "parts.yaml"
    content = {"seeds": [0], "datasets": {"d": dataset}, "methods": {"more": None, "pca": None}}
    file.write_text(yaml.safe_dump({**content, "results": str(tmp_path / "parts")}))
    paths, run = Paths(tmp_path / "parts"), Run("d", "all", "more", 0)

    def forced(gathered, **states):
        folders = {"run": paths.embedding(run)}
        folders |= {part: paths.shard(run, part.removeprefix("at")) for part in states}
        for part, state in {"run": gathered, **states}.items():
            if state is not None:
                folders[part].mkdir(parents=True)
            if state == "ok":
                (folders[part] / "output.h5ad").write_text("")
            if state not in (None, "none"):
                write_status(folders[part], Status("d", "all", "more", 0, state))
        found = call("retry", "--configfile", file)
        assert found.exit_code == 3, found.output
        words = commands[0][commands[0].index(str(file)) + 1 :]
        assert words[:1] == ["--forcerun"] * (len(words) > 0)
        return {name for name, folder in folders.items() if str(folder) in words[1:]}

    return forced


@pytest.mark.faults
@pytest.mark.parametrize(
    ("gathered", "states", "expected"),
    [
        # of a fit that failed the ranges follow it: they are no second job for Snakemake
        ("timeout", ("timeout", "failed", "failed", "failed"), {"run", "fit"}),
        ("failed", ("ok", "ok", "failed", "out_of_memory"), {"run", "at1", "at2"}),
        (None, ("ok", "ok", "failed", None), {"at1"}),  # killed before it was gathered
        ("failed", ("ok", "none", "ok", "ok"), {"run", "at0"}),  # a folder without a status
        ("failed", ("ok", "ok", "ok", "ok"), {"run"}),
        # a fit that cannot be had: its ranges would fail again
        ("unsupported", ("unsupported", "failed", "failed", "failed"), set()),
        (None, ("unsupported", "failed", "failed", "failed"), set()),
        (None, (None, None, None, None), set()),
        ("ok", ("ok", "ok", "ok", "ok"), set()),
    ],
)
def test_retry_forces_the_parts_that_failed(parts, gathered, states, expected):
    names = ("fit", "at0", "at1", "at2")
    assert parts(gathered, **dict(zip(names, states, strict=True))) == expected


def test_retry_forces_no_parts_of_a_method_that_knows_no_ranges(parts, tmp_path, commands):
    paths, run = Paths(tmp_path / "parts"), Run("d", "all", "pca", 0)
    for folder in (paths.embedding(run), paths.shard(run, "1")):
        folder.mkdir(parents=True)
        write_status(folder, Status("d", "all", "pca", 0, "failed"))
    assert parts(None) == set()
    assert commands[0][-2:] == ["--forcerun", str(paths.embedding(run))]


def test_help_says_what_each_command_does():
    found = call("--help")
    assert found.exit_code == 0
    for word in ("list", "check", "status", "retry"):
        assert word in found.stdout


# --- what the workflow's scripts share --------------------------------------------------------


def test_a_scripts_error_is_one_line_and_others_keep_their_traceback(monkeypatch):
    def refuse(name: str) -> None:
        raise DataError(f"{name}: no cell")

    def crash(name: str) -> None:
        raise KeyError(name)

    # a job is a process of its own: here the limit would stay, and numba refuses another one
    monkeypatch.setattr(job.threads, "limit", lambda n_threads: None)
    monkeypatch.setattr(sys, "argv", ["script", "kang"])
    with pytest.raises(SystemExit, match="^error: kang: no cell$"):
        job.run(refuse)
    with pytest.raises(KeyError, match="kang"):
        job.run(crash)


def test_the_commit_is_that_of_the_checkout(tmp_path):
    assert commit(tmp_path) == "unknown"

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    assert commit(tmp_path) == "unknown"  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "first")
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "new").write_text("not tracked: a result, say")
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head}+changes"


def test_a_figure_says_where_it_comes_from():
    found = figure_source(Path("results/tables/summary.tsv"), "abc")
    assert found["table"] == "results/tables/summary.tsv" and found["config"] == "abc"
    assert found["commit"]
