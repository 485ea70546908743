"""Settings of the figure that takes the gap between SGD and DP-SGD apart."""

from typing import ClassVar

from dprobust.displays.decomposition.display import Display as Table
from dprobust.displays.decomposition.display import check

__all__ = ["Display", "check"]


class Display(Table):
    """The table `decomposition` as a figure: a panel an eps, a bar a change of accuracy, with intervals."""

    kind: ClassVar[str] = "figure"
