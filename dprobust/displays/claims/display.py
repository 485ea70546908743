"""Settings of the verdicts on claims. The study makes this display of its `claims`; no entry of the config shows it."""

from typing import ClassVar

from dprobust.claims import Claim
from dprobust.settings import DisplaySettings


class Display(DisplaySettings):
    """A table of claims, a row a claim: what is stated, what is measured, and the verdict."""

    kind: ClassVar[str] = "claims"
    metrics: ClassVar[tuple[str, ...]] = ()
    privacy: ClassVar[bool] = True
    images: ClassVar[bool] = True

    claims: list[Claim] = []
    """The claims, and what each part of them is measured by."""
