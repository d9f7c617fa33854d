# Tables, figures, the web report, and the check that ends a run.


rule settings:
    output:
        RESULTS / "config.yaml",
    log:
        PATHS.log_of("settings", "settings"),
    conda:
        environment("core")
    params:
        script=script("settings"),
        config=compact(settings_of.resolved(CONFIG)),
        code=digest("settings"),
    message:
        "write the resolved configuration"
    shell:
        "{PYTHON} {params.script} {output} {params.config:q} > {log} 2>&1"


rule aggregate:
    input:
        [PATHS.embedding(run) for run in RUNS],
        [PATHS.scores(*key) for key in SCORED],
        [PATHS.prepared_part(name, "json") for name in CONFIG.datasets],
        config=RESULTS / "config.yaml",
    output:
        report(
            multiext(
                str(PATHS.table("")) + "/",
                "scores.tsv",
                "summary.tsv",
                "runtime.tsv",
                "failures.tsv",
                "manifest.tsv",
                "methods.tsv",
                "datasets.tsv",
            ),
            category="Tables",
        ),
        PATHS.table("run.json"),
    log:
        PATHS.log_of("aggregate", "aggregate"),
    conda:
        environment("core")
    params:
        script=script("aggregate"),
        code=digest("aggregate"),
    message:
        "gather the tables"
    shell:
        "{PYTHON} {params.script} {input.config} {RESULTS} {RESULTS}/tables > {log} 2>&1"


rule draw_qc:
    input:
        cells=PATHS.prepared_part("{dataset}", "qc.parquet"),
        top_genes=PATHS.prepared_part("{dataset}", "top_genes.parquet"),
        prepared=PATHS.prepared_part("{dataset}", "json"),
        genes=PATHS.input("{dataset}", "all", "genes.parquet"),
        facts=PATHS.input("{dataset}", "all", "json"),
    output:
        report(
            PATHS.figure("{dataset}/qc.svg"),
            category="Quality control",
            labels={"dataset": "{dataset}"},
        ),
        PATHS.figure("{dataset}/qc.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "qc"),
    conda:
        environment("core")
    params:
        script=script("draw_qc"),
        title=title_of,
        code=digest("draw_qc"),
    message:
        "draw quality control of {wildcards.dataset}"
    shell:
        "{PYTHON} {params.script} {output[0]} {input} --title {params.title:q} "
        "--config-hash {CONFIG_HASH} > {log} 2>&1"


rule draw_umap:
    input:
        PATHS.umap("{dataset}", "{split}"),
    output:
        report(
            PATHS.figure("{dataset}/umap-{split}.svg"),
            category="UMAP",
            labels={"dataset": "{dataset}", "split": "{split}"},
        ),
        PATHS.figure("{dataset}/umap-{split}.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "umap-{split}"),
    conda:
        environment("core")
    params:
        script=script("draw_umap"),
        title=title_of,
        titles=compact_in_order({name: m.spec.title for name, m in METHODS.items()}),
        code=digest("draw_umap"),
    message:
        "draw UMAP of {wildcards.dataset} / {wildcards.split}"
    shell:
        "{PYTHON} {params.script} {output[0]} {input} --titles {params.titles:q} "
        "--title {params.title:q} "
        "--config-hash {CONFIG_HASH} > {log} 2>&1"


rule draw_scores:
    input:
        PATHS.table("summary.tsv"),
    output:
        report(
            PATHS.figure("{dataset}/scores-{split}-{task}.svg"),
            category="Scores",
            labels={"dataset": "{dataset}", "split": "{split}", "task": "{task}"},
        ),
        PATHS.figure("{dataset}/scores-{split}-{task}.png"),
    log:
        PATHS.log_of("figures", "{dataset}", "scores-{split}-{task}"),
    conda:
        environment("core")
    params:
        script=script("draw_scores"),
        title=title_of,
        code=digest("draw_scores"),
    message:
        "draw scores of {wildcards.dataset} / {wildcards.split} / {wildcards.task}"
    shell:
        "{PYTHON} {params.script} {output[0]} {input} --dataset {wildcards.dataset} "
        "--split {wildcards.split} --task {wildcards.task} --title {params.title:q} "
        "--config-hash {CONFIG_HASH} > {log} 2>&1"


rule web_report:
    input:
        figures=all_figures(),
        splits=all_splits(),
        tables=rules.aggregate.output,
        config=RESULTS / "config.yaml",
    output:
        PATHS.report,
    log:
        PATHS.log_of("report", "report"),
    conda:
        environment("core")
    params:
        script=script("write_report"),
        code=digest("write_report"),
    message:
        "write the report"
    shell:
        "{PYTHON} {params.script} {output} {RESULTS} > {log} 2>&1"


rule check:
    input:
        manifest=PATHS.table("manifest.tsv"),
        failures=PATHS.table("failures.tsv"),
        report=PATHS.report,
    output:
        PATHS.table("check.txt"),
    log:
        PATHS.log_of("check", "check"),
    conda:
        environment("core")
    params:
        script=script("check"),
        code=digest("check"),
    message:
        "check that every expected cell has its result"
    shell:
        "{PYTHON} {params.script} {input.manifest} {input.failures} {output} > {log} 2>&1"
