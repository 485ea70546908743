"""How many images each number of PGD steps is the first to fool, for each eps and alpha."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    from dprobust import attacks

    steps, loss = e.settings["steps"], e.settings["loss"]
    metrics = ["wrong_from_the_start", *["fooled"] * steps, "never_fooled"]
    for eps in e.settings["eps"]:
        for alpha in e.settings["alphas"]:
            first = attacks.pgd_iterations(e.model, e.x, e.y, eps, alpha, steps, loss)
            same = {"loss": loss, "eps": eps, "alpha": alpha}
            e.add_each(
                metric=metrics,
                **{name: [value] * len(metrics) for name, value in same.items()},
                # Never fooled stands at the last step tried; its metric tells it from fooled there.
                iterations=[*range(steps + 1), steps],
                n=[len(first)] * len(metrics),
                value=first.bincount(minlength=steps + 2),
            )
