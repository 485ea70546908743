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
            label=note(table.dataset),
            code=fingerprint(f"tables.{table.metric}", "tables.render", "records"),
        message:
            f"Writing {table.name}"
        script:
            "../scripts/table.py"


rule accuracy_table:
    input:
        trained=every_run(TRAINED),
        pretrained=expand(PRETRAINING, study=study.name, dataset=study.pretrained),
        paper=f"{workflow.basedir}/workflow/paper/accuracy.csv",
    output:
        csv=f"results/{study.name}/tables/accuracy.csv",
        tex=f"results/{study.name}/tables/accuracy.tex",
        html=report(
            f"results/{study.name}/tables/accuracy.html",
            caption="../report/accuracy.rst",
            category="Tables",
            labels={"table": "accuracy", "shows": "accuracy without attack of every run"},
        ),
    log:
        f"results/{study.name}/logs/tables/accuracy.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        label=note(*study.config["datasets"]),
        code=fingerprint("tables.accuracy", "tables.render", "records"),
    message:
        "Writing the accuracy table"
    script:
        "../scripts/table_accuracy.py"


rule privacy_table:
    input:
        every_run(PRIVACY),
    output:
        csv=f"results/{study.name}/tables/privacy.csv",
        tex=f"results/{study.name}/tables/privacy.tex",
        html=report(
            f"results/{study.name}/tables/privacy.html",
            caption="../report/privacy.rst",
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
