# Scores: all methods and seeds of one (dataset, split, task) in one process.


rule evaluate:
    input:
        directories(scored_entrants),
        data=fit_input,
        split=PATHS.split("{dataset}", "{split}"),
        truth=PATHS.truth("{dataset}"),
    output:
        PATHS.scores("{dataset}", "{split}", "{task}"),
    log:
        PATHS.log_of("evaluate", "{dataset}", "{split}", "{task}"),
    conda:
        environment("core")
    threads: CONFIG.evaluation.threads
    resources:
        mem_mb=CONFIG.evaluation.mem_mb,
    params:
        entry=lambda wildcards: registry.TASKS[wildcards.task].entry,
        entrants=lambda wildcards: compact(scored_entrants(wildcards)),
        settings=task_settings,
        metrics=lambda wildcards: compact([asdict(m) for m in task_metrics(wildcards)]),
        code=task_digest,
    message:
        "score {wildcards.task} on {wildcards.dataset} / {wildcards.split}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/evaluate.py '
        "{output} --input {input.data} "
        "--split-file {input.split} --truth {input.truth} --dataset {wildcards.dataset} "
        "--split {wildcards.split} --task {wildcards.task} --entry {params.entry} "
        "--entrants {params.entrants:q} --settings {params.settings:q} --threads {threads} "
        "> {log} 2>&1"


rule pool:
    input:
        pooled_directories,
        data=PATHS.input("{dataset}", "all"),
        splits=lambda wildcards: pooled_splits(wildcards).values(),
        truth=PATHS.truth("{dataset}"),
    output:
        scores=PATHS.pooled("{dataset}", "annotation"),
        differences=PATHS.pooled("{dataset}", "differences"),
        crosstab=PATHS.pooled("{dataset}", "crosstab"),
    log:
        PATHS.log_of("pool", "{dataset}", "annotation"),
    conda:
        environment("core")
    resources:
        mem_mb=CONFIG.evaluation.mem_mb,
    params:
        splits=lambda wildcards: compact_in_order(pooled_splits(wildcards)),
        entrants=lambda wildcards: compact_in_order(pooled_entrants(wildcards)),
        fixed=compact([m.name for m in METHODS.values() if not m.spec.seeded]),
        settings=task_settings,
        code=digest("pool_annotation"),
    message:
        "pool annotation of {wildcards.dataset} over its held-out batches"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/pool_annotation.py '
        "{output.scores} {output.differences} {output.crosstab} --input {input.data} --truth {input.truth} "
        "--dataset {wildcards.dataset} --splits {params.splits:q} "
        "--entrants {params.entrants:q} --fixed {params.fixed:q} "
        "--settings {params.settings:q} > {log} 2>&1"


rule umap:
    input:
        directories(drawn_entrants),
        data=fit_input,
        truth=PATHS.truth("{dataset}"),
    output:
        PATHS.umap("{dataset}", "{split}"),
    log:
        PATHS.log_of("umap", "{dataset}", "{split}"),
    conda:
        environment("core")
    resources:
        mem_mb=CONFIG.evaluation.mem_mb,
    params:
        entrants=lambda wildcards: compact(drawn_entrants(wildcards)),
        seed=CONFIG.evaluation.seed,
        code=digest("compute_umap"),
    message:
        "UMAP of {wildcards.dataset} / {wildcards.split}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/compute_umap.py '
        "{output} --input {input.data} --truth {input.truth} "
        "--entrants {params.entrants:q} --seed {params.seed} > {log} 2>&1"
