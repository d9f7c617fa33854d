"""SIGKILL anywhere: nothing runs on, nothing is lost but what ran, the tables are the same."""

import pytest

from tests.faults.conftest import LIMIT_S, PATIENCE_S, jobs, kill, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]

# What jobs make below results that can run at the same time, and are killed before it is there; in
# the order of the DAG. Every script that a rule runs makes one of them.
STAGES = (
    ("downloads/fetched.json", "downloads/table.json", "prepared/tiny.h5mu", "config.yaml"),
    ("splits/tiny/all.json",),
    ("inputs/tiny/all.h5ad",),
    ("embeddings/tiny/all/pca/0", "shards/tiny/all/features/{backbone}/1", "tables/selftest.tsv"),
    ("features/tiny/all/{backbone}",),
    ("shards/tiny/all/more/0/fit",),
    ("shards/tiny/all/more/0/1",),
    ("embeddings/tiny/all/more/0",),
    ("scores/tiny/all/integration.parquet", "scores/tiny/lobo-batch1/annotation.parquet"),
    ("pooled/tiny/annotation.parquet", "umap/tiny/all.parquet"),
    ("tables/manifest.tsv",),
    (
        "figures/selftest.svg", "figures/tiny/qc.svg", "figures/tiny/umap-all.svg",
        "figures/tiny/types.svg", "figures/tiny/agreement.svg", "figures/tiny/robustness.svg",
        "figures/tiny/scores-all-integration.svg",
    ),
    ("report/index.html",),
    ("tables/check.txt",),
)  # fmt: skip
GONE = "Process {}, an earlier run, was killed: its lock is removed."


def processes_end(project):
    wait_for(lambda: not project.processes())


def test_snakemake_and_its_jobs_are_killed_in_every_stage(faulty, undisturbed):
    """In each stage the jobs are killed and run again, then Snakemake is, while they work."""
    project = faulty("killed")
    (backbone,) = (p.name for p in (undisturbed.root / "results/features/tiny/all").iterdir())
    finished: set[str] = set()
    killed: set[str] = set()
    before = None
    for stage in STAGES:
        names = [name.format(backbone=backbone) for name in stage]
        targets = [f"results/{name}" for name in names]
        cores = max(2, len(names))
        project.hold(*names)
        running = project.start("--retries", "1", "--", *targets, cores=cores)
        first = project.held(running)
        killed |= {project.script_of(pid) for pid in first}
        for pid in first:
            kill(pid)
        project.held(running, but=first)  # Snakemake tried the jobs once more
        kill(running.pid)
        running.wait(PATIENCE_S)
        processes_end(project)
        project.let_go()
        output = (project.root / "run.log").read_text()
        started, done = jobs(output)
        assert not started & finished, f"{stage}: what was finished ran again"
        assert len(started - done) <= cores, f"{stage}: more was lost than ran"
        finished |= done
        assert before is None or GONE.format(before) in output
        before = running.pid
    assert killed == {p.stem for p in (project.root / "workflow_scripts").glob("*.py")}
    done = project.snakemake(timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    started, last = jobs(done.stdout)
    assert not started & finished
    assert finished | last == jobs(undisturbed.output)[0]
    assert project.tables() == undisturbed.tables()
    assert sorted(project.written()) == sorted(undisturbed.written()), "something was left behind"
    assert not list((project.root / "results").rglob(".tmp-*"))


def test_a_job_that_was_killed_is_made_by_the_next_run(faulty):
    """Without a retry: the run goes on with the rest and fails; the next one repairs it."""
    project = faulty("job")
    project.hold("inputs/tiny/all.h5ad")
    running = project.start("results/inputs/tiny/all.h5ad", "results/config.yaml")
    (held,) = project.held(running)
    kill(held)
    assert running.wait(PATIENCE_S) != 0
    project.let_go()
    assert not (project.root / "results/inputs/tiny/all.json").exists()
    assert (project.root / "results/config.yaml").exists()
    done = project.snakemake("results/inputs/tiny/all.h5ad")
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout)[0] == {"input of tiny / all"}
    processes_end(project)


def test_methods_that_were_killed_are_statuses_and_can_be_repeated(faulty, undisturbed):
    """Wherever methods run: a whole run, the fit of one in ranges, a range."""
    project = faulty("method")
    for target, message in {
        "results/embeddings/tiny/all/pca/0": "run pca on tiny / all, seed 0",
        "results/shards/tiny/all/more/0/fit": "fit more on a sample of tiny / all, seed 0",
        "results/shards/tiny/all/more/0/1": "run more on range 1 of tiny / all, seed 0",
    }.items():
        project.hold("result.json")
        running = project.start(target)
        (held,) = project.held(running)
        kill(held)
        assert running.wait(PATIENCE_S) == 0, "the killed method is a status, not a failed job"
        project.let_go()
        status = (project.root / target / "status.json").read_text()
        assert '"state": "failed"' in status and "ended by SIGKILL" in status
        processes_end(project)
        done = project.snakemake(target, "--forcerun", target)  # as 'morebench retry' does
        assert done.returncode == 0, done.stdout
        assert jobs(done.stdout)[0] == {message}
        assert '"state": "ok"' in (project.root / target / "status.json").read_text()
    done = project.snakemake(timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    assert project.tables() == undisturbed.tables()


def test_a_method_ends_with_its_job(faulty):
    """The job is killed while its method works: nobody is left to watch the method."""
    project = faulty("watcher")
    target = "results/embeddings/tiny/all/pca/0"
    project.hold("output.h5ad")
    running = project.start(target)
    (method,) = project.held(running)
    (job,) = [
        p for p in project.processes() if "workflow_scripts/embed.py" in " ".join(p.cmdline())
    ]
    assert method in {child.pid for child in job.children()}
    kill(job.pid)
    project.held(running, but=[method])  # the rule's own second attempt
    kill(running.pid)
    running.wait(PATIENCE_S)
    processes_end(project)
    project.let_go()
    assert project.snakemake(target).returncode == 0
