FGSM = "results/{study}/records/{dataset}/{run}/seed={seed}/fgsm.csv"
PRIVACY = "results/{study}/records/{dataset}/{run}/privacy.csv"


rule fgsm:
    input:
        model=MODEL,
        test=ancient("data/{dataset}/test.npz"),
    output:
        record=FGSM,
        provenance="results/{study}/records/{dataset}/{run}/seed={seed}/fgsm.json",
    log:
        "results/{study}/logs/fgsm/{dataset}/{run}/seed={seed}.log",
    benchmark:
        "results/{study}/benchmarks/fgsm/{dataset}/{run}/seed={seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
        test_size=lambda wildcards: study.dataset(wildcards.dataset)["test_size"],
        fgsm=lambda wildcards: study.dataset(wildcards.dataset)["metrics"]["fgsm"],
        device=study.config["device"],
        code=fingerprint("attacks", "models"),
    message:
        "FGSM on {wildcards.run}, {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/fgsm.py"


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
