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
            label=note(figure.dataset),
            code=fingerprint(f"plots.{figure.metric}", "records"),
        message:
            f"Drawing {figure.name}"
        script:
            "../scripts/figure.py"


rule contact_sheet:
    input:
        test="data/mnist/test.npz",
        sets="data/mnist_c/{source}.npz",
        origins="data/mnist_c/{source}.json",
    output:
        pdf="results/{study}/figures/mnist_c_{source}.pdf",
        png=report(
            "results/{study}/figures/mnist_c_{source}.png",
            caption="../report/contact_sheet.rst",
            category="Figures",
            labels={"figure": "mnist_c", "shows": "the 31 corruptions"},
        ),
    log:
        "results/{study}/logs/figures/mnist_c_{source}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        index=[0, 1, 2, 3, 4, 5, 6, 7],
        label=study.config["label"],
        code=fingerprint("plots.contact_sheet"),
    message:
        "Drawing the corruptions of MNIST-C"
    script:
        "../scripts/contact_sheet.py"
