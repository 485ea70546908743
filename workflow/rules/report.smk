rule report:
    input:
        figures=[f"results/{study.name}/figures/{figure}.png" for figure in study.figures],
        numbers=[f"results/{study.name}/figures/{figure}.csv" for figure in study.figures],
        tables=f"results/{study.name}/tables/privacy.html",
        template=f"{workflow.basedir}/workflow/report/report.html.jinja",
        captions=[f"{workflow.basedir}/{path}" for path in [*map(caption, study.figures.values()), PRIVACY_CAPTION]],
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
        captions={figure.name: caption_values(figure) for figure in study.figures.values()},
    message:
        "Writing results/{params.study}/report.html"
    script:
        "../scripts/report.py"
