from snakemake.logging import logger

from dprobust.published import hint

if workflow.is_main_process and (there := hint(study.name)):
    logger.info(there)


for display in study.displays.values():

    rule:
        name:
            display.target
        input:
            unpack(when_asked(lambda display: fixed(plan.show_inputs(display)), display)),
        output:
            **{
                suffix: (
                    report(
                        path,
                        caption=str(plan.caption(display)),
                        category=display.section.capitalize(),
                        # Behind a brace stands a character of no width: it is no wildcard.
                        labels={
                            display.kind: display.name,
                            "shows": display.settings.title.replace("{", "{\N{ZERO WIDTH NON-JOINER}"),
                        },
                    )
                    if suffix in ("png", "html")
                    else path
                )
                for suffix, path in plan.shown(display).items()
            },
        log:
            f"results/{study.name}/logs/{display.section}/{display.name}.log",
        group:
            "show"
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            spec=in_time(plan.show, display.name),
            told=in_time(plan.told, display),
        message:
            f"Making {display.name}"
        script:
            "../scripts/show.py"


for section in paths.SECTIONS:

    rule:
        name:
            section
        input:
            every(section),
        localrule: True


rule report:
    input:
        shown=[path for display in study.displays.values() for path in plan.shown(display).values()],
        template=local(fixed(f"{WORKFLOW}/report/report.html.jinja")),
        captions=local(fixed([str(plan.caption(display)) for display in study.displays.values()])),
    output:
        page=f"results/{study.name}/report.html",
    log:
        f"results/{study.name}/logs/report.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        spec=in_time(plan.report, WORKFLOW / "report" / "report.html.jinja"),
    message:
        f"Writing results/{study.name}/report.html"
    script:
        "../scripts/report.py"
