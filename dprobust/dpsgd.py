"""Private training without the workflow."""

from dprobust.engines import ENGINES, clipped_gradient_sum

__all__ = ["ENGINES", "clipped_gradient_sum"]
