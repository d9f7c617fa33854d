# From a source to the prepared dataset, its truth, its splits and their inputs.


rule prepare:
    input:
        source_files,
    output:
        prepared=PATHS.prepared("{dataset}"),
        truth=PATHS.truth("{dataset}"),
        facts=PATHS.prepared_part("{dataset}", "json"),
        cells=PATHS.prepared_part("{dataset}", "qc.parquet"),
        genes=PATHS.prepared_part("{dataset}", "top_genes.parquet"),
    log:
        PATHS.log_of("prepare", "{dataset}"),
    conda:
        environment("core")
    resources:
        mem_mb=8000,
    params:
        spec=dataset_spec,
        downloads=optional_downloads,
        code=lambda wildcards: digest("prepare", *source_modules(wildcards)),
    message:
        "prepare {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/prepare.py '
        "{wildcards.dataset} {params.spec:q} {output.prepared} "
        "{output.truth} {output.facts} {output.cells} {output.genes} {params.downloads} "
        "> {log} 2>&1"


rule split:
    input:
        prepared=PATHS.prepared("{dataset}"),
        truth=PATHS.truth("{dataset}"),
    output:
        table=PATHS.split("{dataset}", "{split}"),
        facts=PATHS.split("{dataset}", "{split}").with_suffix(".json"),
    log:
        PATHS.log_of("split", "{dataset}", "{split}"),
    conda:
        environment("core")
    params:
        held_out=held_out,
        partial=partial_spec,
        derive=label_changes,
        code=digest("split"),
    message:
        "split {wildcards.dataset} / {wildcards.split}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/split.py '
        "{input.prepared} {input.truth} {output.table} "
        "--split {wildcards.split} --partial {params.partial:q} "
        "--held-out={params.held_out:q} --derive={params.derive:q} > {log} 2>&1"


rule make_input:
    input:
        prepared=PATHS.prepared("{dataset}"),
        split=PATHS.split("{dataset}", "{split}"),
    output:
        data=PATHS.input("{dataset}", "{split}"),
        genes=PATHS.input("{dataset}", "{split}", "genes.parquet"),
        facts=PATHS.input("{dataset}", "{split}", "json"),
    log:
        PATHS.log_of("input", "{dataset}", "{split}"),
    conda:
        environment("core")
    resources:
        mem_mb=8000,
    params:
        features=features_spec,
        code=digest("make_input"),
    message:
        "input of {wildcards.dataset} / {wildcards.split}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/make_input.py '
        "{input.prepared} {input.split} {output.data} {output.genes} "
        "{output.facts} --features {params.features:q} > {log} 2>&1"
