# What is scored, pooled and drawn: the runs of a task, and the task itself.


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


def task_digest(wildcards):
    entries = [m.entry for m in task_metrics(wildcards) if m.entry]
    return digest("evaluate", registry.TASKS[wildcards.task].entry, *entries)


def task_settings(wildcards):
    told = CONFIG.evaluation
    settings = {"seed": told.seed, "n_boot": told.n_boot}
    if told.sample is not None:
        settings |= {"sample": told.sample, "repeats": told.repeats}
    return compact(settings)
