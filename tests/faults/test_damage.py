"""One flipped bit in any file of a run: who reads it refuses it by name and writes nothing.

Scripts run in this process, with the very words that Snakemake ran them with.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
from contextlib import ExitStack, contextmanager

import pytest
import typer

from morebench.errors import Damaged
from tests.faults.conftest import LIMIT_S, covered, jobs

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]

RUN = ("embed", "evaluate")
# Files below results, and the scripts that must refuse a damaged one. None: nothing reads it.
READERS = {
    "config.yaml": ("aggregate", "write_report"),
    "downloads/*.json": ("prepare",),
    "prepared/*.h5mu": ("split", "make_input"),
    "prepared/*.json": ("aggregate", "draw_qc", "write_report"),
    "prepared/*.parquet": ("draw_qc",),
    "truth/tiny.parquet": ("split", "evaluate", "pool_annotation", "compute_umap", "selftest"),
    "truth/tiny__noise.parquet": ("split", "evaluate", "pool_annotation"),
    "truth/*": ("split",),
    "splits/tiny/all.*": ("make_input", "evaluate", "selftest"),
    "splits/*/all.*": ("make_input",),
    "splits/*": ("evaluate", "pool_annotation"),
    "inputs/tiny/all.h5ad": ("make_features", *RUN, "pool_annotation", "compute_umap", "selftest"),
    "inputs/tiny__noise/all.h5ad": (*RUN, "pool_annotation"),
    "inputs/*.h5ad": None,  # of datasets that no method is run on
    "inputs/*.genes.parquet": ("draw_qc",),
    "inputs/*.json": ("draw_qc",),
    "shards/*/features/*": ("gather_features", "embed"),
    "shards/*/fit/status.json": ("gather", "embed"),
    "shards/*/fit/model.safetensors": ("gather", "embed"),
    "shards/*/fit/output.h5ad": None,  # of the sample; its cells are embedded with their range
    "shards/*": ("gather",),
    "features/tiny/*": ("embed",),
    "features/cache/*": "made anew",
    "embeddings/tiny/*/status.json": ("evaluate", "pool_annotation", "compute_umap", "aggregate"),
    "embeddings/tiny/*": ("evaluate", "pool_annotation", "compute_umap"),
    "embeddings/*/status.json": ("evaluate", "pool_annotation", "aggregate"),
    "embeddings/*": ("evaluate", "pool_annotation"),
    "scores/*": ("aggregate",),
    "pooled/*": ("aggregate",),
    "umap/*": ("draw_umap",),
    "tables/summary.tsv": ("draw_scores", "write_report"),
    "tables/selftest.tsv": ("draw_selftest", "draw_scores", "write_report"),
    "tables/selftest_curves.tsv": ("draw_selftest",),
    "tables/annotation_crosstab.tsv": ("draw_agreement",),
    "tables/annotation_types.tsv": ("draw_types",),
    "tables/annotation_pooled.tsv": ("draw_types",),
    "tables/annotation_*.tsv": None,
    "tables/robustness.tsv": ("draw_robustness",),
    "tables/manifest.tsv": ("check", "write_report"),
    "tables/run.json": ("write_report",),
    "tables/check.txt": None,
    "tables/*": ("write_report",),
    "figures/*": ("write_report",),
    "report/index.html": None,
}


def readers_of(name):
    """The first pattern that a name goes with decides."""
    return next(readers for pattern, readers in READERS.items() if fnmatch.fnmatch(name, pattern))


@pytest.fixture(scope="module")
def commands(undisturbed):
    """(script, its words) of every job of the run."""
    found = re.findall(r"workflow_scripts/(\w+)\.py (.+?) 2?>>? results/logs", undisturbed.output)
    return [(script, shlex.split(words)) for script, words in found]


@pytest.fixture
def at_home(undisturbed, monkeypatch):
    monkeypatch.chdir(undisturbed.root)
    monkeypatch.setenv("MOREBENCH_ROOT", str(undisturbed.root))
    monkeypatch.setenv("MOREBENCH_CONFIG_HASH", "0")
    monkeypatch.setattr("morebench.selftest.plan.DATASET", "tiny")  # as in the project's copy
    return undisturbed


def call(project, script, words):
    """Run a script as its job did, but for its process; return what it raised."""
    path = project.root / "workflow_scripts" / f"{script}.py"
    spec = importlib.util.spec_from_file_location(f"script_{script}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    try:
        typer.main.get_command(app).main(words, standalone_mode=False)
    except (Exception, SystemExit) as error:
        return error
    return None


def jobs_with(commands, script, name):
    """Return the words of a script's jobs that are given a file, one beside it, or its folder."""
    folder = f"results/{os.path.dirname(name)}"
    mine = [w for of, w in commands if of == script and w[0] != folder]  # which it makes
    assert mine, f"no job of the run runs {script}"
    file, stem = re.escape(f"results/{name}"), re.escape(f"results/{os.path.splitext(name)[0]}.")
    for pattern in (rf"{file}(?!\w)", stem, rf"{re.escape(folder)}(?!\w)"):
        found = [w for w in mine if re.search(pattern, " ".join(w))]
        if found:
            return found
    return mine


def content(project):
    return {n: hashlib.sha256(p.read_bytes()).digest() for n, p in project.written().items()}


@contextmanager
def damaged(path, damage):
    """Put a damaged copy into a file's place, and the file back: it may be shared by a link."""
    kept, made = path.with_name(f"{path.name}.kept"), path.with_name(f"{path.name}.made")
    made.write_bytes(damage(path.read_bytes()))
    os.replace(path, kept)
    os.replace(made, path)
    try:
        yield
    finally:
        os.replace(kept, path)


def flipped(whole):
    """Change one bit somewhere: the same one every time, another one for other content."""
    place = int.from_bytes(hashlib.sha256(whole).digest()[:8], "big") % (8 * len(whole))
    made = bytearray(whole)
    made[place // 8] ^= 1 << place % 8
    return bytes(made)


DAMAGE = {"flipped": flipped, "truncated": lambda whole: whole[: len(whole) // 2]}


def test_every_file_of_a_run_has_readers_or_is_said_to_have_none(undisturbed):
    names = [n for n in undisturbed.written() if covered(n)]
    assert len(names) > 40
    for name in names:
        readers_of(name)  # StopIteration: a kind of file that this test does not know
    used = {next(p for p in READERS if fnmatch.fnmatch(n, p)) for n in names}
    assert used == set(READERS), "kinds of files that the run no longer makes"


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_never_read(at_home, commands, damage):
    before = content(at_home)
    refusals = 0
    for name, path in at_home.written().items():
        readers = readers_of(name) if covered(name) else None
        if not isinstance(readers, tuple):
            continue
        with damaged(path, DAMAGE[damage]):
            for script in readers:
                asked = jobs_with(commands, script, name)
                refused = [call(at_home, script, words) for words in asked]
                told = [e for e in refused if isinstance(e, Damaged) and path.name in str(e)]
                # of jobs that are given the file itself each one, else one at least
                given = [w for w in asked if f"results/{name}" in w]
                assert len(told) >= max(len(given), 1), f"{script} read a damaged {name}: {refused}"
                assert all("run again" in str(e) for e in told)
                refusals += len(told)
        assert content(at_home) == before, f"{name}: something was written"
    assert refusals > 150


def test_a_damaged_checksum_is_no_pass(at_home, commands):
    for name in ("truth/tiny.parquet.sha256", "embeddings/tiny/all/pca/0/SHA256SUMS"):
        words = next(
            w for s, w in commands if s == "evaluate" and w[0].endswith("integration.parquet")
        )
        with damaged(at_home.root / "results" / name, lambda c: b"0" * 64 + c[64:]):
            error = call(at_home, "evaluate", words)
        assert isinstance(error, Damaged) and "0" * 64 in str(error)


def test_a_damaged_cache_of_features_is_made_anew(at_home, commands, tmp_path):
    words = next(w for s, w in commands if s == "make_features")
    (before,) = [p.read_bytes() for p in (at_home.root / words[0]).glob("*.f16")]
    cache = at_home.root / "results/features/cache"
    with ExitStack() as stack:
        for path in [*cache.rglob("*.f16"), *cache.rglob("*.npz")]:
            stack.enter_context(damaged(path, flipped))
        assert call(at_home, "make_features", [str(tmp_path / "made"), *words[1:]]) is None
    assert [p.read_bytes() for p in (tmp_path / "made").glob("*.f16")] == [before]


def test_what_the_error_says_repairs_the_run(faulty, undisturbed):
    """Through Snakemake: the consuming rule fails, the named folder is deleted, all is well."""
    project = faulty("repaired")
    for name in ("results", ".snakemake"):
        shutil.copytree(undisturbed.root / name, project.root / name)  # times are kept
    shutil.copy(undisturbed.root / "data.lock", project.root)  # of what the run has fetched
    folder = project.root / "results/embeddings/tiny/all/pca/0"
    path = folder / "output.h5ad"
    path.write_bytes(flipped(path.read_bytes()))
    again = ("--forcerun", "results/scores/tiny/all/integration.parquet")
    done = project.snakemake(*again)
    assert done.returncode != 0
    said = re.search(r"error: (\S+): its SHA-256 is .* delete the folder (\S+) and", done.stdout)
    assert said and (project.root / said[1]).samefile(path), done.stdout
    shutil.rmtree(project.root / said[2])
    assert not folder.exists()
    done = project.snakemake(*again, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    started = jobs(done.stdout)[0]
    assert "run pca on tiny / all, seed 0" in started
    assert not [
        m for m in started if m.startswith(("prepare", "split", "input", "run more", "fit"))
    ]
    assert project.tables() == undisturbed.tables()
