"""SIGKILL anywhere: nothing runs on, nothing is lost but what ran, the tables are the same."""

import pytest

from tests.faults.conftest import LIMIT_S, Faulty, jobs, kill, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]

# What each stage makes below results, and is killed before it is there; in the order of the DAG.
STAGES = {
    "prepare": "prepared/tiny.h5mu",
    "split": "splits/tiny/all.json",
    "make_input": "inputs/tiny/all.h5ad",
    "embed": "embeddings/tiny/all/pca/0",
    "features of a range": "shards/tiny/all/features/{backbone}/1",
    "gather_features": "features/tiny/all/{backbone}",
    "fit_on_sample": "shards/tiny/all/more/0/fit",
    "embed_shard": "shards/tiny/all/more/0/1",
    "gather": "embeddings/tiny/all/more/0",
    "evaluate": "scores/tiny/all/integration.parquet",
    "umap": "umap/tiny/all.parquet",
    "draw_qc": "figures/tiny/qc.svg",
    "aggregate": "tables/manifest.tsv",
    "draw_scores": "figures/tiny/scores-all-integration.png",
    "web_report": "report/index.html",
    "check": "tables/check.txt",
}


def processes_end(project):
    wait_for(lambda: not project.processes())


def test_snakemake_and_its_job_are_killed_in_every_stage(tmp_path, undisturbed):
    """In each stage the job is killed and runs again, then Snakemake is, while the job works."""
    project = Faulty(tmp_path / "killed")
    (backbone,) = (p.name for p in (undisturbed.root / "results/features/tiny/all").iterdir())
    finished: set[str] = set()
    for number, (stage, target) in enumerate(STAGES.items()):
        made = f"results/{target.format(backbone=backbone)}"
        project.hold(made)
        running = project.start("--retries", "1", "--", made)
        first = project.held(running)
        kill(first)
        project.held(running, but=first)  # Snakemake tried the job once more
        kill(running.pid)
        running.wait()
        processes_end(project)
        project.let_go()
        output = (project.root / "run.log").read_text()
        started, done = jobs(output)
        assert not started & finished, f"{stage}: what was finished ran again"
        assert len(started - done) <= 2, f"{stage}: more was lost than ran on two cores"
        finished |= done
        if number == 0:
            locked = project.snakemake("--quiet")
            assert locked.returncode != 0 and "--unlock" in locked.stdout
            assert project.snakemake("--unlock").returncode == 0
        else:
            project.unlock()
    done = project.snakemake(timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    started, last = jobs(done.stdout)
    assert not started & finished
    assert finished | last == jobs(undisturbed.output)[0]
    assert project.tables() == undisturbed.tables()
    assert sorted(project.written()) == sorted(undisturbed.written()), "something was left behind"
    assert not list((project.root / "results").rglob(".tmp-*"))


def test_a_job_that_was_killed_is_made_by_the_next_run(tmp_path):
    """Without a retry: the run goes on with the rest and fails; the next one repairs it."""
    project = Faulty(tmp_path / "job")
    project.hold("inputs/tiny/all.h5ad")
    running = project.start("results/inputs/tiny/all.h5ad", "results/config.yaml")
    kill(project.held(running))
    assert running.wait() != 0
    project.let_go()
    assert not (project.root / "results/inputs/tiny/all.json").exists()
    assert (project.root / "results/config.yaml").exists()
    done = project.snakemake("results/inputs/tiny/all.h5ad")
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout)[0] == {"input of tiny / all"}
    processes_end(project)


def test_a_method_that_was_killed_is_a_status_and_can_be_repeated(tmp_path):
    project = Faulty(tmp_path / "method")
    target = "results/embeddings/tiny/all/pca/0"
    project.hold("output.h5ad")
    running = project.start(target)
    kill(project.held(running))
    assert running.wait() == 0, "the killed method is a status, not a failed job"
    project.let_go()
    status = (project.root / target / "status.json").read_text()
    assert '"state": "failed"' in status and "ended by SIGKILL" in status
    processes_end(project)
    done = project.snakemake(target, "--forcerun", target)  # as 'morebench retry' does
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout)[0] == {"run pca on tiny / all, seed 0"}
    assert '"state": "ok"' in (project.root / target / "status.json").read_text()


def test_a_method_ends_with_its_job(tmp_path):
    """The job is killed while its method works: nobody is left to watch the method."""
    project = Faulty(tmp_path / "watcher")
    target = "results/embeddings/tiny/all/pca/0"
    project.hold("output.h5ad")
    running = project.start(target)
    method = project.held(running)
    (job,) = [
        p for p in project.processes() if "workflow_scripts/embed.py" in " ".join(p.cmdline())
    ]
    assert method in {child.pid for child in job.children()}
    kill(job.pid)
    project.held(running, but=method)  # the rule's own second attempt
    kill(running.pid)
    running.wait()
    processes_end(project)
    project.let_go()
    project.unlock()
    assert project.snakemake(target).returncode == 0
