"""A tiny study, published, in folders that are like a fresh clone: only what is published is there."""

import io
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import ROOT
from tiny import TINY, made, make, plan_of, working_in

from dprobust import generated, inventory, publishing, records, verifying
from dprobust.errors import UserError
from dprobust.published import Published, hint
from dprobust.publishing import Made, array_digest, processor, publish
from workflow import snakemakes

MACHINE = Made("snakemake --configfile tiny.yaml", processor(), verifying.capability(), startup=0.25)
FGSM = "results/tiny/records/mnist/sgd/seed=0/fgsm.csv"
PGD = FGSM.replace("fgsm.csv", "pgd.npz")
MODEL = "results/tiny/models/mnist/sgd/seed={}/model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mnist):
    """The study, run and published."""
    folder = tmp_path_factory.mktemp("finished")
    overlay, plan = made(folder, mnist)
    with working_in(folder):
        publish(plan, snakemakes.config([overlay]), MACHINE)
    return folder


@pytest.fixture
def clone(finished, tmp_path, monkeypatch):
    """A folder with the published study and its overlay only."""
    shutil.copytree(finished / "published", tmp_path / "published")
    shutil.copy(finished / "tiny.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(folder, name="changed.yaml", **mnist):
    """The overlay with other settings of the dataset."""
    config = TINY | {"datasets": {"cifar10": None, "mnist": TINY["datasets"]["mnist"] | mnist}}
    (path := folder / name).write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def call(folder, *arguments):
    command = [sys.executable, "-m", "workflow.publishing", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    done.output = done.stdout + done.stderr
    return done


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def plant(study, name, content):
    """Another content of a published file, with all digests as if it were right."""
    folder = Path("published") / study
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = publishing.sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "SHA256SUMS").unlink()
    publishing._sums(folder)


# -- what is published ------------------------------------------------------------------------------------------------


def test_what_is_published(finished):
    folder = finished / "published" / "tiny"
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert done.returncode == 0
    names = files(folder)
    assert {name for name in names if name.endswith(".safetensors")} == {
        f"models/mnist/{run}/seed=0/model.safetensors" for run in ("sgd", "dpsgd_sigma=1.3_clip=1.0")
    }
    for run in ("sgd", "dpsgd_sigma=1.3_clip=1.0"):
        for seed in (0, 1):
            assert f"models/mnist/{run}/seed={seed}/train.json" in names
            for metric in ("fgsm", "pgd", "clean"):
                assert f"records/mnist/{run}/seed={seed}/{metric}.json" in names
    for name in ("figures/fig2.pdf", "figures/fig2.png", "tables/table1.tex", "claims/claims.md", "report.html"):
        assert names[name] == (finished / "results" / "tiny" / name).read_bytes()
    for name, content in names.items():
        assert str(finished).encode() not in content, f"{name} names a folder of this machine"
    manifest = json.loads(names["manifest.json"])
    assert manifest["machine"]["cpu"] == processor() and manifest["command"] == MACHINE.command
    assert manifest["versions"] == records.versions() and sum(manifest["records_by"]["commit"].values()) == 4 + 12
    assert yaml.safe_load(names["config.yaml"])["study"] == "tiny"
    hours = pd.read_csv(folder / "hours.csv").set_index("stage")
    assert hours.loc["train", "jobs"] == 4 and hours.loc["train", "startup_share"] == pytest.approx(0.25)


def test_bulky_arrays_are_left_out_and_remembered(finished):
    published = Published("tiny", finished / "published")
    whole = records.Arrays(finished / PGD)
    with np.load(io.BytesIO(published.content(PGD))) as kept:
        assert set(whole) - set(kept.files) == {"images", "loss_value"}
        assert all(np.array_equal(kept[name], whole[name]) for name in kept.files)
    entry = published.files[PGD.removeprefix("results/tiny/")]
    assert entry["left_out"] == {name: array_digest(whole[name]) for name in ("images", "loss_value")}
    assert entry["whole"] == publishing.sha256(finished / PGD)


def test_what_is_compressed_reads_back(finished, tmp_path, monkeypatch):
    """Text, and arrays that become the bytes they were."""
    monkeypatch.setattr(publishing, "PACKED", 2000)
    monkeypatch.setattr(publishing, "WORTH", 10.0)
    with working_in(finished):
        plan = plan_of(finished / "tiny.yaml")
        folder = publish(plan, {}, MACHINE, folder=tmp_path)
    published = Published("tiny", tmp_path)
    text, arrays = MODEL.format(0).replace("model.safetensors", "train.json"), FGSM.replace("fgsm.csv", "clean.npz")
    for path in (text, arrays):
        assert published.content(path) == (finished / path).read_bytes()
        assert not (folder / path.removeprefix("results/tiny/")).exists()
    stored = (folder / f"{text.removeprefix('results/tiny/')}.xz").read_bytes()
    assert lzma.decompress(stored) == (finished / text).read_bytes()
    with working_in(tmp_path):
        assert arrays in published.restore(inventory.made(plan))
        assert Path(arrays).read_bytes() == (finished / arrays).read_bytes()
        # Arrays are the same whatever compressed them; other arrays are other work.
        same = dict(records.Arrays(Path(arrays)))
        np.savez(Path(arrays), **same)
        assert published.restore(inventory.made(plan)) == []
        np.savez(Path(arrays), **same | {"label": same["label"] + 1})
        with pytest.raises(UserError, match="holds 1 files of other work .*clean.npz"):
            published.restore(inventory.made(plan))


def test_published_again_it_is_the_same_bytes(finished, tmp_path):
    with working_in(finished):
        plan = plan_of(finished / "tiny.yaml")
        publish(plan, snakemakes.config([finished / "tiny.yaml"]), MACHINE, folder=tmp_path)
    assert files(tmp_path / "tiny") == files(finished / "published" / "tiny")


def test_refusals_leave_what_was_published(finished, tmp_path):
    with working_in(finished):
        plan = plan_of(finished / "tiny.yaml")
        publish(plan, {}, MACHINE, folder=tmp_path)
        before = files(tmp_path)
        with pytest.raises(UserError, match=r"more than the 1 MB .*largest: models: model.safetensors 3\.5 MB"):
            publish(plan, {}, MACHINE, folder=tmp_path, limit=1_000_000)
        record = Path(FGSM)
        content = record.read_bytes()
        try:
            record.write_bytes(content.replace(b"0.", b"1.", 1))
            with pytest.raises(UserError, match="fgsm.csv: not the bytes that a job wrote"):
                publish(plan, {}, MACHINE, folder=tmp_path)
            record.unlink()
            with pytest.raises(UserError, match="study tiny is not finished: 1 of .* missing, .*seed=0/fgsm.csv"):
                publish(plan, {}, MACHINE, folder=tmp_path)
        finally:
            record.write_bytes(content)
    assert files(tmp_path) == before


def test_the_command_refuses_a_study_that_is_not_what_the_plan_asks_for(finished):
    overlay = changed(finished, metrics=TINY["datasets"]["mnist"]["metrics"] | {"fgsm": {"eps": [0.0, 0.1]}})
    done = call(finished, "publish", overlay)
    (line,) = done.output.splitlines()
    assert done.returncode == 1 and "study tiny is not finished, or no longer what" in line and "measure 4" in line


# -- drawn again ------------------------------------------------------------------------------------------------------


def test_a_fresh_clone_draws_all_again_and_trains_nothing(finished, clone):
    before = files(clone / "published")
    assert "make restore" in hint("tiny")
    done = call(clone, "figures", "tiny.yaml")
    assert done.returncode == 0, done.output
    assert "14 of 14 files are byte for byte those of published/tiny" in done.output
    for name in ("figures/fig2.pdf", "figures/fig2.png", "tables/table1.html", "claims/claims.json", "report.html"):
        assert (clone / "results/tiny" / name).read_bytes() == (finished / "results/tiny" / name).read_bytes()
    # No job but those of displays left a log, no second model is there, no data were fetched.
    assert {path.name for path in (clone / "results/tiny/logs").iterdir()} == {
        "figures",
        "tables",
        "claims",
        "report.log",
    }
    assert not (clone / MODEL.format(1)).exists() and not (clone / "data").exists()
    assert files(clone / "published") == before and hint("tiny") == ""

    # Snakemake knows what is there: nothing to do, newer data of the same content change nothing, another config does.
    (clone / "data").mkdir()
    shutil.copytree(finished / "data" / "mnist", clone / "data" / "mnist", copy_function=shutil.copyfile)
    assert snakemakes.planned("fig2", "table1", overlays=[clone / "tiny.yaml"]) == {}
    other = changed(clone, metrics={"fgsm": {"eps": [0.0, 0.1]}, "pgd": TINY["datasets"]["mnist"]["metrics"]["pgd"]})
    planned = snakemakes.planned("fig2", overlays=[other])
    assert planned["measure"] == 4 and planned["fig2"] == 1 and planned["train"] == 2  # whose models are not published
    refused = call(clone, "figures", other)
    (line,) = refused.output.splitlines()
    told = "measure mnist/sgd/fgsm: settings.eps: published [0.0, 0.12], now [0.0, 0.1]"
    assert refused.returncode == 1 and told in line


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            {"training": {"sgd": {"epochs": 1, "lr": 0.1}, "dpsgd": {"epochs": 1}}},
            ["train mnist/sgd: training.lr: published 0.05, now 0.1"],
        ),
        ({"privacy": {"deltas": [1e-4]}}, ["account mnist/dpsgd_sigma=1.3_clip=1.0: deltas: published"]),
        ({}, []),
    ],
    ids=["lr", "delta", "same"],
)
def test_a_changed_config_is_told_once(clone, change, lines):
    plan = plan_of(changed(clone, **change))
    found = Published("tiny").stale(inventory.made(plan))
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))


def test_changed_code_is_told(clone, monkeypatch):
    plan = plan_of(clone / "tiny.yaml")
    spec = plan.measure("mnist", "sgd", "pgd") | {"code": "0" * 16}
    jobs = [
        job if job.about.get("metric") != "pgd" else type(job)(**vars(job) | {"spec": spec})
        for job in inventory.made(plan)
        if job.about.get("run") == "sgd"
    ]
    assert Published("tiny").stale(jobs) == ["measure mnist/sgd/pgd: code"]


def test_nothing_is_mixed(clone):
    """Results of other work are neither overwritten nor completed."""
    plan = plan_of(clone / "tiny.yaml")
    (own := clone / FGSM).parent.mkdir(parents=True)
    own.write_text("mine\n")
    with pytest.raises(UserError, match=r"results/tiny holds 1 files of other work .*seed=0/fgsm.csv.* nothing was"):
        Published("tiny").restore(inventory.made(plan))
    assert list(files(clone / "results")) == [str(own.relative_to(clone / "results"))]
    own.write_bytes(Published("tiny").content(FGSM))
    assert (
        len(Published("tiny").restore(inventory.made(plan))) == len(list(files(clone / "results"))) - seals(clone) - 1
    )


def seals(folder):
    return sum(1 for path in (folder / "results").rglob(".*.sha256"))


def test_a_damaged_file_is_named(clone):
    path = clone / "published/tiny" / FGSM.removeprefix("results/tiny/")
    path.write_bytes(path.read_bytes() + b" ")
    plan = plan_of(clone / "tiny.yaml")
    with pytest.raises(UserError, match=r"1 files are missing or not what was published: records/.*fgsm.csv; git"):
        Published("tiny").restore(inventory.made(plan))
    assert not (clone / "results").exists()


def test_nothing_published_is_one_line(tmp_path):
    (overlay := tmp_path / "o.yaml").write_text("study: nowhere\nonly: [fig2]")
    done = call(tmp_path, "restore", overlay)
    assert done.returncode == 1
    assert (
        done.output == "error: published/nowhere/manifest.json: no such file; of study nowhere nothing is published\n"
    )


# -- verified ---------------------------------------------------------------------------------------------------------


def again(plan, mnist):
    """Makes cells in a folder, without Snakemake."""

    def make_again(paths, given, folder):
        (folder / "data").mkdir()
        (folder / "data" / "mnist").symlink_to(mnist)
        todo = inventory.made(plan)
        Published("tiny").restore([job for job in todo if set(given).intersection(job.outputs)], folder)
        with working_in(folder):
            for job in todo:
                if set(paths).intersection(job.outputs):
                    make(job, plan)

    return make_again


def verify(clone, mnist, capsys, only, **asked):
    """Verify cells whose names end so."""
    plan, published = plan_of(clone / "tiny.yaml"), Published("tiny")
    cells = [cell for cell in verifying.cells(plan, published) if cell.job.name.endswith(only)]
    before = files(clone / "published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "cells", lambda *_: cells)
        agree = verifying.verify(plan, published, verifying.Asked(seed=1, cores=2, **asked), again(plan, mnist))
    assert files(clone / "published") == before
    return agree, capsys.readouterr().out


def test_cells_agree_byte_for_byte(clone, mnist, capsys):
    """Of a published model measured again, of one that is not published trained again first."""
    agree, told = verify(clone, mnist, capsys, ("mnist/sgd/seed=0/pgd", "mnist/sgd/seed=1/fgsm"))
    assert agree, told
    assert "measure mnist/sgd/seed=0/pgd: measured again" in told
    assert "measure mnist/sgd/seed=1/fgsm: trained and measured again" in told
    for name in (FGSM, PGD, MODEL):
        name = name.format(1).replace("seed=0", "seed=1") if name != PGD else name
        assert f"agrees   {name}: identical" in told
    assert "DIFFERS" not in told and told.endswith("All agree; largest difference of a number 0.\n")


def test_a_planted_number_is_found(clone, mnist, capsys):
    name = FGSM.removeprefix("results/tiny/")
    table = pd.read_csv(f"published/tiny/{name}")
    table.loc[1, "value"] += 0.01
    plant("tiny", name, table.to_csv(index=False).encode())
    agree, told = verify(clone, mnist, capsys, "mnist/sgd/seed=0/fgsm")
    assert not agree and f"DIFFERS  {FGSM}: column value:" in told and "largest difference 0.01" in told


def test_a_planted_model_is_found(clone, mnist, capsys):
    """Another network in place of the published one: its measurements are others, and so is what a training gives."""
    ours, other = (
        MODEL.format(0).removeprefix("results/tiny/"),
        MODEL.format(0).replace("sgd", "dpsgd_sigma=1.3_clip=1.0"),
    )
    plant("tiny", ours, Path("published/tiny", other.removeprefix("results/tiny/")).read_bytes())
    agree, told = verify(clone, mnist, capsys, "mnist/sgd/seed=0/fgsm")
    assert not agree and f"DIFFERS  {FGSM}" in told
    agree, told = verify(clone, mnist, capsys, "train mnist/sgd/seed=0")
    assert not agree and f"DIFFERS  {MODEL.format(0)}: another network" in told


def test_a_left_out_array_is_compared(clone, mnist, capsys):
    manifest = json.loads(Path("published/tiny/manifest.json").read_text())
    manifest["files"][PGD.removeprefix("results/tiny/")]["left_out"]["images"] = "0" * 64
    Path("published/tiny/manifest.json").write_text(json.dumps(manifest))
    Path("published/tiny/SHA256SUMS").unlink()
    publishing._sums(Path("published/tiny"))
    agree, told = verify(clone, mnist, capsys, "mnist/sgd/seed=0/pgd")
    assert not agree and f"DIFFERS  {PGD}: images: not as published" in told


def test_elsewhere_small_differences_are_allowed(clone, mnist, capsys, monkeypatch):
    monkeypatch.setattr(verifying, "processor", lambda: "another")
    name = FGSM.removeprefix("results/tiny/")
    for shift, allowed in ((0.0009, True), (0.02, False)):
        table = pd.read_csv(f"published/tiny/{name}")
        table["value"] += shift
        plant("tiny", name, table.to_csv(index=False).encode())
        agree, told = verify(clone, mnist, capsys, "mnist/sgd/seed=0/fgsm")
        assert agree is allowed, told


def test_elsewhere_a_training_is_compared_with_the_range_of_seeds(clone, mnist, capsys, monkeypatch):
    monkeypatch.setattr(verifying, "processor", lambda: "another")
    name = FGSM.removeprefix("results/tiny/").replace("seed=0", "seed=1")
    agree, _ = verify(clone, mnist, capsys, "mnist/sgd/seed=1/fgsm")
    assert agree
    table = pd.read_csv(f"published/tiny/{name}")
    both = [pd.read_csv(f"published/tiny/{n}") for n in (name, name.replace("seed=1", "seed=0"))]
    accuracy = table["metric"] == "accuracy"
    apart = abs(both[0].loc[accuracy, "value"].mean() - both[1].loc[accuracy, "value"].mean())
    # The range grows with the planted shift, by up to three times it: a scale is needed that the range cannot follow.
    monkeypatch.setattr(verifying, "SPREAD", 0.0)
    table.loc[accuracy, "value"] += apart + 0.05
    plant("tiny", name, table.to_csv(index=False).encode())
    agree, told = verify(clone, mnist, capsys, "mnist/sgd/seed=1/fgsm")
    assert not agree and "trained in other arithmetic; mean of accuracy value" in told


def cell(name, seconds, training="", training_seconds=0.0):
    job = inventory.Job("measure", "measure", {"run": name}, {}, (), (), ())
    first = inventory.Job("train", "train", {"run": training}, {}, (), (), ()) if training else None
    return verifying.Cell(job, first, seconds, training_seconds)


def test_minutes_of_cells():
    """A training is done once; two processors halve the sum but not the longest chain."""
    shared = [cell("a", 60, "t", 600), cell("b", 60, "t", 600)]
    assert verifying.minutes(shared, 1) == 12 and verifying.minutes(shared, 2) == 11
    assert verifying.minutes([cell("a", 60), cell("b", 120)], 2) == 2 and verifying.minutes([], 2) == 0


def test_cells_are_drawn_within_the_time():
    found = [cell(str(i), 60) for i in range(20)] + [cell("long", 3600)]
    asked = verifying.Asked(k=5, minutes=3)
    chosen, left_out = verifying.choose(found, asked, 1, Random(0))
    assert len(chosen) == 3 and "long" in {c.job.about["run"] for c, _ in left_out}
    assert verifying.choose(found, asked, 1, Random(0))[0] == chosen
    drawn = {c.job.about["run"] for seed in range(60) for c in verifying.choose(found, asked, 1, Random(seed))[0]}
    assert drawn == {str(i) for i in range(20)}
    none, reasons = verifying.choose(found, asked, 1, Random(0), lambda _: False)
    assert none == [] and {reason for _, reason in reasons if "minutes" not in reason} == {
        "its data cannot be had here"
    }


@pytest.mark.slow
def test_the_commands_from_end_to_end(finished, clone):
    """publish of a finished study, and verify in a clone that has data only."""
    done = call(finished, "publish", "tiny.yaml")
    assert done.returncode == 0 and "14 of 14 files are byte for byte" in done.output, done.output
    (clone / "data").mkdir()
    (clone / "data" / "mnist").symlink_to((finished / "data" / "mnist").resolve())
    done = call(clone, "verify", "tiny.yaml", "-k", 2, "--seed", 5)
    assert done.returncode == 0 and "All agree; largest" in done.stdout, done.output


# -- as an RO-Crate ---------------------------------------------------------------------------------------------------


def test_the_crate_names_files_that_are_there(clone):
    pytest.importorskip("rocrate", reason="requirements-crate.txt is not installed: make crate does it")
    for name in ("Snakefile", "README.md", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    from workflow.crate import FILE, crate

    crate(Published("tiny", clone / "published"), clone).metadata.write(clone)
    graph = {entity["@id"]: entity for entity in json.loads((clone / FILE).read_text())["@graph"]}
    assert graph["./"]["mainEntity"] == {"@id": "Snakefile"} and graph["#run"]["instrument"] == {"@id": "Snakefile"}
    assert graph["#run"]["result"] == {"@id": "published/tiny/"} and MACHINE.command in graph["#run"]["name"]
    named = [name for name, entity in graph.items() if "File" in entity["@type"] or entity["@type"] == "Dataset"]
    assert "published/tiny/claims/claims.md" in named and all((clone / name).exists() for name in named)


# -- told in README and docs ------------------------------------------------------------------------------------------


def test_generated_parts(clone):
    parts = generated.parts(Published("tiny"))
    head, _, first, *_ = parts["claims"].splitlines()
    assert (
        head
        == "|  | claim | paper | ours, 95 % interval | seeds | verdict | strongest measurement | verdict under it |"
    )
    assert first.startswith("| C01 | ") and "Verdicts on " in parts["claims"]
    table = pd.read_csv("published/tiny/claims/claims.csv")
    assert parts["claims"].count("\n| C") == len(table)
    text = "a\n<!-- hours:begin -->\nold\n<!-- hours:end -->\nb\n"
    filled = generated.filled(text, parts, "README.md")
    assert filled == f"a\n<!-- hours:begin -->\n\n{parts['hours']}\n<!-- hours:end -->\nb\n"
    assert generated.filled(filled, parts, "README.md") == filled
    with pytest.raises(UserError, match="README.md: <!-- nothing:begin -->: there is no such part, only claims"):
        generated.filled("<!-- nothing:begin -->\n<!-- nothing:end -->", parts, "README.md")


@pytest.fixture
def paper():
    """The paper's study as published in this repository."""
    if not (ROOT / "published" / "paper").exists():
        pytest.skip("published/paper: the paper's study is not published yet")
    return Published("paper", ROOT / "published")


@pytest.mark.parametrize("name", ["README.md", "docs/reproduction.md"])
def test_numbers_in_texts_are_those_of_the_records(paper, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert generated.MARKED.search(text), f"{name} has no generated part"
    assert generated.filled(text, generated.parts(paper), name) == text, f"{name}: make readme renews it"


def test_the_published_study_is_whole_small_and_what_the_plan_asks_for(paper, monkeypatch):
    monkeypatch.chdir(ROOT)
    paper.check()
    assert sum(path.stat().st_size for path in paper.folder.rglob("*") if path.is_file()) <= publishing.LIMIT
    assert paper.stale(inventory.made(plan_of(ROOT / "config.yaml"))) == []
