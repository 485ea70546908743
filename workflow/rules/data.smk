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
        mem_mb=1000,
        runtime=30,
    # No fingerprint and no mirrors: the checksums fix the content, and another would train everything again.
    params:
        sha256=lambda wildcards: study.source(wildcards.dataset)["sha256"],
    message:
        "Getting {wildcards.dataset} and checking every file"
    script:
        "../scripts/download.py"


rule pessimal_noise:
    input:
        train="data/mnist/train.npz",
        test="data/mnist/test.npz",
    output:
        "data/mnist_c/pessimal.npy",
    log:
        "data/mnist_c/pessimal.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        code=fingerprint("corruptions.pessimal", "models", "training"),
    message:
        "Finding the noise that hurts a network of our own most, for MNIST-C's pessimal_noise"
    script:
        "../scripts/pessimal_noise.py"


rule mnist_c:
    input:
        test="data/mnist/test.npz",
        pattern=lambda wildcards: [] if wildcards.source == "zenodo" else "data/mnist_c/pessimal.npy",
    output:
        sets="data/mnist_c/{source}.npz",
        origins="data/mnist_c/{source}.json",
    log:
        "data/mnist_c/{source}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=fingerprint("mnist_c"),
    message:
        "Making the 31 test sets of MNIST-C (source: {wildcards.source})"
    script:
        "../scripts/mnist_c.py"
