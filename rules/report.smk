# Tables, the web report, and the check that ends a run.


rule settings:
    output:
        RESULTS / "config.yaml",
    log:
        PATHS.log_of("settings", "settings"),
    conda:
        environment("core")
    params:
        config=lambda wildcards: compact_in_order(settings_of.resolved(CONFIG)),
        code=digest("settings"),
    message:
        "write the resolved configuration"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/settings.py '
        "{output} {params.config:q} > {log} 2>&1"


rule aggregate:
    input:
        [PATHS.embedding(run) for run in RUNS],
        [PATHS.scores(*key) for key in SCORED],
        [
            PATHS.pooled(d, part)
            for d in POOLED
            for part in ("annotation", "differences", "crosstab")
        ],
        [PATHS.prepared_part(name, "json") for name in CONFIG.datasets],
        config=RESULTS / "config.yaml",
    output:
        report(
            multiext(
                str(PATHS.table("")) + "/",
                "scores.tsv",
                "summary.tsv",
                "annotation_pooled.tsv",
                "annotation_differences.tsv",
                "annotation_crosstab.tsv",
                "annotation_types.tsv",
                "annotation_agreement.tsv",
                "runtime.tsv",
                "failures.tsv",
                "manifest.tsv",
                "methods.tsv",
                "datasets.tsv",
                *(["robustness.tsv"] if CURVED else []),
            ),
            category="Tables",
        ),
        run=PATHS.table("run.json"),
    log:
        PATHS.log_of("aggregate", "aggregate"),
    conda:
        environment("core")
    params:
        lines=shown_lines(),
        code=digest("aggregate"),
    message:
        "gather the tables"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/aggregate.py '
        "{input.config} {output.run} > {log} 2>&1"


rule web_report:
    input:
        figures=all_figures(),
        splits=all_splits(),
        tables=rules.aggregate.output,
        selftest=selftest_tables(),
        config=RESULTS / "config.yaml",
    output:
        PATHS.report,
    log:
        PATHS.log_of("report", "report"),
    conda:
        environment("core")
    params:
        lines=shown_lines(),
        code=digest("write_report"),
    message:
        "write the report"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/write_report.py '
        "{output} {input.config} > {log} 2>&1"


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
        lines=shown_lines(),
        code=digest("check"),
    message:
        "check that every expected cell has its result"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/check.py '
        "{input.manifest} {input.failures} {output} > {log} 2>&1"
