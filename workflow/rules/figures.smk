for figure in study.figures.values():

    rule:
        name:
            figure.name
        input:
            records=files(RECORD, figure.dataset, figure.runs, metric=figure.metric),
            privacy=files(PRIVACY, figure.dataset, [run for run in figure.runs if run.private]),
        output:
            pdf=f"results/{study.name}/figures/{figure.name}.pdf",
            png=report(
                f"results/{study.name}/figures/{figure.name}.png",
                caption=f"../../{caption(figure)}",
                category="Figures",
                labels={"figure": figure.name, "shows": figure.settings["title"]},
            ),
            data=f"results/{study.name}/figures/{figure.name}.csv",
        log:
            f"results/{study.name}/logs/figures/{figure.name}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            **caption_values(figure),
            runs=[run.name for run in figure.runs],
            label=study.config["label"],
            code=fingerprint(f"plots.{figure.metric}", "records"),
        message:
            f"Drawing {figure.name}"
        script:
            "../scripts/figure.py"
