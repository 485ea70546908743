for table in study.tables.values():

    rule:
        name:
            table.name
        input:
            files(RECORD, table.dataset, table.runs, metric=table.metric),
        output:
            csv=f"results/{study.name}/tables/{table.name}.csv",
            tex=f"results/{study.name}/tables/{table.name}.tex",
            html=report(
                f"results/{study.name}/tables/{table.name}.html",
                caption=f"../../{caption(table)}",
                category="Tables",
                labels={"table": table.name, "shows": table.settings["title"]},
            ),
        log:
            f"results/{study.name}/logs/tables/{table.name}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=500,
            runtime=10,
        params:
            **caption_values(table),
            runs=[run.name for run in table.runs],
            paper=paper_values(table),
            label=study.config["label"],
            code=fingerprint(f"tables.{table.metric}", "tables.render", "records"),
        message:
            f"Writing {table.name}"
        script:
            "../scripts/table.py"


rule privacy_table:
    input:
        every_run(PRIVACY),
    output:
        csv=f"results/{study.name}/tables/privacy.csv",
        tex=f"results/{study.name}/tables/privacy.tex",
        html=report(
            f"results/{study.name}/tables/privacy.html",
            caption=f"../../{PRIVACY_CAPTION}",
            category="Tables",
            labels={"table": "privacy", "shows": "epsilon of every run"},
        ),
    log:
        f"results/{study.name}/logs/tables/privacy.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=fingerprint("tables.privacy", "tables.render", "records"),
    message:
        "Writing the privacy table"
    script:
        "../scripts/table_privacy.py"
