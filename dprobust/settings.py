"""Typed settings: one class says of a key its type, range, default and meaning, for config, schema and code alike.

A class of settings is a pydantic model; the text under a field is its description. Nothing here needs torch.
"""

import difflib
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """What every class of settings has in common: unknown keys, text for numbers and nan are refused."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        known = list(cls.model_fields)
        if not isinstance(value, dict):
            return value
        # A null leaves out what an overlay cannot take away: a key that is another kind's.
        value = {key: item for key, item in value.items() if key in known or item is not None}
        if (extra := next((key for key in value if key not in known), None)) is not None:
            close = difflib.get_close_matches(str(extra), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise fault(f"unknown key {extra!r}{hint} (known: {', '.join(known)})")
        return value

    def plain(self) -> dict[str, Any]:
        """As plain numbers, texts, lists and dicts."""
        return self.model_dump(mode="json")

    def brief(self) -> dict[str, Any]:
        """As `plain`, without what is as by default: ``type(settings)(**settings.brief()) == settings``."""
        return self.model_dump(mode="json", exclude_defaults=True)


def fault(message: str) -> PydanticCustomError:
    """An error to raise in a validator: its message becomes the line that the user reads, after the key."""
    return PydanticCustomError("setting", "{message}", {"message": message})


def _unique(values: list) -> list:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise fault(f"{value} is listed twice")
    return values


def _ascending(values: list) -> list:
    if values != sorted(values):
        raise fault("must be in ascending order")
    return values


Unique = AfterValidator(_unique)
Ascending = AfterValidator(_ascending)
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=60)]
"""Name of a dataset, figure, table or page."""
Count = Annotated[int, Ge(1), Le(10**9)]
Positive = Annotated[float, Gt(0), Le(1e30)]
"""What float32 holds, with room for products."""
NonNegative = Annotated[float, Ge(0), Le(1e30)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Probability = Annotated[float, Ge(1e-100), Lt(1)]
"""The accountants' grids end far above this."""
Pixels = Annotated[float, Ge(0), Le(1)]
"""A change of a pixel, pixels in [0, 1]."""
Step = Annotated[float, Gt(0), Le(1)]
EpsGrid = Annotated[list[Pixels], MinLen(1), Unique, Ascending]
Loss = Literal["ce", "ce_stable", "margin"]
"""Keys of `dprobust.attacks.LOSSES`."""
Losses = Annotated[list[Loss], MinLen(1), Unique]
ShownLoss = Literal["ce", "ce_stable", "margin", "worst"]
"""A loss, or the worst case over those measured, image by image."""


class MetricSettings(Settings):
    """What every metric has in common."""

    images: Count | None = None
    """Measure on so many of the test images in use, the first of the study's draw (the same in every metric); null
    means all."""


class DisplaySettings(Settings):
    """What every figure, table and page has in common."""

    shows: str
    """The kind of display: a folder of dprobust/metrics, dprobust/displays or an extension."""
    title: str = ""
    """Title."""
    target: Name | None = None
    """Name to ask for it by (`snakemake NAME`); null means its own."""


class DatasetDisplay(DisplaySettings):
    """A display of one dataset."""

    dataset: str = "mnist"
    """Key of the dataset."""


class Facts(Settings):
    """What is known of a dataset before its files are there; null where only they tell."""

    shape: tuple[int, int, int] | None = None
    """(C, H, W) of an image."""
    classes: int | None = None
    """Number of classes."""
    train: int | None = None
    """Training images in use."""
    test: int | None = None
    """Test images in use."""
