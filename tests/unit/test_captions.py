"""Captions of figures: they render with what they are told, and say of bands, losses and images what is so."""

import re
from pathlib import Path
from types import SimpleNamespace

import docutils.core
import jinja2
import pytest
import yaml
from helpers import ROOT
from snakemake.utils import update_config

from dprobust import reporting
from dprobust.plan import Plan
from dprobust.showing import intervals
from dprobust.study import Study

METRICS = ("fgsm", "pgd_iterations", "cross_sections", "distances", "curvature", "audit", "membership", "certificates")
NO_INTERVALS = {
    "contact_sheet": "images, no numbers",
    "cross_sections": "each plane is of one image and one trained network",
    "fig1": "each plane is of one image and one trained network",
    "attack_check": "there are no intervals",
    "audit": "each seed is an audit of its own",
    "privacy": "it has no interval",
}
"""Captions of what shows no mean over seeds and images -> what says so."""
CAPTIONS = [
    *(ROOT / "dprobust" / "metrics" / metric / "caption.rst" for metric in METRICS),
    ROOT / "dprobust" / "displays" / "contact_sheet" / "caption.rst",
    *sorted((ROOT / "workflow" / "captions").glob("fig*.rst")),
]
TOLD = {
    "title": "T.",
    "settings": {
        "title": "T",
        "losses": ["ce", "ce_stable", "worst"],
        "relative": True,
        "loss": "ce",
        "norm": "linf",
        "paper_means": [0.154, 0.131],
        "paper_change": -0.112,
        "paper_ratio": 100.0,
        "ceilings": True,
    },
    "seeds": 5,
    "intervals": intervals(5),
    "images": dict.fromkeys(METRICS, 321),
    "measured": {
        "fgsm": {"losses": ["ce", "margin"]},
        "pgd_iterations": {"steps": 40, "losses": ["ce", "margin"]},
        "cross_sections": {"half_width": 10.0},
        "certificates": {"pgd_steps": 40, "eps": [0.01, 0.02]},
    },
    "trained": "epochs: 50 (SGD), 50 (DP-SGD)",
    "delta": 1e-6,
    "dataset": "mnist",
    "pretraining": {"dataset": "cifar100"},
}


def rendered(path: Path, **changes) -> str:
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(path.read_text(encoding="utf-8"))
    source = template.render(snakemake=SimpleNamespace(params=SimpleNamespace(told=TOLD | changes)))
    document = docutils.core.publish_doctree(source, settings_overrides={"report_level": 1, "halt_level": 2})
    return " ".join(document.astext().split())


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_caption(path):
    text = rendered(path)
    assert len(text) > 200 and rendered(path, pretraining=None, seeds=1, intervals=intervals(1))
    figure = path.stem if path.stem != "caption" else path.parent.name
    if figure not in ("contact_sheet", "audit"):
        assert "321 mnist test images" in text and "random" in text and "the same in every figure" in text
    if figure in ("fgsm", "fig2", "fig3a", "fig3b", "fig3c", "fig7", "fig6_fgsm"):
        assert "round-off" in text and "ce_stable" in text and "ce, margin" in text  # the worst case is over these
        assert "single-step attacks only" in text
    if "pgd" in figure or "fig4" in figure:
        assert "can make DP-SGD look more robust" in text
    # Lines of one word were a caption's layout once.
    paragraphs = [part.splitlines() for part in path.read_text(encoding="utf-8").split("\n\n")]
    lines = [line for lines in paragraphs for line in lines[:-1] if not line.startswith("{% set")]
    assert min(map(len, lines)) > 60 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("preset", [None, "why", "my-models", "audit"], ids=str)
def test_every_display_says_what_its_intervals_are(preset):
    """In words of its caption, with several seeds and with one, which covers no others."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    if preset:
        update_config(config, yaml.safe_load((ROOT / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")))
    for seeds in ([0], [0, 1]):
        study = Study(config | {"seeds": seeds})
        plan = Plan(study, ROOT / "workflow" / "scripts")
        for display in study.displays.values():
            path = plan.caption(display)
            words = " ".join(re.sub(r"<[^>]+>", "", reporting.caption_html(path, plan.told(display))).split())
            reason = NO_INTERVALS.get(display.settings.shows)
            if reason:
                assert reason in words or reason == NO_INTERVALS["contact_sheet"], display.name
            else:
                assert intervals(len(seeds)) in words, display.name
            assert "smallest to the largest" not in words or display.settings.shows == "audit", display.name
            assert "±" not in words and "standard deviation over" not in words, display.name
    assert "other trainings are not covered" in intervals(1) and "95 %" in intervals(1) and "95 %" in intervals(2)


def test_what_the_paper_states_is_said_only_of_what_it_states():
    settings = TOLD["settings"] | {"paper_means": [], "paper_change": None, "paper_ratio": None}
    for metric in ("distances", "curvature"):
        path = ROOT / "dprobust" / "metrics" / metric / "caption.rst"
        for word in ("The paper states", "The paper finds"):
            assert word not in rendered(path, settings=settings)
    text = rendered(ROOT / "dprobust" / "metrics" / "distances" / "caption.rst")
    assert "a drop of 14.9 %" in text and "a drop of 11.2 %" in text


@pytest.mark.parametrize("preset", [None, *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p and p.stem)
def test_captions_of_whole_studies_have_no_holes(preset):
    """Every display of the paper and of the presets, with what its study tells."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    if preset:
        update_config(config, yaml.safe_load(preset.read_text(encoding="utf-8")))
    study = Study(config)
    plan = Plan(study, ROOT / "workflow" / "scripts")
    for display in study.displays.values():
        words = re.sub(r"<[^>]+>", "", reporting.caption_html(plan.caption(display), plan.told(display)))
        assert not re.search(r"[?!.][.,]|\{|None|  | [.,]", words), f"{display.name}: {words}"
