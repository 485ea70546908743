rule report:
    input:
        figures=figure_files("png"),
        tables=table_files("html"),
        template=f"{workflow.basedir}/workflow/report/report.html.jinja",
        captions=[f"{workflow.basedir}/{path}" for path in report_captions().values()],
    output:
        f"results/{study.name}/report.html",
    log:
        f"results/{study.name}/logs/report.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        study=study.name,
        title=study.config["title"] or study.name,
        label=study.config["label"],
        facts=study.facts(),
        captions=report_captions(),
        values={display.name: caption_values(display) for display in study.displays},
    message:
        "Writing results/{params.study}/report.html"
    script:
        "../scripts/report.py"
