RECORD = "results/{study}/records/{dataset}/{run}/seed={seed}/{metric}.csv"
PRIVACY = "results/{study}/records/{dataset}/{run}/privacy.csv"
# metric -> modules of the package that it runs, and minutes it may take
METRICS = {
    "fgsm": ("attacks", 30),
    "corruptions": ("inference", 30),
    "distances": ("distances", 30),
    "curvature": ("curvature", 10),
    "pgd": ("attacks", 60),
    "pgd_iterations": ("attacks", 60),
    "cross_sections": ("crosssection", 30),
}


# The metric is called `rule` because Snakemake reads `script:` twice: here, and in the job, where only the rule's name
# is left of the loop, in a variable of that name.
for rule, (module, minutes) in METRICS.items():

    rule:
        name:
            rule
        input:
            model=MODEL,
            test="data/{dataset}/test.npz",
            extra=partial(extra_input, rule),
        output:
            record=RECORD.replace("{metric}", rule),
            provenance=RECORD.replace("{metric}.csv", f"{rule}.json"),
        log:
            f"results/{{study}}/logs/{rule}/{{dataset}}/{{run}}/seed={{seed}}.log",
        benchmark:
            f"results/{{study}}/benchmarks/{rule}/{{dataset}}/{{run}}/seed={{seed}}.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=3000,
            runtime=minutes,
        params:
            settings=partial(metric_settings, rule),
            model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
            size=partial(metric_size, rule),
            unofficial=lambda wildcards: study.unofficial(wildcards.dataset),
            device=study.config["device"],
            code=fingerprint(module, "models", "datasets"),
        message:
            f"Measuring {rule} of {{wildcards.run}} on {{wildcards.dataset}}, seed {{wildcards.seed}}"
        script:
            f"../scripts/{rule}.py"


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
