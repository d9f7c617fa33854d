# morebench: MoRE and its competitors on single-cell multi-omics data, in one DAG.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    configfile: str(Path(workflow.basedir) / "config/config.yaml")


include: "rules/common.smk"
include: "rules/common_datasets.smk"
include: "rules/common_methods.smk"
include: "rules/common_scores.smk"
include: "rules/common_figures.smk"
include: "rules/download.smk"
include: "rules/prepare.smk"
include: "rules/features.smk"
include: "rules/embed.smk"
include: "rules/shards.smk"
include: "rules/evaluate.smk"
include: "rules/selftest.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/events.smk"


localrules:
    all,
    settings,
    download,
    web_report,
    check,


rule all:
    default_target: True
    input:
        RESULTS / "tables" / "check.txt",
