"""The accuracy table of all runs of all datasets."""

from typing import ClassVar

from dprobust.settings import DisplaySettings


class Display(DisplaySettings):
    """A table of what every run reaches without attack."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("clean",)
    images: ClassVar[bool] = True
    training: ClassVar[bool] = True
    pretraining: ClassVar[bool] = True

    paper: str | None = "accuracy.csv"
    """File in workflow/paper/ with the accuracies that the paper states, in percent: columns dataset, run, accuracy;
    null for none."""
