# Self-test of the metrics: how each answers to planted effects of known strength.

INTEGRATION_METRICS = [m for m in registry.METRICS.values() if m.task == "integration"]


rule selftest:
    input:
        data=PATHS.input(SELFTEST, "all"),
        split=PATHS.split(SELFTEST, "all"),
        truth=PATHS.truth(SELFTEST),
    output:
        report(
            [PATHS.table("selftest.tsv"), PATHS.table("selftest_curves.tsv")],
            category="Tables",
        ),
    log:
        PATHS.log_of("selftest", "selftest"),
    conda:
        environment("core")
    threads: CONFIG.evaluation.threads
    resources:
        mem_mb=CONFIG.evaluation.mem_mb,
    params:
        seed=CONFIG.evaluation.seed,
        metrics=compact([asdict(m) for m in INTEGRATION_METRICS]),
        code=digest("selftest", *[m.entry for m in INTEGRATION_METRICS if m.entry]),
    message:
        "test the metrics on planted effects"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/selftest.py '
        "{output} --input {input.data} --split-file {input.split} --truth {input.truth} "
        "--seed {params.seed} --threads {threads} > {log} 2>&1"


rule draw_selftest:
    input:
        PATHS.table("selftest.tsv"),
        PATHS.table("selftest_curves.tsv"),
    output:
        svg=report(PATHS.figure("selftest.svg"), category="Metrics"),
        png=PATHS.figure("selftest.png"),
    log:
        PATHS.log_of("figures", "selftest"),
    conda:
        environment("core")
    params:
        title=selftest_title,
        lines=shown_lines(),
        code=digest("draw_selftest"),
    message:
        "draw the self-test of the metrics"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/draw_selftest.py '
        "{output.svg} {input} --title {params.title:q} > {log} 2>&1"
