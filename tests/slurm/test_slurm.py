"""The workflow through profiles/slurm on a real Slurm without GPUs and without accounting."""

import importlib.util
import re
import time

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(2400)]

MODEL = "results/{study}/models/mnist/{run}/seed=0/model.safetensors"
LOG = "results/{study}/logs/train/mnist/{run}/seed=0.log"


def wait_for(condition, process, seconds=180):
    """Wait until a condition holds, and assert that the run is at work until then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def trainings(slurm, since, study):
    """Slurm's jobs that train a study's models, of those after a number: run -> [(number, state)] in their order."""
    found = {}
    for number, (state, comment) in sorted(slurm.queue().items(), key=lambda job: int(job[0])):
        if int(number) > since and (match := re.match(rf"rule_train_wildcards_{study}_mnist_(.*)_0$", comment)):
            found.setdefault(match[1], []).append((int(number), state))
    return found


def last(slurm):
    return max(map(int, slurm.queue()), default=0)


@pytest.fixture
def long(clone, slurm):
    """Trainings of many short epochs, so that there is a middle to be cancelled in; and the study's overlay."""

    def make(study, epochs=60, **options):
        made = clone(study, slurm, **options)
        training = {name: {"epochs": epochs} for name in ("sgd", "dpsgd")}
        data = {"mnist": {"train_size": 1024, "training": training}}
        return made, made.overlay(f"{study}.yaml", study=study, seeds=[0], datasets=data)

    return make


def test_smoke_is_byte_for_byte_a_local_run(clone, slurm):
    since = last(slurm)
    here, there = clone("a local clone"), clone("a clone for slurm", slurm)
    local = here.start()  # on the same processors meanwhile: Slurm's jobs begin late and now and then
    there.run()
    assert local.wait() == 0, here.told()[-4000:]

    def results(made):
        root = made.folder / "results" / "smoke"
        files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
        return {name: path for name, path in files.items() if name.parts[0] not in ("logs", "benchmarks")}

    ours, theirs = results(here), results(there)
    assert set(ours) == set(theirs) and len(ours) > 100
    assert [str(name) for name in ours if ours[name].read_bytes() != theirs[name].read_bytes()] == []

    jobs = {number: job for number, job in slurm.queue().items() if int(number) > since}
    assert {state for state, _ in jobs.values()} == {"COMPLETED"}
    models = list((there.folder / "results" / "smoke" / "models").rglob("model.safetensors"))
    rules = [comment.split("_")[1] for _, comment in jobs.values()]
    assert rules.count("train") == len(models)
    assert rules.count("short") == len(models)  # the short metrics of a model are one job
    records = list((there.folder / "results" / "smoke" / "records").rglob("seed=*/*.csv"))
    assert rules.count("short") + rules.count("measure") < len(records) / 2
    assert rules.count("show") <= 4 and "report" not in rules


def test_a_cancelled_job_is_done_again_from_its_last_epoch(long, slurm):
    made, overlay = long("cancelled")
    since, target = last(slurm), MODEL.format(study="cancelled", run="sgd")
    run = made.start(target, config=[overlay])
    checkpoint = (made.folder / target).with_name("checkpoint.safetensors")
    wait_for(checkpoint.exists, run)
    ((number, state),) = trainings(slurm, since, "cancelled")["sgd"]
    assert state == "RUNNING"
    slurm.call("scancel", str(number))
    assert run.wait() == 0, made.told()[-4000:]
    (first, second) = trainings(slurm, since, "cancelled")["sgd"]
    assert (first[1], second[1]) == ("CANCELLED", "COMPLETED")
    assert "going on after epoch" in (made.folder / LOG.format(study="cancelled", run="sgd")).read_text()
    assert (made.folder / target).exists() and not checkpoint.exists()


def test_a_killed_head_is_started_again_and_nothing_is_trained_twice(long, slurm):
    made, overlay = long("killed")
    since, runs = last(slurm), ["sgd", "dpsgd_sigma=1.3_clip=1.0", "dpsgd_sigma=2.0_clip=1.0"]
    targets = [MODEL.format(study="killed", run=run) for run in runs]
    head = made.start(*targets, config=[overlay])

    def states():
        return sorted(state for jobs in trainings(slurm, since, "killed").values() for _, state in jobs)

    checkpoints = [(made.folder / target).with_name("checkpoint.safetensors") for target in targets]
    wait_for(lambda: sum(path.exists() for path in checkpoints) == 2, head)
    assert states() == ["PENDING", "RUNNING", "RUNNING"]  # two processors
    refused = made.run(*targets, config=[overlay], check=False)  # it does not wait for the jobs of a run that is alive
    assert f"another run is at work in this folder: process {head.pid} on " in refused
    head.kill()
    head.wait()
    assert states() == ["PENDING", "RUNNING", "RUNNING"]

    told = made.run(*targets, config=[overlay])
    assert "Cancelling 1 jobs of an earlier run" in told and "Waiting for 2 jobs of an earlier run" in told
    assert re.search(r"^train +1$", told, re.MULTILINE)  # what is planned after that
    jobs = trainings(slurm, since, "killed")
    assert sorted([state for _, state in jobs[run]] for run in runs) == [
        ["CANCELLED", "COMPLETED"],
        ["COMPLETED"],
        ["COMPLETED"],
    ]
    for run in runs:  # each from its first epoch to its last, once
        assert "going on" not in (made.folder / LOG.format(study="killed", run=run)).read_text()

    # What was made without a head is known as the rest is: nothing is to be done, and all of it for other settings.
    assert "Nothing to be done" in made.run(*targets, "--dry-run", config=[overlay])
    training = {name: {"epochs": 61} for name in ("sgd", "dpsgd")}
    longer = made.overlay("longer.yaml", datasets={"mnist": {"training": training}})
    told = made.run(*targets, "--dry-run", config=[overlay, longer])
    assert re.search(r"^train +3$", told, re.MULTILINE)


def test_only_a_study_of_device_cuda_asks_for_a_gpu(long, slurm):
    """The node has none: Slurm refuses the job. The other tests run with `device: auto`."""
    made, overlay = long("cuda")
    cuda = made.overlay("device.yaml", device="cuda")
    told = made.run(MODEL.format(study="cuda", run="sgd"), config=[overlay, cuda], check=False)
    assert "Invalid generic resource (gres)" in told and "--gpus=1" in told


def test_cluster_generic_takes_up_the_jobs_of_a_killed_head(long, slurm):
    """With Slurm's commands in the place of those that the profile has for SGE and LSF."""
    if not importlib.util.find_spec("snakemake_executor_plugin_cluster_generic"):
        pytest.skip("snakemake_executor_plugin_cluster_generic is not installed; make cluster")
    submit = "sbatch --parsable --job-name={rule} --mem={resources.mem_mb} --cpus-per-task={threads} --output=/dev/null"
    options = ("--workflow-profile", "profiles/cluster-generic", "--latency-wait", "10")
    options += ("--cluster-generic-submit-cmd", submit, "--cluster-generic-cancel-cmd", "scancel")
    options += ("--cluster-generic-status-cmd", "profiles/cluster-generic/status slurm")
    made, overlay = long("generic", options=options)
    since, target = last(slurm), MODEL.format(study="generic", run="sgd")
    head = made.start(target, config=[overlay])
    wait_for((made.folder / target).with_name("checkpoint.safetensors").exists, head)
    head.kill()
    head.wait()
    told = made.run(target, config=[overlay])
    assert "Resuming incomplete job" in told
    assert [state for number, (state, _) in slurm.queue().items() if int(number) > since] == ["COMPLETED"]
    assert "going on" not in (made.folder / LOG.format(study="generic", run="sgd")).read_text()
    assert "Nothing to be done" in made.run(target, "--dry-run", config=[overlay])
