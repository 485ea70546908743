"""PGD accuracy after some numbers of steps, all from one trajectory for each loss and eps."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    from dprobust import attacks, inference, seeds

    s = e.settings
    alpha, steps = s["alpha"], s["steps"]
    clean = inference.predict(e.model, e.x) == e.y
    for loss in s["losses"]:
        e.add("accuracy", clean, loss=loss, eps=0.0, alpha=alpha, steps=0)
        for eps in s["eps"]:
            if s["random_start"]:
                generator = seeds.generator(*e.about.values(), "pgd", loss, eps)
                correct = attacks.pgd_worst_case(
                    e.model, e.x, e.y, eps, alpha, max(steps), s["restarts"], generator, loss
                )
            else:
                correct = attacks.pgd_trajectory(e.model, e.x, e.y, eps, alpha, max(steps), loss)
            for step in steps:
                e.add("accuracy", correct[:, step], loss=loss, eps=eps, alpha=alpha, steps=step)
