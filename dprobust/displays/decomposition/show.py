"""The gap between SGD and DP-SGD taken apart, from the images that each model has right under FGSM."""

import numpy as np
import pandas as pd

from dprobust.displays.decomposition.display import Display, roles
from dprobust.rendering import covers, headings, interval
from dprobust.showing import Given
from dprobust.statistics import mean_interval


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The decomposition.

    Differences are of images right under all losses measured, model less plain SGD, seed by seed and image by image.
    The share of clipping is Shapley's: the mean of what it changes without and with noise; that of noise likewise. The
    two add up to the whole gap.

    Returns:
        The numbers: eps, quantity, kind (alone, share, run), seeds, points (percentage points of accuracy) with low and
        high, part (of the whole gap, 1 for all of it) with part_low and part_high (by the delta method). And the table.
    """
    four = roles(given.runs)
    # All of them are coupled: that one is tells nothing.
    own = [run.own.items() for run in given.runs]
    bare = [{key: value for key, value in items if key != "coupled"} for items in own]
    names = headings([run.model_copy(update={"own": of}) for run, of in zip(given.runs, bare, strict=True)])
    rows = []
    for eps in settings.eps:
        right = {run.name: _right(given, run.name, eps) for run in given.runs}
        plain, clipping, noise, both = (right[four[role].name] for role in ("plain", "clipping", "noise", "both"))
        gap = both - plain
        terms = {
            ("both: the whole gap", "alone"): gap,
            ("clipping alone", "alone"): clipping - plain,
            ("noise alone", "alone"): noise - plain,
            ("share of clipping", "share"): ((clipping - plain) + (both - noise)) / 2,
            ("share of noise", "share"): ((noise - plain) + (both - clipping)) / 2,
            ("interaction", "share"): both - clipping - noise + plain,
        }
        others = [run for run in given.runs if run not in four.values()]
        terms |= {(names[run.name], "run"): right[run.name] - plain for run in others}
        for (quantity, kind), values in terms.items():
            points = dict(zip(("points", "low", "high"), mean_interval(100 * values), strict=True))
            row = {"eps": eps, "quantity": quantity, "kind": kind, "seeds": len(values)}
            rows.append(row | points | _part(values, gap))
    data = pd.DataFrame(rows)
    return data, _to_read(data)


def _right(given: Given, run: str, eps: float) -> np.ndarray:
    """Whether each image is right under every loss, float64 (seeds, images)."""
    found = sorted((seed, arrays) for (_, _, of, seed), arrays in given.arrays.items() if of == run)
    parts = []
    for _, arrays in found:
        at = int(np.flatnonzero(arrays["eps"] == eps)[0])
        parts.append((arrays["predicted"][:, at] == arrays["label"]).all(0))
    return np.array(parts, dtype=np.float64)


def _part(values: np.ndarray, gap: np.ndarray) -> dict[str, float]:
    whole = gap.mean()
    if whole == 0:
        return dict.fromkeys(("part", "part_low", "part_high"), float("nan"))
    part = values.mean() / whole
    ends = mean_interval((values - part * gap) / whole + part)
    return dict(zip(("part", "part_low", "part_high"), ends, strict=True))


def _to_read(data: pd.DataFrame) -> pd.DataFrame:
    covered = covers(data["seeds"].max())
    return pd.DataFrame(
        {
            "eps": f"{item.eps:g}",
            "what": item.quantity,
            f"points of accuracy [{covered}]": interval(item.points, item.low, item.high, form="+"),
            f"% of the gap [{covered}]": interval(100 * item.part, 100 * item.part_low, 100 * item.part_high, 0),
        }
        for item in data.itertuples()
    )
