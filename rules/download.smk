# Files from the web, into the cache folder. What a rule makes is a manifest of them.


# On clusters, compute nodes often reach no network: this runs where Snakemake does. It has no
# retries, since the script tries again by itself, and a file that is not the locked one stays so.
rule download:
    output:
        PATHS.downloaded("{dataset}"),
    log:
        PATHS.log_of("download", "{dataset}"),
    conda:
        environment("core")
    params:
        spec=download_spec,
    message:
        "download {wildcards.dataset}"
    shell:
        'python -P "$MOREBENCH_ROOT"/workflow_scripts/download.py '
        '{wildcards.dataset} {params.spec:q} "$MOREBENCH_DOWNLOADS" {output} > {log} 2>&1'
