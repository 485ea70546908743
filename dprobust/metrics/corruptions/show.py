"""Accuracy on corrupted test sets (Table 2): a row a corruption, a column a run, the paper's value beside each."""

import math

import pandas as pd

from dprobust.metrics.corruptions.display import Display
from dprobust.paper import Paper
from dprobust.rendering import headings, less, spread
from dprobust.showing import Given

OFFICIAL = (
    *("brightness", "fog", "impulse_noise", "rotate", "shot_noise", "translate", "canny_edges", "glass_blur", "scale"),
    *("spatter", "zigzag", "dotted_line", "motion_blur", "shear", "stripe"),
)
"""The corruptions of the main archive of MNIST-C; the other 16 of the paper's are its leftovers."""


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2.

    Returns:
        The numbers, in percent: corruption ("identity" is the clean set), source, run (or "a - b" for the difference of
        the first two), mean, min, max, seeds, paper, paper_is (`dprobust.paper.Stated.origin`). And the table to read:
        the mean over seeds, beside it the paper's value; after the first two runs their difference in percentage
        points. Last come the averages over all corruptions and, where they are among them, over the official 15 of
        MNIST-C.
    """
    records = given.records["corruptions"]
    records = records[records["metric"] == "accuracy"]
    accuracy = 100 * records.pivot_table(index=["run", "seed"], columns="corruption", values="value")
    names = [name for name in records["corruption"].unique() if name != "identity"]
    averages = {f"average of {len(names)}": names}
    if set(OFFICIAL) < set(names):
        averages["average of the official 15"] = list(OFFICIAL)
    for name, members in averages.items():
        accuracy[name] = accuracy[members].mean(axis=1)
    sources = records.drop_duplicates("corruption").set_index("corruption")["source"]
    titles = headings(given.runs, short=True)
    first, second = ([run.name for run in given.runs] + [""])[:2]
    columns = list(titles)
    if second:
        columns.insert(2, difference := f"{first} - {second}")
        taken = "difference" in titles.values()
        titles[difference] = f"{titles[first]} − {titles[second]}" if taken else "difference"
    paper = Paper(given.paper, settings.paper or "paper")

    rows, texts = [], {}
    for name in ("identity", *names, *averages):
        seeds = {run: values.droplevel("run") for run, values in accuracy[name].groupby("run")}
        texts[name] = {}
        for column in columns:
            if column in seeds:
                values, stated = seeds[column], paper.average(name, averages.get(name, ()), column)
            else:
                values = less(seeds[first], seeds[second])
                stated = paper.difference(name, first, second, averages.get(name, ()))
            row = {"corruption": name, "source": sources.get(name, ""), "run": column}
            row |= values.agg(["mean", "min", "max"]).to_dict() | {"seeds": len(values)}
            rows.append(row | {"paper": stated.value, "paper_is": stated.origin})
            texts[name][titles[column]] = f"{spread(row['mean'], math.nan)} {stated}".rstrip()
    return pd.DataFrame(rows), pd.DataFrame.from_dict(texts, orient="index").rename_axis("corruption").reset_index()
