rule pretrain:
    input:
        train=lambda wildcards: plan.public_examples(wildcards.dataset, "train"),
        test=lambda wildcards: plan.public_examples(wildcards.dataset, "test"),
    output:
        features=paths.PRETRAINED,
        record=paths.PRETRAINING,
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
        spec=of(plan.pretrain, "dataset"),
    message:
        "Pre-training the convolutions for {wildcards.dataset}"
    script:
        "../scripts/pretrain.py"


rule features:
    input:
        features=paths.PRETRAINED,
        images=lambda wildcards: plan.data_of(wildcards.dataset, wildcards.split),
    output:
        features=paths.FEATURES,
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
        spec=of(plan.features, "dataset", "split", "view"),
    message:
        "Features of the {wildcards.split} {wildcards.view} of {wildcards.dataset}"
    script:
        "../scripts/features.py"


rule train:
    input:
        unpack(of(plan.training_inputs, "dataset", "run", "seed")),
    output:
        model=paths.MODEL,
        record=paths.TRAINED,
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
        spec=of(plan.train, "dataset", "run"),
    message:
        "Training {wildcards.run} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


for number, group in enumerate(plan.together):
    name = f"train_together_{number}"

    rule:
        name:
            name
        input:
            **plan.training_inputs(*group[0]),
        output:
            models=plan.of_each(paths.MODEL, group),
            records=plan.of_each(paths.TRAINED, group),
        log:
            f"results/{study.name}/logs/{name}.log",
        benchmark:
            f"results/{study.name}/benchmarks/train/{name}.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=3000 + 500 * len(group),
            runtime=240,
            gpu=1,
        params:
            spec=[told(plan.train, dataset, run) for dataset, run, _ in group],
            trainings=group,
        message:
            f"Training {len(group)} runs side by side: {name}"
        script:
            "../scripts/train_together.py"

    workflow.ruleorder(name, "train")


rule account:
    input:
        trained=lambda wildcards: plan.files(paths.TRAINED, **wildcards, seed=study.seeds),
    output:
        record=paths.PRIVACY,
    log:
        "results/{study}/logs/account/{dataset}/{run}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        spec=of(plan.account, "dataset", "run"),
    message:
        "Privacy of {wildcards.run} on {wildcards.dataset}"
    script:
        "../scripts/account.py"
