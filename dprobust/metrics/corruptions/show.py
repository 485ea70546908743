"""Accuracy on corrupted test sets (Table 2): a row a corruption, a column a run, the paper's value beside each."""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from dprobust.metrics.corruptions.display import Display
from dprobust.paper import Paper
from dprobust.rendering import covers, headings, interval
from dprobust.showing import Given
from dprobust.statistics import summary

OFFICIAL = (
    *("brightness", "fog", "impulse_noise", "rotate", "shot_noise", "translate", "canny_edges", "glass_blur", "scale"),
    *("spatter", "zigzag", "dotted_line", "motion_blur", "shear", "stripe"),
)
"""The corruptions of the main archive of MNIST-C; the other 16 of the paper's are its leftovers."""


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2.

    Of the records: rows with corruption and source; the arrays corruption, predicted and label.

    Returns:
        The numbers, in percent: corruption ("identity" is the clean set), source, run (or "a - b" for the difference of
        the first two, images and seeds paired), mean, low, high (95 % interval over seeds and images,
        `dprobust.statistics`), seeds, paper, paper_is (`dprobust.paper.Stated.origin`). And the table to read: the mean
        over seeds with its interval, beside it the paper's value; after the first two runs their difference in
        percentage points. Last come the averages over all corruptions and, where they are among them, over the official
        15 of MNIST-C.
    """
    records = given.records["corruptions"]
    names = [name for name in records["corruption"].unique() if name != "identity"]
    averages = {f"average of {len(names)}": names}
    if set(OFFICIAL) < set(names):
        averages["average of the official 15"] = list(OFFICIAL)

    def right(arrays: Mapping[str, np.ndarray]) -> dict[Hashable, np.ndarray]:
        """Of a corruption whether an image is right, of an average the share of the corruptions it is right under."""
        found = dict(zip(arrays["corruption"].tolist(), arrays["predicted"] == arrays["label"], strict=True))
        return found | {name: np.mean([found[member] for member in members], 0) for name, members in averages.items()}

    values = given.outcomes("corruptions", right)
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
        accuracy = {run.name: 100 * values[run.name, name] for run in given.runs}
        texts[name] = {}
        for column in columns:
            if column in accuracy:
                found = summary(accuracy[column], within=(0, 100))
                stated = paper.average(name, averages.get(name, ()), column)
            else:
                found = summary(accuracy[first], accuracy[second])
                stated = paper.difference(name, first, second, averages.get(name, ()))
            row = {"corruption": name, "source": sources.get(name, ""), "run": column} | found
            rows.append(row | {"paper": stated.value, "paper_is": stated.origin})
            text = interval(row["mean"], row["low"], row["high"])
            texts[name][titles[column]] = f"{text} {stated}".rstrip()
    data = pd.DataFrame(rows)
    head = f"corruption: accuracy in % [{covers(data['seeds'].max())}]"
    return data, pd.DataFrame.from_dict(texts, orient="index").rename_axis(head).reset_index()
