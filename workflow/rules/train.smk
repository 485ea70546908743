PRETRAINED = "results/{study}/pretrained/{dataset}/features.safetensors"
PRETRAINING = "results/{study}/pretrained/{dataset}/pretrain.json"
FEATURES = "results/{study}/features/{dataset}/{view}/{split}.npz"
MODEL = "results/{study}/models/{dataset}/{run}/seed={seed}/model.safetensors"
TRAINED = "results/{study}/models/{dataset}/{run}/seed={seed}/train.json"


rule pretrain:
    input:
        train=partial(public_examples, "train"),
        test=partial(public_examples, "test"),
    output:
        features=PRETRAINED,
        record=PRETRAINING,
    log:
        "results/{study}/logs/pretrain/{dataset}.log",
    benchmark:
        "results/{study}/benchmarks/pretrain/{dataset}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=1,
    params:
        model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
        dataset=lambda wildcards: study.pretraining(wildcards.dataset)["dataset"],
        train_size=lambda wildcards: study.pretraining(wildcards.dataset)["train_size"],
        dropout=lambda wildcards: study.pretraining(wildcards.dataset)["dropout"],
        training=lambda wildcards: study.pretraining(wildcards.dataset)["training"],
        unofficial=lambda wildcards: study.unofficial(wildcards.dataset),
        device=study.config["device"],
        code=fingerprint("training", "models", "datasets"),
    message:
        "Pre-training the convolutions for {wildcards.dataset} on {params.dataset}"
    script:
        "../scripts/pretrain.py"


rule features:
    input:
        features=PRETRAINED,
        images="data/{dataset}/{split}.npz",
    output:
        FEATURES,
    log:
        "results/{study}/logs/features/{dataset}/{view}/{split}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
        gpu=1,
    params:
        model=lambda wildcards: study.dataset(wildcards.dataset)["model"],
        size=lambda wildcards: study.dataset(wildcards.dataset)[f"{wildcards.split}_size"],
        device=study.config["device"],
        code=fingerprint("models", "datasets"),
    message:
        "Features of the {wildcards.split} {wildcards.view} of {wildcards.dataset}"
    script:
        "../scripts/features.py"


rule train:
    input:
        train=partial(examples, "train"),
        test=partial(examples, "test"),
        mirrored=mirrored_examples,
        features=lambda wildcards: pretrained(PRETRAINED, wildcards),
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
        unofficial=lambda wildcards: study.unofficial(wildcards.dataset),
        device=study.config["device"],
        code=fingerprint("training", "models", "datasets"),
    message:
        "Training {wildcards.run} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"
