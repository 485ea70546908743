"""What breaks in real life: no network, bad files, kill -9, two runs at once."""

import gzip
import hashlib
import time

import pytest
from helpers import SMOKE, kill

MODEL = "results/faults/models/mnist/{run}/seed=0/model.safetensors"
RECORD = "results/faults/records/mnist/{run}/seed=0/fgsm.csv"


@pytest.fixture
def long(ready):
    """Trainings of many short epochs, so that there is a middle to be killed in."""
    training = {name: {"epochs": 12} for name in ("sgd", "dpsgd")}
    overlay = ready.overlay(study="faults", seeds=[0], datasets={"mnist": {"train_size": 1024, "training": training}})
    return ready, (SMOKE, overlay)


def wait_for(path, process, seconds=120):
    """Wait until a file is there, and assert that the run is still at work."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)
    assert process.poll() is None


@pytest.mark.parametrize("run", ["sgd", "dpsgd_sigma=1.3_clip=1.0"])
def test_kill_9_in_training_and_go_on_to_the_same_bytes(long, run):
    workspace, config = long
    target, record = MODEL.format(run=run), RECORD.format(run=run)
    model = workspace.folder / target
    killed = workspace.start(target, config=config)
    wait_for(model.with_name("checkpoint.safetensors"), killed)
    kill(killed)
    assert not model.exists()

    workspace.run(record, config=config)  # no --unlock, no --rerun-incomplete
    log = (workspace.folder / f"results/faults/logs/train/mnist/{run}/seed=0.log").read_text()
    assert "going on after epoch" in log
    resumed = [
        (workspace.folder / path).read_bytes()
        for path in (target, record, target.replace("model.safetensors", "train.json"))
    ]
    assert not model.with_name("checkpoint.safetensors").exists()

    workspace.run(record, "--forcerun", "train", config=config)
    log = (workspace.folder / f"results/faults/logs/train/mnist/{run}/seed=0.log").read_text()
    assert "going on" not in log
    whole = [
        (workspace.folder / path).read_bytes()
        for path in (target, record, target.replace("model.safetensors", "train.json"))
    ]
    assert whole == resumed


def test_two_runs_at_once_do_not_mix(long):
    workspace, config = long
    # Long enough to be at work still when the second run has planned; it is killed then.
    longer = workspace.overlay("longer.yaml", datasets={"mnist": {"training": {"sgd": {"epochs": 2000}}}})
    config = (*config, longer)
    target = MODEL.format(run="sgd")
    first = workspace.start(target, config=config)
    try:
        wait_for((workspace.folder / target).with_name("checkpoint.safetensors"), first)
        second = workspace.run(target, config=config, check=False)
        assert second.returncode != 0 and "another run is at work in this folder" in second.output
    finally:
        kill(first)


def test_no_network_and_no_mirror_is_one_line(empty):
    nowhere = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
    }
    empty.environment = {
        **nowhere,
        **{name.lower(): value for name, value in nowhere.items()},
        "NO_PROXY": "",
        "no_proxy": "",
    }
    done = empty.run("data/mnist/train.npz", check=False)
    assert done.returncode != 0 and "Traceback" not in done.output
    (line,) = [line for line in done.output.splitlines() if "error:" in line]
    assert "train-images-idx3-ubyte" in line and "by hand" in line and "cannot be reached" in line


def test_a_swapped_file_is_named_with_both_hashes(empty, mnist):
    name = "t10k-labels-idx1-ubyte"
    folder = empty.folder / "data" / "mnist"
    folder.mkdir(parents=True)
    content = bytearray((mnist / name).read_bytes())
    content[100] ^= 1
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    done = empty.run("data/mnist/train.npz", check=False)
    assert done.returncode != 0 and not (folder / "train.npz").exists()
    (line,) = [line for line in done.output.splitlines() if "error:" in line]
    assert hashlib.sha256(content).hexdigest() in line
    assert "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2" in line


def test_data_placed_by_hand_and_from_a_mirror(empty, mnist):
    """Two files lie in data/, two come from a mirror named by the config."""
    folder, mirror = empty.folder / "data" / "mnist", empty.folder / "my mirror"
    folder.mkdir(parents=True)
    mirror.mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).hardlink_to(mnist / name)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (mirror / f"{name}.gz").write_bytes(gzip.compress((mnist / name).read_bytes(), 1))
    overlay = empty.overlay(datasets={"mnist": {"mirrors": [mirror.as_uri()]}})
    empty.run("data/mnist/test.npz", config=(SMOKE, overlay))
    for name in ("train.npz", "test.npz"):
        assert (folder / name).read_bytes() == (mnist / name).read_bytes()
    source = (folder / "source.json").read_text()
    assert source.count("data folder") == 2 and source.count(mirror.as_uri()) == 2


def test_cuda_where_there_is_none_is_one_line(long):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU")
    workspace, config = long
    overlay = workspace.overlay("cuda.yaml", device="cuda")
    done = workspace.run(MODEL.format(run="sgd"), config=(*config, overlay), check=False)
    assert done.returncode != 0 and "Traceback" not in done.output
    assert "error: config: device: cuda is asked for, but torch finds no CUDA GPU" in done.output
