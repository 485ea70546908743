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
