# What rules are told of a dataset: where its cells come from, its splits, its features.


def dataset_spec(wildcards):
    """What decides the prepared dataset: not its splits, features, tasks or title."""
    told = CONFIG.datasets[wildcards.dataset]
    dataset = told.model_dump(mode="json")
    later = ["features", "splits", "tasks", "title", "use", "methods", "about"]
    if told.remote:  # downloads were held against their hashes when they were fetched
        later.append("sha256")
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
