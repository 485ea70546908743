"""The privacy table of all runs of all datasets."""

from typing import ClassVar

from dprobust.settings import DisplaySettings


class Display(DisplaySettings):
    """A table of the privacy of every run: accounted for what we trained, as stated for given weights."""

    kind: ClassVar[str] = "table"
    privacy: ClassVar[bool] = True
