rule measure:
    input:
        unpack(lambda wildcards: fixed(of(plan.measure_inputs, "dataset", "run", "seed", "metric")(wildcards))),
    output:
        record=paths.RECORD,
        arrays=paths.ARRAYS,
        provenance=paths.RECORD.replace(".csv", ".json"),
    log:
        "results/{study}/logs/{metric}/{dataset}/{run}/seed={seed}.log",
    benchmark:
        "results/{study}/benchmarks/{metric}/{dataset}/{run}/seed={seed}.tsv"
    group:
        short
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: plan.bounds("metric", wildcards.metric)[1],
        runtime=lambda wildcards: plan.bounds("metric", wildcards.metric)[0],
        gpu=gpus,
    params:
        spec=of(plan.measure, "dataset", "run", "metric"),
    message:
        "Measuring {wildcards.metric} of {wildcards.run} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/measure.py"
