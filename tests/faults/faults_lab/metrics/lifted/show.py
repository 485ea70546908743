"""Accuracy on brightened images."""

import pandas as pd

from dprobust.showing import Given
from faults_lab.metrics.lifted.display import Display


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows as they are, and as percent."""
    rows = given.records["lifted"][["run", "amount", "value"]]
    return rows, rows.assign(value=[f"{100 * value:.1f}" for value in rows["value"]])
