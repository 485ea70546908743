"""Which images do two models lose in common? Pairs of models, compared image by image."""

from collections.abc import Mapping
from html import escape
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from dprobust.displays.fragile_images.display import Display
from dprobust.rendering import covers, headings, interval
from dprobust.showing import Given
from dprobust.statistics import summary

COUNTS = ("both", "only_first", "only_second", "neither")
COLUMNS = ("first", "second", "seed", "images", *COUNTS, "p")
ENDS = [f"{name}_{end}" for name in COUNTS for end in ("low", "high")]


def show(given: Given, settings: Display) -> tuple[str, pd.DataFrame]:
    """The page.

    An image is lost if the model has it right without the attack and wrong under it. Two models are compared on the
    images that both have right without the attack, seed by seed: the models of a seed are one pair.

    Returns:
        HTML: for each pair of models the table of its counts in percent of the images that both have right, with 95 %
        intervals over seeds and images (`dprobust.statistics`), and the p values. And the numbers: first, second, seed,
        images (right by both without attack), lost by both, only_first, only_second, neither, and p: of McNemar's exact
        test, two-sided, that an image lost by one of them only is as likely one's as the other's. A last row of each
        pair, of seed "all", has percent instead, with both_low to neither_high.
    """
    titles = {name: escape(title) for name, title in headings(given.runs).items()}
    seeds = {run: sorted(key[3] for key in given.arrays if key[0] == "fgsm" and key[2] == run) for run in titles}
    rows, parts = [], []
    for first, second in combinations(titles, 2):
        pairs, cells = [], []
        for seed in sorted(set(seeds[first]) & set(seeds[second])):
            arrays = [given.arrays["fgsm", settings.dataset, run, seed] for run in (first, second)]
            cells.append(_compare(*arrays, settings))
            pairs.append({"first": first, "second": second, "seed": seed} | _counts(cells[-1]))
        shares = {name: summary(np.stack([of[name] for of in cells]), within=(0, 100)) for name in COUNTS if cells}
        rows += pairs
        if cells:
            rows.append({"first": first, "second": second, "seed": "all"} | _flat(shares))
        parts.append(_table(pd.DataFrame(pairs, columns=COLUMNS), shares, titles[first], titles[second]))
    note = f'<p class="soft">{escape(given.note)}</p>\n' if given.note else ""
    return "\n".join(parts) + note, pd.DataFrame(rows, columns=[*COLUMNS, *ENDS])


def _compare(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], settings: Display
) -> dict[str, np.ndarray]:
    """Cell of the table -> 100 for the images in it, nan for those that one of the models has wrong without attack."""
    _, of_first, of_second = np.intersect1d(first["index"], second["index"], assume_unique=True, return_indices=True)
    right, lost = [], []
    for arrays, places in ((first, of_first), (second, of_second)):
        right.append(_right(arrays, 0.0, settings.loss)[places])
        lost.append(~_right(arrays, settings.eps, settings.loss)[places])
    a, b = lost
    cells = zip(COUNTS, (a & b, a & ~b, ~a & b, ~a & ~b), strict=True)
    return {name: np.where(right[0] & right[1], 100.0 * mask, np.nan) for name, mask in cells}


def _counts(cells: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of one seed: how many images there are, in all and in each cell, and p."""
    counts = {name: int((values == 100).sum()) for name, values in cells.items()}
    apart = counts["only_first"] + counts["only_second"]
    p = binomtest(counts["only_first"], apart).pvalue if apart else 1.0
    return {"images": sum(counts.values())} | counts | {"p": p}


def _flat(shares: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """As columns of a row."""
    ends = {f"{name}_{end}": found[end] for name, found in shares.items() for end in ("low", "high")}
    return {name: found["mean"] for name, found in shares.items()} | ends


def _right(arrays: Mapping[str, np.ndarray], eps: float, loss: str) -> np.ndarray:
    """Whether the class is right at an eps, bool (N,); under `worst` it must be along every loss."""
    at = int(np.flatnonzero(np.isclose(arrays["eps"], eps, rtol=0, atol=1e-6))[0])  # the file may have float32
    right = arrays["predicted"][:, at] == arrays["label"]
    return right.all(0) if loss == "worst" else right[list(arrays["loss"]).index(loss)]


def _table(pairs: pd.DataFrame, shares: Mapping[str, Mapping[str, float]], first: str, second: str) -> str:
    """Two rows and columns of shares: kept and lost by the first and by the second model."""
    if pairs.empty:
        return f"<p>{first} and {second} have no seed in common.</p>\n"
    both, only_first, only_second, neither = (
        interval(*(shares[name][end] for end in ("mean", "low", "high")), digits=1) for name in COUNTS
    )
    chances = ", ".join(f"{p:.2g}" for p in pairs["p"])
    seeds = f", means over {len(pairs)} seeds" if len(pairs) > 1 else ""
    return f"""<table class="data">
<thead><tr><th>% [{covers(pairs["seed"].nunique())}]</th><th>{second}: kept</th><th>{second}: lost</th></tr></thead>
<tbody>
<tr><th>{first}: kept</th><td>{neither}</td><td>{only_second}</td></tr>
<tr><th>{first}: lost</th><td>{only_first}</td><td>{both}</td></tr>
</tbody>
</table>
<p>{pairs["images"].mean():.4g} images that both have right without the attack{seeds}; McNemar's exact p: {chances}.</p>
"""
