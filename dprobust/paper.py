"""What a paper states, beside what we measure: printed values, and those computed from printed ones."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from dprobust.errors import UserError


class Stated(NamedTuple):
    """A value of the paper."""

    value: float = math.nan
    """Nan where the paper states none."""
    origin: str = ""
    """`printed`; `misprint`, printed but known to be wrong; `computed` from printed values; empty for none."""

    def __str__(self) -> str:
        """``(13.33)`` printed, ``(6.55*)`` a misprint, ``(= 6.84)`` computed; empty for none."""
        if not self.origin:
            return ""
        left, right = {"printed": "()", "misprint": ("(", "*)"), "computed": ("(= ", ")")}[self.origin]
        return f"{left}{self.value:.2f}{right}".replace("-", "−")


class Paper:
    """A file of workflow/paper: the first column names the row, further ones are named as our runs.

    A column ``RUN - RUN`` has printed differences; the column `misprint` names the column whose value in the row is
    known to be wrong. Misprints are shown, and nothing is computed from them.

    Args:
        table: as read from the file; None if there is none.
        name: of the file, for errors.

    Raises:
        UserError: a cell that is not a number.
    """

    def __init__(self, table: pd.DataFrame | None, name: str = "") -> None:
        self._values: dict[tuple[str, str], float] = {}
        self._misprints: set[tuple[str, str]] = set()
        if table is None:
            return
        key = table.columns[0]
        for row in table.to_dict("records"):
            place = str(row.pop(key))
            misprint = row.pop("misprint", None)
            if isinstance(misprint, str):
                self._misprints.add((place, misprint))
            for column, cell in row.items():
                try:
                    value = float(cell)
                except ValueError:
                    raise UserError(
                        f"{name}: {cell!r} in row {place}, column {column}, must be a number or empty"
                    ) from None
                if not math.isnan(value):
                    self._values[place, column] = value

    def value(self, row: str, column: str) -> Stated:
        """The value that the paper prints."""
        if (row, column) not in self._values:
            return Stated()
        return Stated(self._values[row, column], "misprint" if (row, column) in self._misprints else "printed")

    def average(self, row: str, members: Sequence[str], column: str) -> Stated:
        """As printed in `row`, or else the average computed from what is printed in the rows `members`."""
        printed = self.value(row, column)
        if printed.origin or not members:
            return printed
        return _computed([self.value(member, column) for member in members], lambda *values: sum(values) / len(values))

    def difference(self, row: str, first: str, other: str, members: Sequence[str] = ()) -> Stated:
        """As printed, or else computed from what the paper states of the two runs (see `average`)."""
        printed = self.value(row, f"{first} - {other}")
        if printed.origin:
            return printed
        return _computed([self.average(row, members, run) for run in (first, other)], lambda a, b: a - b)


def _computed(values: Sequence[Stated], rule: Callable[..., float]) -> Stated:
    if any(value.origin in ("", "misprint") for value in values):
        return Stated()
    return Stated(rule(*(value.value for value in values)), "computed")
