RECORD = "results/{study}/records/{dataset}/{run}/seed={seed}/{metric}.csv"
PRIVACY = "results/{study}/records/{dataset}/{run}/privacy.csv"
# metric -> modules of the package that it runs, and minutes it may take
METRICS = {
    "fgsm": ("attacks", 30),
    "corruptions": ("inference", 30),
}


for metric, (module, minutes) in METRICS.items():

    rule:
        name:
            metric
        input:
            model=MODEL,
            test="data/{dataset}/test.npz",
            extra=partial(extra_input, metric),
        output:
            record=RECORD.replace("{metric}", metric),
            provenance=RECORD.replace("{metric}.csv", f"{metric}.json"),
        log:
            f"results/{{study}}/logs/{metric}/{{dataset}}/{{run}}/seed={{seed}}.log",
        benchmark:
            f"results/{{study}}/benchmarks/{metric}/{{dataset}}/{{run}}/seed={{seed}}.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=3000,
            runtime=minutes,
        params:
            settings=partial(metric_settings, metric),
            model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
            size=partial(metric_size, metric),
            device=study.config["device"],
            code=fingerprint(module, "models", "datasets"),
        message:
            f"Measuring {metric} of {{wildcards.run}} on {{wildcards.dataset}}, seed {{wildcards.seed}}"
        script:
            f"../scripts/{metric}.py"


rule privacy:
    input:
        lambda wildcards: expand(TRAINED, **wildcards, seed=study.seeds),
    output:
        record=PRIVACY,
    log:
        "results/{study}/logs/privacy/{dataset}/{run}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        deltas=lambda wildcards: study.dataset(wildcards.dataset)["privacy"]["deltas"],
        code=fingerprint("privacy"),
    message:
        "Privacy of {wildcards.run} on {wildcards.dataset}"
    script:
        "../scripts/privacy.py"
