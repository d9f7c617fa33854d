# Configuration, paths and the helpers of every rule. All Python of the rules is here, but that of events.smk.
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
    MOREBENCH_CONFIG_HASH=settings_of.config_hash(CONFIG),
    # No parameter of the rule: another mirror is no reason to fetch again.
    MOREBENCH_DOWNLOADS=CONFIG.downloads.model_dump_json(),
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
)
SCRIPTS = ROOT / "workflow_scripts"
# A job is a child of Snakemake itself, not of a shell, and so ends with it (job.py).
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


def method_environment(wildcards):
    return environment(METHODS[wildcards.method].spec.environment)


def dataset_spec(wildcards):
    """What decides the prepared dataset: not its splits, features, tasks or title."""
    dataset = CONFIG.datasets[wildcards.dataset].model_dump(mode="json")
    later = ["features", "splits", "tasks", "title", "use", "methods", "about", "sha256"]
    if dataset["derive"] is None:
        later.append("derive")
    else:  # changes of labels are made where splits are
        dataset["derive"] = {k: v for k, v in dataset["derive"].items() if k[:6] != "label_"}
    return compact({k: v for k, v in dataset.items() if k not in later})


def download_spec(wildcards):
    """What says which files a dataset from the web has."""
    dataset = CONFIG.datasets[wildcards.dataset].model_dump(mode="json")
    return compact({k: dataset[k] for k in ("geo", "url", "cellxgene", "sha256", "read")})


def source_files(wildcards):
    """Files of a local dataset, so that a changed file re-runs what rests on it.

    Of one from the web its manifest; a derived dataset has that of its base.
    """
    from morebench.data.spec import resolve

    dataset = CONFIG.datasets[wildcards.dataset]
    own = [str(resolve(t.path, wildcards.dataset)) for t in dataset.annotation if t.path]
    if dataset.remote:
        base = dataset.derive.base if dataset.derive else wildcards.dataset
        return [PATHS.downloaded(base), *own]
    if dataset.read:
        found = sorted(map(str, local_files(str(dataset.path), wildcards.dataset)))
        return [*found, *own]
    paths = dataset.path.values() if isinstance(dataset.path, dict) else [dataset.path]
    paths = [p.path for p in dataset.concat] or [p for p in paths if p]
    return [str(resolve(p, wildcards.dataset)) for p in paths]


def optional_downloads(wildcards, input):
    remote = CONFIG.datasets[wildcards.dataset].remote
    return f"--downloads {shlex.quote(str(input[0]))}" if remote else ""


def source_modules(wildcards):
    """The code that makes a bundled dataset."""
    bundled = CONFIG.datasets[wildcards.dataset].bundled
    return [registry.DATASETS[bundled].entry] if bundled else []


def held_out(wildcards):
    return splits_of(CONFIG.datasets[wildcards.dataset])[wildcards.split] or ""


def partial_spec(wildcards):
    return compact((CONFIG.datasets[wildcards.dataset].splits.partial or Partial()).model_dump())


def label_changes(wildcards):
    """What a derived dataset changes of the labels that its splits show."""
    derive = CONFIG.datasets[wildcards.dataset].derive
    if derive is None or not (derive.label_noise or derive.label_missing):
        return ""
    content = derive.model_dump(mode="json")
    return compact({k: content[k] for k in ("from", "label_noise", "label_missing", "seed")})


def features_spec(wildcards):
    return compact(CONFIG.datasets[wildcards.dataset].features.model_dump())


def fit_input(wildcards):
    return PATHS.input(wildcards.dataset, registry.fit_split(wildcards.split))


def method_settings(wildcards):
    """What decides a method's output; for one with its own environment, also its pins."""
    method = METHODS[wildcards.method]
    own = registry.ENVIRONMENTS[method.spec.environment]
    pins = (ROOT / own.file).read_text() if own.isolated else ""
    return compact({**method.settings(), "pins": hashlib.sha256(pins.encode()).hexdigest()[:12]})


def method_inputs(wildcards):
    """What a method may see: the input; shown labels and all genes only where declared."""
    spec = METHODS[wildcards.method].spec
    found = {"data": fit_input(wildcards)}
    if spec.track == "semi-supervised":
        found["labels"] = PATHS.split(wildcards.dataset, wildcards.split)
    if spec.truth:
        found["truth"] = PATHS.truth(wildcards.dataset)
    if spec.all_genes:
        found["all_genes"] = PATHS.prepared(wildcards.dataset)
    backbone = settings_of.backbone_of(METHODS[wildcards.method])
    if backbone is not None:
        split = registry.fit_split(wildcards.split)
        found["features"] = PATHS.features(wildcards.dataset, split, backbone)
    earlier = settings_of.pretrained_of(METHODS[wildcards.method], METHODS)
    if earlier is not None:
        split = registry.fit_split(wildcards.split)
        found["pretrained"] = PATHS.embedding(
            plan.Run(wildcards.dataset, split, earlier, wildcards.seed)
        )
    return found


def any_of(names):
    """A wildcard's pattern: one of some names; matches nothing where there are none."""
    return "|".join(names) or r"(?!)"


def shard_numbers(wildcards):
    return range(CONFIG.datasets[wildcards.dataset].shards.number)


def shard_of(wildcards):
    return f"{wildcards.shard}/{CONFIG.datasets[wildcards.dataset].shards.number}"


def sample_of(wildcards):
    told = CONFIG.datasets[wildcards.dataset].shards
    return f"{told.fit or ''}:{told.seed}"


def sample_inputs(wildcards):
    """What a model is fitted on; all genes are one modality's here, which the input has."""
    return {k: v for k, v in method_inputs(wildcards).items() if k != "all_genes"}


def shard_inputs(wildcards):
    """What embeds a range: its features and the fitted model; labels have done their part."""
    run = plan.Run(wildcards.dataset, wildcards.split, wildcards.method, wildcards.seed)
    found = {"data": fit_input(wildcards), "pretrained": PATHS.shard(run, "fit")}
    backbone = settings_of.backbone_of(METHODS[wildcards.method])
    if backbone is not None:
        split = registry.fit_split(wildcards.split)
        found["features"] = PATHS.shard_features(
            wildcards.dataset, split, backbone, wildcards.shard
        )
    return found


def optional_inputs(wildcards, input):
    words = []
    for name in ("labels", "truth", "all_genes", "features", "pretrained"):
        if name in input.keys():
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(input[name]))}")
    return " ".join(words)


def spec_of(wildcards):
    return METHODS[wildcards.method].spec


def submission(wildcards):
    """The group of a run that takes seconds; others are submitted alone."""
    return "runs" if spec_of(wildcards).brief else None


def entrants(cells):
    """Runs as the scoring scripts take them, each once."""
    found = {}
    for cell in cells:
        spec = METHODS[cell.run.method].spec
        found[cell.run] = {
            "method": cell.run.method,
            "track": spec.track,
            "seed": cell.run.seed,
            "outputs": spec.outputs,
            "directory": str(PATHS.embedding(cell.run)),
        }
    return list(found.values())


def scored_entrants(wildcards):
    return entrants(
        c
        for c in CELLS
        if (c.run.dataset, c.split, c.task) == (wildcards.dataset, wildcards.split, wildcards.task)
    )


def pooled_cells(wildcards):
    return [
        c
        for c in CELLS
        if (c.run.dataset, registry.split_kind(c.split), c.task)
        == (wildcards.dataset, "lobo", "annotation")
    ]


def pooled_splits(wildcards):
    """The table of every split that hides a batch."""
    splits = dict.fromkeys(c.split for c in pooled_cells(wildcards))
    return {split: str(PATHS.split(wildcards.dataset, split)) for split in splits}


def pooled_entrants(wildcards):
    """Every method and seed once; ``{split}`` in its directory stands for each of its splits."""
    return entrants(
        replace(c, run=replace(c.run, split="{split}")) if c.run.split == c.split else c
        for c in pooled_cells(wildcards)
    )


def pooled_directories(wildcards):
    return list(dict.fromkeys(str(PATHS.embedding(c.run)) for c in pooled_cells(wildcards)))


def scores_embedding(cell):
    """Whether a cell's embedding is drawn: annotation of the same fit would draw it again."""
    outputs = METHODS[cell.run.method].spec.outputs
    return cell.task == "integration" and "embedding" in outputs


def drawn_entrants(wildcards):
    """The first seed of every method whose embedding is scored on the split."""
    here = (wildcards.dataset, wildcards.split)
    cells = [c for c in CELLS if (c.run.dataset, c.split) == here and scores_embedding(c)]
    first = {}
    for cell in cells:
        first.setdefault(cell.run.method, cell.run.seed)
    return [e for e in entrants(cells) if e["seed"] == first[e["method"]]]


def directories(choose):
    return lambda wildcards: [e["directory"] for e in choose(wildcards)]


def drawn_splits():
    """(dataset, split) pairs with embeddings to draw."""
    return list(dict.fromkeys((c.run.dataset, c.split) for c in CELLS if scores_embedding(c)))


def task_metrics(wildcards):
    """The task's metrics, so that a new one is computed; and the code of those by entry."""
    return [m for m in registry.METRICS.values() if m.task == wildcards.task]


def shown_lines():
    """Registry lines that tables, figures and the report show; no code digest covers them."""
    methods = [(m.name, m.spec.title, m.spec.source, m.spec.licence) for m in METHODS.values()]
    specs = [asdict(s) for s in (*registry.METRICS.values(), *registry.TASKS.values())]
    return compact([methods, specs, registry.ACCEPTED_STATES])


def task_digest(wildcards):
    entries = [m.entry for m in task_metrics(wildcards) if m.entry]
    return digest("evaluate", registry.TASKS[wildcards.task].entry, *entries)


def task_settings(wildcards):
    told = CONFIG.evaluation
    settings = {"seed": told.seed, "n_boot": told.n_boot}
    if told.sample is not None:
        settings |= {"sample": told.sample, "repeats": told.repeats}
    return compact(settings)


def title_of(wildcards):
    return CONFIG.datasets[wildcards.dataset].title or wildcards.dataset


def selftest_table(wildcards):
    """The verdicts on the metrics of a task, where the run tests them."""
    tested = WITH_SELFTEST and wildcards.task == "integration"
    return [PATHS.table("selftest.tsv")] if tested else []


def selftest_tables():
    names = ("selftest.tsv", "selftest_curves.tsv")
    return [PATHS.table(n) for n in names] if WITH_SELFTEST else []


def optional_selftest(wildcards, input):
    return f"--selftest {shlex.quote(str(input.selftest))}" if input.selftest else ""


def selftest_title(wildcards):
    return CONFIG.datasets[SELFTEST].title or SELFTEST


def all_figures():
    names = ["selftest.svg"] if WITH_SELFTEST else []
    names += [f"{d}/qc.svg" for d in CONFIG.datasets]
    names += [f"{d}/umap-{s}.svg" for d, s in drawn_splits()]
    names += [f"{d}/scores-{s}-{t}.svg" for d, s, t in SCORED]
    names += [f"{d}/{name}.svg" for d in POOLED for name in ("types", "agreement")]
    names += [f"{d}/robustness.svg" for d in CURVED]
    return [PATHS.figure(n) for n in names]


def annotators():
    """Methods with their titles: MoRE and CellTypist, others that give labels, the rest."""
    first = [n for n in ("more_sup", "celltypist") if n in METHODS]
    own = [n for n, m in METHODS.items() if "labels" in m.spec.outputs]
    return {n: METHODS[n].spec.title for n in dict.fromkeys([*first, *own, *METHODS])}


def all_splits():
    """Every configured split, also those that no task of this run is scored on."""
    return [PATHS.split(d, s) for d, c in CONFIG.datasets.items() for s in labelled_splits(c)]


def labelled_splits(dataset):
    return splits_of(dataset) if dataset.labels else []
