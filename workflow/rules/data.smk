rule download:
    output:
        train="data/{dataset}/train.npz",
        test="data/{dataset}/test.npz",
        source="data/{dataset}/source.json",
    log:
        "data/{dataset}/download.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=500,
        runtime=30,
    # No fingerprint: the checksums fix the content, and a new one would train everything again.
    params:
        mirrors=lambda wildcards: study.dataset(wildcards.dataset)["mirrors"],
    message:
        "Getting {wildcards.dataset} and checking every file"
    script:
        "../scripts/download.py"
