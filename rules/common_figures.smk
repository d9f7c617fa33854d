# Figures of the run, and what they are drawn of.


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
