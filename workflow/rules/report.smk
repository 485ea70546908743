rule report:
    input:
        figures=[f"results/{study.name}/figures/{figure}.png" for figure in study.figures],
        numbers=[f"results/{study.name}/figures/{figure}.csv" for figure in study.figures],
        tables=[f"results/{study.name}/tables/{table}.html" for table in (*study.tables, "privacy")],
        template=f"{workflow.basedir}/workflow/report/report.html.jinja",
        figure_captions=[f"{workflow.basedir}/{caption(figure)}" for figure in study.figures.values()],
        table_captions=[
            f"{workflow.basedir}/{path}" for path in (*map(caption, study.tables.values()), PRIVACY_CAPTION)
        ],
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
        figures={figure.name: caption_values(figure) for figure in study.figures.values()},
        tables={table.name: caption_values(table) for table in study.tables.values()},
    message:
        "Writing results/{params.study}/report.html"
    script:
        "../scripts/report.py"
