# Configuration, paths and what every rule needs. Functions of rules are in common_*.smk and events.smk.
import hashlib
import json
import os
import re
import shlex
import sys
import time
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

START = time.time()
ROOT = Path(workflow.basedir)
SOURCE = ROOT / "src"
sys.path.insert(0, str(SOURCE))

from morebench import config as settings_of
from morebench import plan, registry
from morebench.data.sources import local_files
from morebench.data.spec import Partial, splits_of
from morebench.digest import code_digest
from morebench.endings import this_process
from morebench.errors import MorebenchError
from morebench.paths import Paths
from morebench.robustness.plan import curves
from morebench.selftest.plan import DATASET as SELFTEST
from morebench.selftest.plan import dataset_of

try:
    CONFIG = settings_of.load(config, "config")
    if workflow.is_main_process:  # jobs on other nodes need not look at the data again
        from morebench.preflight import check as preflight

        preflight(CONFIG)
except MorebenchError as error:
    raise WorkflowError(str(error)) from None

RESULTS = Path(CONFIG.results)
PATHS = Paths(RESULTS)
METHODS = settings_of.methods_of(CONFIG)
CELLS = plan.expected(CONFIG)
RUNS = plan.runs(CONFIG)
SCORED = plan.scored(CONFIG)
WITH_SELFTEST = dataset_of(CONFIG) is not None
BACKBONES = settings_of.backbones_of(CONFIG)
# Datasets whose annotation is pooled over the held-out batches.
POOLED = plan.pooled(CONFIG)
CURVED = list(dict.fromkeys(curve.base for curve in curves(CONFIG)))  # bases of derived datasets
SHARDED = [name for name, d in CONFIG.datasets.items() if d.shards is not None]
# On another node a job has one try: the next needs a submission that asks for more memory.
ATTEMPTS = CONFIG.attempts if workflow.is_main_process else 1
WITH_CONDA = "conda" in {str(m) for m in workflow.deployment_settings.deployment_method}
# Jobs inherit these: their commands find the library, the scripts and this interpreter.
os.environ.update(
    PYTHONPATH=str(SOURCE),
    MOREBENCH_ROOT=str(ROOT),
    # A job ends with this process: on another node that is the Snakemake which runs it there.
    MOREBENCH_PARENT=this_process(),
    MOREBENCH_CONFIG_HASH=settings_of.config_hash(CONFIG),
    # No parameter of the rule: another mirror is no reason to fetch again.
    MOREBENCH_DOWNLOADS=CONFIG.downloads.model_dump_json(),
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
)
SCRIPTS = ROOT / "workflow_scripts"
# A job is a child of Snakemake itself, not of a shell: it is told when its parent ends (endings.py).
shell.prefix("set -euo pipefail; exec ")


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    method="|".join(METHODS),
    task="|".join(registry.TASKS),
    split=r"(all|partial|lobo-[\w.]+|unseen-[\w.]+|newtype-[\w.]+)",
    seed=r"\d+",
    backbone="|".join(map(re.escape, BACKBONES)) or "none",
    shard=r"\d+",


@cache
def digest(name, *modules):
    """The code digest of a script and of what it calls by name.

    It decides what runs, so a job on another node, where Snakemake starts anew, does without.
    """
    return code_digest(SCRIPTS / f"{name}.py", *modules) if workflow.is_main_process else ""


def compact(content):
    return json.dumps(content, sort_keys=True, default=list)


def compact_in_order(content):
    """JSON that keeps the order of the keys, which is that of a figure's rows."""
    return json.dumps(content, default=list)


def environment(name):
    return str(ROOT / registry.ENVIRONMENTS[name].file)


def title_of(wildcards):
    return CONFIG.datasets[wildcards.dataset].title or wildcards.dataset


def shown_lines():
    """Registry lines that tables, figures and the report show; no code digest covers them."""
    methods = [(m.name, m.spec.title, m.spec.source, m.spec.licence) for m in METHODS.values()]
    specs = [asdict(s) for s in (*registry.METRICS.values(), *registry.TASKS.values())]
    return compact([methods, specs, registry.ACCEPTED_STATES])
