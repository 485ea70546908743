rule get:
    output:
        train=paths.DATA.replace("{split}", "train"),
        test=paths.DATA.replace("{split}", "test"),
        source="data/{source}/source.json",
    log:
        "data/{source}/get.log",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        spec=of(plan.data, "source"),
    message:
        "Getting {wildcards.source} and checking every file"
    script:
        "../scripts/get.py"


rule prepare:
    input:
        unpack(of(plan.material_inputs, "material", "item")),
    output:
        item="data/{material}/{item}.npz",
        about="data/{material}/{item}.json",
    log:
        "data/{material}/{item}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: plan.bounds("material", wildcards.material)[1],
        runtime=lambda wildcards: plan.bounds("material", wildcards.material)[0],
    params:
        spec=of(plan.material, "material", "item"),
    message:
        "Making {wildcards.item} of {wildcards.material}"
    script:
        "../scripts/prepare.py"
