"""The privacy table of all runs of all datasets."""

from typing import ClassVar

from dprobust.settings import DisplaySettings


class Display(DisplaySettings):
    """A table of the privacy of every run: accounted for what we trained, as stated for given weights."""

    kind: ClassVar[str] = "table"
    metrics: ClassVar[tuple[str, ...]] = ("clean",)  # its records say which runs there are of which dataset
    privacy: ClassVar[bool] = True
