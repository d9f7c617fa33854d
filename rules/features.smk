# Frozen features: one backbone over the cells of a split's input, shared by all that read them.


rule features:
    input:
        data=PATHS.input("{dataset}", "{split}"),
    output:
        directory(PATHS.features("{dataset}", "{split}", "{backbone}")),
    log:
        PATHS.log_of("features", "{dataset}", "{split}", "{backbone}"),
    conda:
        environment("core")
    threads: CONFIG.features.threads
    resources:
        mem_mb=CONFIG.features.mem_mb,
        gpu=CONFIG.features.gpu,
    params:
        settings=lambda wildcards: compact(BACKBONES[wildcards.backbone]),
        cache=PATHS.feature_cache,
        part="",
        code=digest("make_features"),
    message:
        "frozen features of {wildcards.dataset} / {wildcards.split} by {wildcards.backbone}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/make_features.py '
        "{output} --input {input.data} --settings {params.settings:q} "
        "--cache {params.cache}/{wildcards.dataset} --texts {params.cache}/texts "
        "--part={params.part} --threads {threads} > {log} 2>&1"
