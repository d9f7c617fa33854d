# Methods: each (dataset, split, method, seed) in a process of its own.


rule embed:
    input:
        unpack(method_inputs),
    output:
        directory(PATHS.embedding(plan.Run("{dataset}", "{split}", "{method}", "{seed}"))),
    log:
        PATHS.log(plan.Run("{dataset}", "{split}", "{method}", "{seed}")),
    retries: ATTEMPTS - 1
    group:
        submission
    conda:
        method_environment
    threads: lambda wildcards: spec_of(wildcards).threads
    resources:
        # The scheduler gives more than the method may use: the job watches it and reports.
        mem_mb=lambda wildcards, attempt: spec_of(wildcards).mem_mb * attempt + 1000,
        runtime=lambda wildcards: spec_of(wildcards).runtime_min + 15,
        limit_mb=lambda wildcards, attempt: spec_of(wildcards).mem_mb * attempt,
        limit_min=lambda wildcards: spec_of(wildcards).runtime_min,
        gpu=lambda wildcards: spec_of(wildcards).gpu,
        attempt=lambda wildcards, attempt: attempt,
        attempts=CONFIG.attempts,
    params:
        settings=method_settings,
        optional=optional_inputs,
        here="--this-environment" if WITH_CONDA else "",
        part="",
        code=lambda wildcards: digest("embed", "morebench.child", spec_of(wildcards).entry),
    message:
        "run {wildcards.method} on {wildcards.dataset} / {wildcards.split}, seed {wildcards.seed}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/embed.py '
        "{output} --input {input.data} {params.optional} "
        "--settings {params.settings:q} --dataset {wildcards.dataset} --split {wildcards.split} "
        "--seed {wildcards.seed} --log {log} --threads {threads} --gpu {resources.gpu} --mem-mb {resources.limit_mb} "
        "--runtime-min {resources.limit_min} --attempt {resources.attempt} "
        "--attempts {resources.attempts} --part={params.part} {params.here} 2>> {log}"
