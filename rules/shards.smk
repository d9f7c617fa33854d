# Datasets with shards: a model fitted on a sample, ranges of cells in jobs of their own, gathered.

SHARD = plan.Run("{dataset}", "{split}", "{method}", "{seed}")


use rule embed as fit_on_sample with:
    input:
        unpack(sample_inputs),
    output:
        directory(PATHS.shard(SHARD, "fit")),
    log:
        PATHS.log_of("shards", "{dataset}", "{split}", "{method}", "{seed}", "fit"),
    params:
        settings=method_settings,
        optional=optional_inputs,
        here="--this-environment" if WITH_CONDA else "",
        part=lambda wildcards: f"fit:{sample_of(wildcards)}",
        code=lambda wildcards: digest("embed", "morebench.child", spec_of(wildcards).entry),
    message:
        "fit {wildcards.method} on a sample of {wildcards.dataset} / {wildcards.split}, seed {wildcards.seed}"


use rule embed as embed_shard with:
    input:
        unpack(shard_inputs),
    output:
        directory(PATHS.shard(SHARD, "{shard}")),
    log:
        PATHS.log_of("shards", "{dataset}", "{split}", "{method}", "{seed}", "{shard}"),
    params:
        settings=method_settings,
        optional=optional_inputs,
        here="--this-environment" if WITH_CONDA else "",
        part=lambda wildcards: f"embed:{shard_of(wildcards)}",
        code=lambda wildcards: digest("embed", "morebench.child", spec_of(wildcards).entry),
    message:
        "run {wildcards.method} on range {wildcards.shard} of {wildcards.dataset} / {wildcards.split}, seed {wildcards.seed}"


rule gather:
    input:
        fitted=PATHS.shard(SHARD, "fit"),
        parts=lambda wildcards: [
            PATHS.shard(plan.Run(**wildcards), str(i)) for i in shard_numbers(wildcards)
        ],
        data=fit_input,
    output:
        directory(PATHS.embedding(SHARD)),
    log:
        PATHS.log_of("gather", "{dataset}", "{split}", "{method}", "{seed}"),
    wildcard_constraints:
        dataset=any_of(SHARDED),
        method=any_of(n for n, m in METHODS.items() if m.spec.sharded),
    conda:
        environment("core")
    resources:
        mem_mb=8000,
    params:
        outputs=lambda wildcards: compact(spec_of(wildcards).outputs),
        code=digest("gather"),
    message:
        "gather {wildcards.method} on {wildcards.dataset} / {wildcards.split}, seed {wildcards.seed}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/gather.py '
        "{output} {input.fitted} {input.parts} --input {input.data} "
        "--outputs {params.outputs:q} > {log} 2>&1"


use rule features as features_shard with:
    output:
        directory(PATHS.shard_features("{dataset}", "{split}", "{backbone}", "{shard}")),
    log:
        PATHS.log_of("shards", "{dataset}", "{split}", "features", "{backbone}", "{shard}"),
    params:
        settings=lambda wildcards: compact(BACKBONES[wildcards.backbone]),
        cache=PATHS.feature_cache,
        part=lambda wildcards: f"{shard_of(wildcards)}:{sample_of(wildcards)}",
        code=digest("make_features"),
    message:
        "frozen features of range {wildcards.shard} of {wildcards.dataset} / {wildcards.split} by {wildcards.backbone}"


rule gather_features:
    input:
        lambda wildcards: [
            PATHS.shard_features(*wildcards, str(i)) for i in shard_numbers(wildcards)
        ],
    output:
        directory(PATHS.features("{dataset}", "{split}", "{backbone}")),
    log:
        PATHS.log_of("gather", "{dataset}", "{split}", "features", "{backbone}"),
    wildcard_constraints:
        dataset=any_of(SHARDED),
    conda:
        environment("core")
    params:
        code=digest("gather_features"),
    message:
        "gather frozen features of {wildcards.dataset} / {wildcards.split} by {wildcards.backbone}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/gather_features.py '
        "{output} {input} > {log} 2>&1"


ruleorder: gather > embed
ruleorder: gather_features > features
