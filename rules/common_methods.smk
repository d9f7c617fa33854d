# What rules are told of a method: its settings, what it may see, its ranges of cells.


def spec_of(wildcards):
    return METHODS[wildcards.method].spec


def method_environment(wildcards):
    return environment(METHODS[wildcards.method].spec.environment)


def submission(wildcards):
    """The group of a run that takes seconds, where the profile has one; others are submitted alone."""
    grouped = "runs" in workflow.group_settings.group_components
    return "runs" if grouped and spec_of(wildcards).brief else None


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


def optional_inputs(wildcards, input):
    words = []
    for name in ("labels", "truth", "all_genes", "features", "pretrained"):
        if name in input.keys():
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(input[name]))}")
    return " ".join(words)


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
