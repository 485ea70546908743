# What jobs ask for of the machine or the cluster.


def gpus(wildcards):
    """GPUs that a job asks for: one if the study's device is cuda, none if it is cpu. `auto` takes one where it finds
    one: it has its share of this machine's (--resources gpu=1), and asks for none of a cluster's, which may have none.
    """
    device = study.settings.device
    return int(device == "cuda" or device == "auto" and workflow.local_exec)


def short(wildcards):
    """The group of a job that measures a metric: on a cluster the short ones of a model share a job
    (--group-components short=N), a long one has a job of its own."""
    if plan.bounds("metric", wildcards.metric)[0] > 30:
        return None
    group = "_".join(["short", wildcards.dataset, wildcards.run, wildcards.seed])
    workflow.parent_groupids[group] = "short"  # what it is called in --group-components
    return group
