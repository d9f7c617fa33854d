# Figures of the tables, each in two formats.


rule draw_qc:
    input:
        cells=PATHS.prepared_part("{dataset}", "qc.parquet"),
        top_genes=PATHS.prepared_part("{dataset}", "top_genes.parquet"),
        prepared=PATHS.prepared_part("{dataset}", "json"),
        genes=PATHS.input("{dataset}", "all", "genes.parquet"),
        facts=PATHS.input("{dataset}", "all", "json"),
    output:
        svg=report(
            PATHS.figure("{dataset}/qc.svg"),
            category="Quality control",
            labels={"dataset": "{dataset}"},
        ),
        png=PATHS.figure("{dataset}/qc.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "qc"),
    conda:
        environment("core")
    params:
        title=title_of,
        code=digest("draw_qc"),
    message:
        "draw quality control of {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_qc.py '
        "{output.svg} {input} --title {params.title:q} "
        "> {log} 2>&1"


rule draw_umap:
    input:
        PATHS.umap("{dataset}", "{split}"),
    output:
        svg=report(
            PATHS.figure("{dataset}/umap-{split}.svg"),
            category="UMAP",
            labels={"dataset": "{dataset}", "split": "{split}"},
        ),
        png=PATHS.figure("{dataset}/umap-{split}.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "umap-{split}"),
    conda:
        environment("core")
    params:
        title=title_of,
        titles=compact_in_order({name: m.spec.title for name, m in METHODS.items()}),
        code=digest("draw_umap"),
    message:
        "draw UMAP of {wildcards.dataset} / {wildcards.split}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_umap.py '
        "{output.svg} {input} --titles {params.titles:q} "
        "--title {params.title:q} "
        "> {log} 2>&1"


rule draw_scores:
    input:
        table=PATHS.table("summary.tsv"),
        selftest=selftest_table,
    output:
        svg=report(
            PATHS.figure("{dataset}/scores-{split}-{task}.svg"),
            category="Scores",
            labels={"dataset": "{dataset}", "split": "{split}", "task": "{task}"},
        ),
        png=PATHS.figure("{dataset}/scores-{split}-{task}.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "scores-{split}-{task}"),
    conda:
        environment("core")
    params:
        title=title_of,
        optional=optional_selftest,
        lines=shown_lines(),
        code=digest("draw_scores"),
    message:
        "draw scores of {wildcards.dataset} / {wildcards.split} / {wildcards.task}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_scores.py '
        "{output.svg} {input.table} {params.optional} --dataset {wildcards.dataset} "
        "--split {wildcards.split} --task {wildcards.task} --title {params.title:q} "
        "> {log} 2>&1"


rule draw_agreement:
    input:
        PATHS.table("annotation_crosstab.tsv"),
    output:
        svg=report(
            PATHS.figure("{dataset}/agreement.svg"),
            category="Annotation",
            labels={"dataset": "{dataset}"},
        ),
        png=PATHS.figure("{dataset}/agreement.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "agreement"),
    conda:
        environment("core")
    params:
        title=title_of,
        methods=compact_in_order(annotators()),
        code=digest("draw_agreement"),
    message:
        "draw who calls what what in {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_agreement.py '
        "{output.svg} {input} --dataset {wildcards.dataset} "
        "--methods {params.methods:q} --title {params.title:q} "
        "> {log} 2>&1"


rule draw_types:
    input:
        types=PATHS.table("annotation_types.tsv"),
        pooled=PATHS.table("annotation_pooled.tsv"),
    output:
        svg=report(
            PATHS.figure("{dataset}/types.svg"),
            category="Annotation",
            labels={"dataset": "{dataset}"},
        ),
        png=PATHS.figure("{dataset}/types.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "types"),
    conda:
        environment("core")
    params:
        title=title_of,
        methods=compact_in_order(annotators()),
        code=digest("draw_types"),
    message:
        "draw F1 of the cell types of {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_types.py '
        "{output.svg} {input.types} {input.pooled} --dataset {wildcards.dataset} "
        "--methods {params.methods:q} --title {params.title:q} "
        "> {log} 2>&1"


rule draw_robustness:
    input:
        PATHS.table("robustness.tsv"),
    output:
        svg=report(
            PATHS.figure("{dataset}/robustness.svg"),
            category="Robustness",
            labels={"dataset": "{dataset}"},
        ),
        png=PATHS.figure("{dataset}/robustness.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "robustness"),
    conda:
        environment("core")
    params:
        title=title_of,
        code=digest("draw_robustness"),
    message:
        "draw robustness of {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_robustness.py '
        "{output.svg} {input} --dataset {wildcards.dataset} --title {params.title:q} "
        "> {log} 2>&1"
