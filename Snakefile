from snakemake.utils import min_version

min_version("9.19")


configfile: f"{workflow.basedir}/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/start.smk"
include: "workflow/rules/resources.smk"


wildcard_constraints:
    study=any_of([study.name]),
    dataset=any_of(study.datasets),
    source=any_of(study.sources),
    material=any_of(study.registry.materials),
    metric=any_of(study.registry.metrics),
    item="[a-z_]+",
    split="train|test",
    view="images|mirrored",
    run="[^/]+",
    seed=r"\d+",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/show.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        integrity.results(plan),
    localrule: True


rule models:
    input:
        every_model(),
    localrule: True


if ours and workflow.is_main_process and (asked_for := called.command_line()):
    told(called.check_targets, workflow, asked_for.targets or [])
    told(starting.prepare, asked_for, plan, Path(workflow.workdir_init))
