for display in study.displays.values():

    rule:
        name:
            display.target
        input:
            **fixed(plan.show_inputs(display)),
        output:
            **{
                suffix: (
                    report(
                        path,
                        caption=str(plan.caption(display)),
                        category=display.section.capitalize(),
                        labels={display.kind: display.name, "shows": display.settings.title},
                    )
                    if suffix in ("png", "html")
                    else path
                )
                for suffix, path in plan.shown(display).items()
            },
        log:
            f"results/{study.name}/logs/{display.section}/{display.name}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            spec=told(plan.show, display.name),
            told=plan.told(display),
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
        template=fixed(f"{WORKFLOW}/report/report.html.jinja"),
        captions=fixed([str(plan.caption(display)) for display in study.displays.values()]),
    output:
        page=f"results/{study.name}/report.html",
    log:
        f"results/{study.name}/logs/report.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        spec=told(plan.report, WORKFLOW / "report" / "report.html.jinja"),
    message:
        f"Writing results/{study.name}/report.html"
    script:
        "../scripts/report.py"
