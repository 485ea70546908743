"""One run of the whole DAG on real MNIST, and what follows from it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import shown
from helpers import ROOT

from dprobust import arrays, records
from dprobust.arrays import draw

FGSM = ("fig2", "fig3a", "fig3b", "fig3c", "fig7")
PGD = ("fig4", "fig4_stable", "fig4_strongest")
FIGURES = (*FGSM, *PGD, "fig2_strongest", "fig1", "fig5a", "fig5b", "fig5c")
TABLES = ("table1", "table2", "ladder")
ALL = (*FIGURES, *TABLES, "accuracy_table", "privacy_table", "mnist_c_generate", "attack_check", "claims")
RESULTS = "results/smoke"
DRAW = "mnist/test"
FIRST = draw(10_000, None, DRAW)


def test_every_target_is_there(smoke):
    results = smoke.folder / RESULTS
    for figure in FIGURES:
        assert (results / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
    for suffix in ("csv", "tex", "html"):
        for table in ("privacy", "accuracy", *TABLES):
            assert (results / f"tables/{table}.{suffix}").stat().st_size > 500


def test_the_console_has_a_line_a_job(smoke):
    """What, run, seed, seconds, and a total; all that Snakemake says itself is in its log."""
    lines = [line for line in smoke.output.splitlines() if "; at work: " not in line]  # on a slow machine
    done = [line for line in lines if re.match(r" *\d+ of \d+  ", line)]
    total = int(done[-1].split(" of ")[1].split()[0])
    assert len(done) == total > 40 and len(lines) <= total + 10
    seconds = (
        r" *\d+ of \d+  Training sgd on mnist, seed 1: \d+ (s|min), \d+\.\d %(; (about|more than) \d+ (s|min) left)?"
    )
    assert sum(bool(re.fullmatch(seconds, line)) for line in done) == 1
    (log,) = (line.rpartition(": ")[2] for line in lines if line.startswith("Snakemake's own words"))
    assert Path(log).read_text(encoding="utf-8").count("Finished jobid") >= total


def test_an_interpreter_whose_path_has_spaces(ready, tmp_path):
    """As in a clone in such a folder."""
    spaced = tmp_path / "some folder"
    spaced.mkdir()
    (spaced / "venv").symlink_to(Path(sys.prefix))
    target = f"{RESULTS}/models/mnist/sgd/seed=0/train.json"
    command = [str(spaced / "venv" / "bin" / "python"), *ready.command(target)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (ready.folder / target).exists(), done.stderr[-2000:]


def test_second_run_has_nothing_to_do(smoke):
    assert "Nothing to be done" in smoke.run().output
    assert "Nothing to be done" in smoke.run("--dry-run").output


def test_records_are_tidy_and_complete(smoke):
    folder = smoke.folder / RESULTS / "records/mnist/dpsgd_sigma=1.3_clip=1.0/seed=1"
    record = pd.read_csv(folder / "fgsm.csv")
    assert list(record) == ["dataset", "run", "seed", "metric", "loss", "eps", "n", "value"]
    accuracy = record[record["metric"] == "accuracy"]
    assert sorted(accuracy["loss"].unique()) == ["ce", "ce_stable", "margin", "worst"]
    assert len(accuracy) == 4 * 4 and set(record["n"]) == {500} and record["value"].between(0, 1).all()
    clean = accuracy[accuracy["eps"] == 0]["value"]
    trained = json.loads(
        (smoke.folder / RESULTS / "models/mnist/dpsgd_sigma=1.3_clip=1.0/seed=1/train.json").read_text()
    )
    assert set(clean) == {trained["history"][-1]["test_accuracy"]}
    assert set(record["metric"]) == {"accuracy", "p_true_is_1", "zero_gradient"}


def test_pgd_record(smoke):
    """Without attack, and for each eps after 30 and after 40 steps; the stronger attack leaves fewer right."""
    record = pd.read_csv(smoke.folder / RESULTS / "records/mnist/sgd/seed=1/pgd.csv")
    columns = ["loss", "eps", "alpha", "steps", "random_start", "restarts"]
    assert list(record) == ["dataset", "run", "seed", "metric", *columns, "n", "value"]
    assert list(record["loss"].unique()) == ["ce", "margin", "worst"]
    for _, rows in record.groupby("loss"):
        cases = [(0.0, 0), *((eps, steps) for eps in (0.1, 0.2, 0.3) for steps in (30, 40))]
        assert list(zip(rows["eps"], rows["steps"], strict=True)) == cases
        assert rows["value"].iloc[0] > rows["value"].iloc[1] >= rows["value"].iloc[-1]
    values = record.pivot(index=["eps", "steps"], columns="loss", values="value")
    assert (values["worst"] <= values[["ce", "margin"]].min(axis=1)).all()
    assert set(record["n"]) == {32} and set(record["alpha"]) == {0.01}


def test_pgd_iterations_record(smoke):
    """Every image is counted once; those wrong from the start are as many for every attack."""
    record = pd.read_csv(smoke.folder / RESULTS / "records/mnist/sgd/seed=1/pgd_iterations.csv")
    assert set(record.groupby(["loss", "eps", "alpha"])["value"].sum()) == {32} and len(record) == 4 * 3 * 2 * 42
    assert record.loc[record["iterations"] == 0, "metric"].eq("wrong_from_the_start").all()
    assert record.loc[record["iterations"] == 0, "value"].nunique() == 1
    assert list(record.loc[record["iterations"] == 40, "metric"]) == ["fooled", "never_fooled"] * 24


def test_cross_sections_record(smoke):
    """Whole grids, of the same images for every model; the class in the middle is the one predicted."""
    pixels = []
    for path in sorted((smoke.folder / RESULTS / "records/mnist").glob("*/seed=*/cross_sections.csv")):
        record = pd.read_csv(path)
        sizes = record.groupby(["sample", "metric"])["repeat"].sum().unstack()
        assert list(sizes.index) == sorted(FIRST[:2])
        assert set(sizes["class"]) == {21**2} and set(sizes["pixel"]) == {28**2}
        for sample in sizes.index:
            grids = record[record["sample"] == sample].set_index("metric")[["repeat", "value"]]
            classes = grids.loc["class", "value"].repeat(grids.loc["class", "repeat"])
            assert classes.iloc[21**2 // 2] == grids.loc["predicted", "value"]
        pixels.append(record.loc[record["metric"] == "pixel", ["sample", "repeat", "value"]].to_csv(index=False))
    assert len(pixels) == 4 and len(set(pixels)) == 1


def test_distances_record(smoke):
    """A row an image; DeepFool on the first 40 of the draw of 100; the nearest boundary is nearer in linf."""
    record = pd.read_csv(smoke.folder / RESULTS / "records/mnist/sgd/seed=1/distances.csv")
    assert list(record["index"]) == sorted(draw(10_000, 100, DRAW))
    for norm in ("l2", "linf"):
        assert set(record.loc[record[f"deepfool_{norm}"].notna(), "index"]) == set(draw(10_000, 40, DRAW))
    assert (record["linf"] <= record["l2"]).all() and (record["l2"] > 0).all()
    pd.testing.assert_series_equal(record["linf_signed"] >= 0, record["correct"], check_names=False)


def test_curvature_record(smoke):
    """The same random images for every model, the first of the study's draw."""
    drawn = []
    for path in sorted((smoke.folder / RESULTS / "records/mnist").glob("*/seed=*/curvature.csv")):
        record = pd.read_csv(path)
        assert dict(record["metric"].value_counts()) == {
            "eigenvalue": 150,
            "finite_difference": 40,
            "confidence_free": 10,
        }
        assert (record.loc[record["rank"] >= 10, "value"] == 0).all()
        assert (record.loc[~(record["rank"] >= 10), "value"] > 0).all()
        drawn.append(list(record["index"][:10]))
    assert len(drawn) == 4 and all(index == sorted(draw(10_000, 10, DRAW)) for index in drawn)


def test_every_image_is_kept_and_the_same_in_every_metric(smoke):
    """Beside each CSV an .npz with place and label; fewer images are the beginning of the same draw."""
    folder = smoke.folder / RESULTS / "records/mnist/sgd/seed=1"
    test = arrays.load(smoke.folder / "data/mnist/test.npz")
    sizes = {"clean": 500, "fgsm": 500, "corruptions": 500, "distances": 100, "pgd": 32, "pgd_iterations": 32}
    for metric, n in (sizes | {"curvature": 10, "cross_sections": 2}).items():
        kept = records.Arrays(folder / f"{metric}.npz")
        np.testing.assert_array_equal(kept["index"], np.sort(draw(10_000, 500, DRAW)[:n]), err_msg=metric)
        np.testing.assert_array_equal(kept["label"], test.labels[kept["index"]], err_msg=metric)
    logits = records.Arrays(folder / "clean.npz")["logits"]
    fgsm = records.Arrays(folder / "fgsm.npz")
    assert logits.dtype == np.float32 and logits.shape == (500, 10)
    np.testing.assert_array_equal(logits.argmax(1), fgsm["predicted"][0, 0])
    record = pd.read_csv(folder / "fgsm.csv")
    right = (fgsm["predicted"] == fgsm["label"]).mean(axis=2)
    stated = record[(record["metric"] == "accuracy") & (record["loss"] != "worst")]["value"].to_numpy()
    np.testing.assert_allclose(right.ravel(), stated)
    worst = (fgsm["predicted"] == fgsm["label"]).all(axis=0).mean(axis=1)
    np.testing.assert_allclose(worst, record[record["loss"] == "worst"]["value"])


def test_provenance(smoke):
    folder = smoke.folder / RESULTS / "models/mnist/sgd/seed=0"
    trained = json.loads((folder / "train.json").read_text())
    assert trained["mechanism"]["steps"] == 8 and trained["mechanism"]["noise_multiplier"] is None
    assert trained["settings"]["training"]["sampling"] == "shuffle" and trained["device"]
    assert trained["versions"]["torch"] and len(trained["inputs"]) == 2
    assert not (folder / "checkpoint.safetensors").exists()
    assert list((smoke.folder / RESULTS / "benchmarks/train/mnist/sgd").iterdir())


def test_sgd_learns(smoke):
    """Eight steps on 2,048 images: far above chance."""
    data = pd.read_csv(smoke.folder / RESULTS / "figures/fig2.csv")
    clean = data[(data["run"] == "sgd") & (data["eps"] == 0) & (data["loss"] == "ce") & data["minus"].isna()]
    assert clean["mean"].item() > 0.3 and clean["seeds"].item() == 2


def test_privacy_table(smoke):
    table = pd.read_csv(smoke.folder / RESULTS / "tables/privacy.csv")
    assert set(table["steps"]) == {8} and set(table["sample_rate"]) == {256 / 2048}
    sigma = table[table["run"] == "dpsgd_sigma=1.3_clip=0.5_noise=sigma"]
    assert set(sigma["noise_multiplier"]) == {2.6}


def test_report_is_one_self_contained_page(smoke):
    page = (smoke.folder / RESULTS / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(FIGURES) + 1  # and the contact sheet
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for figure in FIGURES:
        assert f'id="{figure}"' in page
    assert "{{" not in page and "system-message" not in page
    assert "80.63" in page and "99.14" in page  # what the paper states stands in the tables


def test_a_browser_shows_the_report_whole(smoke, tmp_path):
    found, console = shown(smoke.folder / RESULTS / "report.html", tmp_path, (390, 1280))
    assert console == []
    for view in found.values():
        assert view.images == len(FIGURES) + 1
        assert (view.overflow, view.broken) == (0, 0)


def test_snakemakes_own_report(smoke, tmp_path):
    smoke.run("--report", tmp_path / "report.zip")
    assert (tmp_path / "report.zip").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"label": "another"}, {*ALL, "report", "all"}),
        (
            {"datasets": {"mnist": {"metrics": {"fgsm": {"losses": ["ce", "ce_stable"]}}}}},
            {"measure", *FGSM, "claims", "report", "all"},
        ),
        # Captions tell of delta; trainings and records of metrics do not.
        (
            {"datasets": {"mnist": {"privacy": {"deltas": [1e-7]}}}},
            {"account", *ALL, "report", "all"} - {"accuracy_table"},
        ),
        ({"figures": {"fig7": {"title": "Other"}}}, {"fig7", "report", "all"}),
        (
            {"datasets": {"mnist": {"metrics": {"pgd": {"alpha": 0.02}}}}},
            {"measure", "table1", "claims", "report", "all"},
        ),
        (
            {"datasets": {"mnist": {"metrics": {"curvature": {"images": 11}}}}},
            {"measure", "fig5c", "claims", "report", "all"},
        ),
        ({"datasets": {"mnist": {"mirrors": ["elsewhere"]}}}, set()),
    ],
    ids=["label", "losses", "deltas", "title", "alpha", "images", "mirror"],
)
def test_an_edit_reruns_what_it_touches(smoke, tmp_path, change, jobs):
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(json.dumps(change))
    config = (ROOT / "presets" / "smoke.yaml", overlay)
    assert set(smoke.planned(config=config)) == jobs


def test_training_settings_touch_their_algorithm_only(smoke, tmp_path):
    overlay = tmp_path / "edit.yaml"
    overlay.write_text(json.dumps({"datasets": {"mnist": {"training": {"sgd": {"lr": 0.1}}}}}))
    jobs = smoke.planned("models", config=(ROOT / "presets" / "smoke.yaml", overlay))
    assert jobs == {"train": 2, "models": 1}


def test_times_of_files_and_files_made_again_alike_rerun_nothing(smoke):
    """Data touched, results of a stage touched, the clock set back, data made again: nothing to be done."""
    data, results = smoke.folder / "data" / "mnist", smoke.folder / RESULTS
    sets = sorted(data.with_name("mnist_c").glob("*.*"), key=lambda path: path.stem != "pessimal")
    files = [*data.parent.rglob("*"), *results.rglob("*")]
    times = {path: path.stat() for path in files if path.is_file()}
    try:
        touched = [data / "train.npz", *results.rglob("model.safetensors"), *results.rglob("fgsm.csv")]
        # The corrupted sets may have been copied here, so that nobody knows what they were made from.
        for path in (*touched, *sets):
            os.utime(path)
        assert "Nothing to be done" in smoke.run("--dry-run").output
        for path in results.rglob("*.json"):
            os.utime(path, (0, 0))
        content = (data / "train.npz").read_bytes()
        (data / "train.npz").unlink()
        smoke.run("data/mnist/train.npz")
        assert (data / "train.npz").read_bytes() == content
        for path in sets:
            os.utime(path)
        assert "Nothing to be done" in smoke.run("--dry-run").output
    finally:
        for path, state in times.items():
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_study_whose_words_have_braces(smoke, tmp_path):
    """Snakemake's report puts wildcards into what it shows of them."""
    (overlay := tmp_path / "braces.yaml").write_text('figures: {fig2: {title: "of {sigma}"}}\nlabel: "{x"\n')
    smoke_preset = str(ROOT / "presets" / "smoke.yaml")
    command = [sys.executable, "-m", "snakemake", "--directory", str(smoke.folder), "--report", str(tmp_path / "r.zip")]
    done = subprocess.run(
        [*command, "fig2", "--configfile", smoke_preset, str(overlay)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_batches_of_everything(ready, smoke):
    """The page is written with the last one."""
    jobs = ready.planned("--batch", "all=1/2")
    assert jobs["train"] > 0 and "report" not in jobs
    for batch in ("all=1/2", "all=2/2"):
        assert "Nothing to be done" in smoke.run("--dry-run", "--batch", batch).output
