MODEL = "results/{study}/models/{dataset}/{run}/seed={seed}/model.safetensors"
TRAINED = "results/{study}/models/{dataset}/{run}/seed={seed}/train.json"


rule train:
    input:
        train="data/{dataset}/train.npz",
        test="data/{dataset}/test.npz",
    output:
        model=MODEL,
        record=TRAINED,
    log:
        "results/{study}/logs/train/{dataset}/{run}/seed={seed}.log",
    benchmark:
        "results/{study}/benchmarks/train/{dataset}/{run}/seed={seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=1,
    params:
        model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
        training=lambda wildcards: study.training(wildcards.dataset, wildcards.run),
        train_size=lambda wildcards: study.dataset(wildcards.dataset)["train_size"],
        test_size=lambda wildcards: study.dataset(wildcards.dataset)["test_size"],
        device=study.config["device"],
        code=fingerprint("training", "models", "datasets"),
    message:
        "Training {wildcards.run} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"
