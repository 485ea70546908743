"""Batches that do not fit into memory, computed in parts."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dprobust.errors import UserError

logger = logging.getLogger(__name__)


class Halved:
    """A function of a batch that is called on halves, quarters and so on of it once memory has run out.

    With memory enough it is the function itself. In parts the result is the same but for the rounding of sums, and what
    a layer does to a batch as a whole (batch normalisation, dropout) it does to each part.

    Args:
        function: takes tensors of equal length.
        join: makes one result of those of the parts.

    Attributes:
        parts: in how many parts a batch is computed; it doubles each time memory runs out.
    """

    def __init__(self, function: Callable[..., Any], join: Callable[[Sequence[Any]], Any]) -> None:
        self.function, self.join, self.parts = function, join, 1

    def __call__(self, *tensors: Tensor) -> Any:
        """The function's result for the whole batch.

        Raises:
            UserError: a single example does not fit.
        """
        n = len(tensors[0])
        while True:
            parts = max(1, min(self.parts, n))
            try:
                if parts == 1:
                    return self.function(*tensors)
                slices = zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True)
                return self.join([self.function(*part) for part in slices])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if parts >= n:
                    told = str(error).splitlines()[0]
                    raise UserError(
                        f"out of memory with one example at a time ({told}); use a larger machine"
                    ) from None
            self.parts = 2 * parts
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning("out of memory: batches are computed in %d parts from here on", self.parts)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether it says that memory ran out, a GPU's or the machine's."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
