"""Trainings that diverge."""

from clones import RESULTS, SGD, errors

DP = RESULTS / "models/digits/dpsgd_sigma=1.0_clip=1.0/seed=0"


def test_a_training_that_diverges_is_a_line_and_others_go_on(fresh, whole):
    wrong = fresh.overlay(datasets={"digits": {"training": {"sgd": {"lr": 1e30}}}})
    targets = [SGD / "model.safetensors", DP / "model.safetensors"]
    run = fresh.run("--keep-going", *targets, config=[wrong], check=False)
    assert run.returncode != 0 and "Traceback" not in run.output
    assert set(errors(run.output)) == {
        "error: training diverged in epoch 1: parameters or gradients are not finite; use a smaller lr"
    }
    assert not fresh.path(SGD).exists() or list(fresh.path(SGD).iterdir()) == []
    made = fresh.contents()
    assert made[str(DP / "model.safetensors")] == whole.made[str(DP / "model.safetensors")]
