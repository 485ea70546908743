from snakemake.utils import min_version

min_version("9.19")


configfile: f"{workflow.basedir}/config.yaml"


include: "workflow/rules/common.smk"


wildcard_constraints:
    study=study.name,
    dataset="mnist|cifar10|cifar100",
    split="train|test",
    view="images|mirrored",
    run=r"sgd|dpsgd_sigma=[0-9.e+-]+_clip=[0-9.e+-]+(_noise=sigma)?",
    seed=r"\d+",
    source="auto|zenodo|generate",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"results/{study.name}/report.html",


rule models:
    input:
        every_run(MODEL),


rule figures:
    input:
        figure_files("pdf"),


rule tables:
    input:
        table_files("csv"),


localrules:
    all,
    models,
    figures,
    tables,
