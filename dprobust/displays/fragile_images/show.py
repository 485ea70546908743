"""Which images do two models lose in common? Pairs of models, compared image by image."""

from collections.abc import Mapping
from html import escape
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from dprobust.displays.fragile_images.display import Display
from dprobust.rendering import headings
from dprobust.showing import Given

COUNTS = ("both", "only_first", "only_second", "neither")
COLUMNS = ("first", "second", "seed", "images", *COUNTS, "p")


def show(given: Given, settings: Display) -> tuple[str, pd.DataFrame]:
    """The page.

    An image is lost if the model has it right without the attack and wrong under it. Two models are compared on the
    images that both have right without the attack, seed by seed: the models of a seed are one pair.

    Returns:
        HTML: for each pair of models the table of its counts, means over seeds, and the p values. And the numbers:
        first, second, seed, images (right by both without attack), lost by both, only_first, only_second, neither, and
        p: of McNemar's exact test, two-sided, that an image lost by one of them only is as likely one's as the other's.
    """
    titles = {name: escape(title) for name, title in headings(given.runs).items()}
    seeds = {run: sorted(key[3] for key in given.arrays if key[0] == "fgsm" and key[2] == run) for run in titles}
    rows, parts = [], []
    for first, second in combinations(titles, 2):
        pairs = []
        for seed in sorted(set(seeds[first]) & set(seeds[second])):
            arrays = [given.arrays["fgsm", settings.dataset, run, seed] for run in (first, second)]
            pairs.append({"first": first, "second": second, "seed": seed} | _compare(*arrays, settings))
        rows += pairs
        parts.append(_table(pd.DataFrame(pairs, columns=COLUMNS), titles[first], titles[second]))
    note = f'<p class="soft">{escape(given.note)}</p>\n' if given.note else ""
    return "\n".join(parts) + note, pd.DataFrame(rows, columns=COLUMNS)


def _compare(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], settings: Display) -> dict[str, float]:
    _, of_first, of_second = np.intersect1d(first["index"], second["index"], assume_unique=True, return_indices=True)
    right, lost = [], []
    for arrays, places in ((first, of_first), (second, of_second)):
        right.append(_right(arrays, 0.0, settings.loss)[places])
        lost.append(~_right(arrays, settings.eps, settings.loss)[places])
    both_right = right[0] & right[1]
    a, b = lost[0][both_right], lost[1][both_right]
    counts = [int(np.sum(mask)) for mask in (a & b, a & ~b, ~a & b, ~a & ~b)]
    apart = counts[1] + counts[2]
    p = binomtest(counts[1], apart).pvalue if apart else 1.0
    return {"images": int(both_right.sum())} | dict(zip(COUNTS, counts, strict=True)) | {"p": p}


def _right(arrays: Mapping[str, np.ndarray], eps: float, loss: str) -> np.ndarray:
    """Whether the class is right at an eps, bool (N,); under `worst` it must be along every loss."""
    at = int(np.flatnonzero(np.isclose(arrays["eps"], eps, rtol=0, atol=1e-6))[0])  # the file may have float32
    right = arrays["predicted"][:, at] == arrays["label"]
    return right.all(0) if loss == "worst" else right[list(arrays["loss"]).index(loss)]


def _table(pairs: pd.DataFrame, first: str, second: str) -> str:
    """Two rows and columns of counts: kept and lost by the first and by the second model."""
    if pairs.empty:
        return f"<p>{first} and {second} have no seed in common.</p>\n"
    both, only_first, only_second, neither = (f"{pairs[name].mean():.4g}" for name in COUNTS)
    chances = ", ".join(f"{p:.2g}" for p in pairs["p"])
    seeds = f", means over {len(pairs)} seeds" if len(pairs) > 1 else ""
    return f"""<table class="data">
<thead><tr><th></th><th>{second}: kept</th><th>{second}: lost</th></tr></thead>
<tbody>
<tr><th>{first}: kept</th><td>{neither}</td><td>{only_second}</td></tr>
<tr><th>{first}: lost</th><td>{only_first}</td><td>{both}</td></tr>
</tbody>
</table>
<p>{pairs["images"].mean():.4g} images that both have right without the attack{seeds}; McNemar's exact p: {chances}.</p>
"""
