"""FGSM accuracy over the eps grid, for each attack loss."""

from _evaluation import evaluation

with evaluation(snakemake) as e:
    from dprobust import attacks

    for loss in e.settings["losses"]:
        curve = attacks.fgsm_curve(e.model, e.x, e.y, e.settings["eps"], loss)
        for eps, correct in zip(e.settings["eps"], curve.correct.unbind(1), strict=True):
            e.add("accuracy", correct, loss=loss, eps=eps)
        e.add("p_true_is_1", curve.saturated, loss=loss, eps=0.0)
        e.add("zero_gradient", curve.zero_gradient, loss=loss, eps=0.0)
