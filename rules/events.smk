# What is done as a run starts, and after it.
import json
import shlex
import shutil
import subprocess
import sys

from morebench import stale_locks
from morebench.files import atomic_path, remove_leftovers

if workflow.is_main_process:
    for process in stale_locks.release(Path(".snakemake/locks")):
        print(
            f"Process {process}, an earlier run, was killed: its lock is removed.", file=sys.stderr
        )


def written_last():
    """Whether the report is newer than every run and score: then only the check failed."""
    made = [PATHS.embedding(r) / "status.json" for r in RUNS]
    made += [PATHS.scores(*key) for key in SCORED]
    if not PATHS.report.exists() or not all(m.exists() for m in made):
        return False
    return PATHS.report.stat().st_mtime >= max(m.stat().st_mtime for m in made)


def look_when_a_job_ends():
    """Have Snakemake choose jobs when one ends, and not all the time.

    Its default limit of 100 starts a second makes it look again a second later, and each such look
    makes another: every job that ended adds one for the rest of the run, all waiting jobs are looked
    at each time, and in the end that takes a core (Snakemake 9.27). A limit that a user sets stays.
    """
    limit = workflow.scheduler.job_rate_limiter
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def claim_the_lock():
    """Say whose the lock is, so that the next run may remove it if this one is killed.

    Where jobs outlive Snakemake, as on a cluster, nobody does: they may still be writing.
    """
    if workflow.local_exec:
        stale_locks.claim(list(getattr(workflow.persistence, "_lockfile", {}).values()))


def cancel_what_is_queued():
    """After Ctrl-C: cancel what Slurm still has of this run.

    Snakemake cancels the jobs that it has in hand, and has none while it asks Slurm about them, nor
    one that it is about to submit. Whatever ended the run, by now nobody waits for them.
    """
    if workflow.executor_plugin.name != "slurm":
        return
    command = ["scancel", f"--name={workflow.scheduler._executor.run_uuid}"]  # of all its jobs
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"\n{shlex.join(command)}: {done.stderr.strip()}", file=sys.stderr)


def tidy():
    """After a run that ended well: remove what earlier ones left that were killed or failed."""
    remove_leftovers(RESULTS, START)
    shutil.rmtree(RESULTS / "partial", ignore_errors=True)


def salvage():
    """After a failed job: tables of what exists, in a folder of their own."""
    if written_last():
        print(
            f"\nThe run is written, but not every method has a result: see the check's log above, "
            f"{PATHS.table('failures.tsv')} and {PATHS.report}. 'make retry' repeats what failed.",
            file=sys.stderr,
        )
        return
    partial = RESULTS / "partial"
    resolved = partial / "config.json"
    with atomic_path(resolved) as temporary:
        temporary.write_text(json.dumps(settings_of.resolved(CONFIG), default=list))
    script = SCRIPTS / "aggregate.py"
    command = [sys.executable, "-P", script, resolved, partial / "run.json", "--results", RESULTS]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"\nThe tables of what exists could not be written:\n{done.stderr}", file=sys.stderr)
    else:
        print(
            f"\nA job failed. What exists is tabled in {partial}; failures.tsv there names the "
            "logs. The next run goes on where this one stopped; 'make retry' also repeats methods "
            "that failed.",
            file=sys.stderr,
        )


onstart:
    claim_the_lock()
    look_when_a_job_ends()


onsuccess:
    tidy()
    print(f"\nThe report is {PATHS.report}; the tables are in {RESULTS / 'tables'}.")


onerror:
    cancel_what_is_queued()
    salvage()
