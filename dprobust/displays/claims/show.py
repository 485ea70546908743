"""The verdicts on claims: as numbers, as a table to read in Markdown and HTML, and whole as JSON."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape

import pandas as pd

from dprobust.claims import Stated
from dprobust.displays.claims.display import Display
from dprobust.judging import OTHERS, Judged, Ruling, adjusted, judged
from dprobust.showing import Given
from dprobust.verdicts import DIRECTION, LEVEL, NOT, REPRODUCED, UNDECIDED, UNMEASURED

SIGNS = {"above": ">", "below": "<", "within": "="}
NO_NUMBER = "no number"
ORDER = (REPRODUCED, DIRECTION, NOT, UNDECIDED, UNMEASURED)


def show(given: Given, settings: Display) -> tuple[pd.DataFrame, dict[str, str]]:
    """Judge the claims.

    Returns:
        The numbers, a row a claim (numbers of several parts stand in one cell, separated by "; "). And the texts "md",
        "html" and "json".
    """
    rulings = judged(given, settings.claims)
    holms = adjusted(rulings), adjusted(rulings, strongest=True)
    rows = [_row(ruling, *pair) for ruling, *pair in zip(rulings, *holms, strict=True)]
    lines = summary(rulings)
    read = _to_read(rulings, holms)
    whole = {
        "summary": lines,
        "note": given.note,
        "claims": [
            {**ruling.claim.plain(), "verdict": ruling.verdict(), "verdict_strongest": _strongest(ruling)}
            | {"p": _null(ruling.p()), "holm": _null(first), "p_strongest": _null(ruling.p(True))}
            | {"holm_strongest": _null(other), "states": [states(part) for part in ruling.claim.stated]}
            | {"measured": [part.plain() for part in ruling.paper]}
            | {"measured_strongest": [part and part.plain() for part in ruling.strongest]}
            for ruling, first, other in zip(rulings, *holms, strict=True)
        ],
    }
    told = "".join(f"<p>{escape(line)}</p>\n" for line in lines)
    return pd.DataFrame(rows), {
        "md": _markdown(read, lines, given.note),
        "html": STYLE
        + told
        + _cards(read, rulings)
        + (f'<p class="soft">{escape(given.note)}</p>\n' if given.note else ""),
        "json": json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }


def states(part: Stated) -> str:
    """What is stated, as text: ``> 0, value 15.4``."""
    told = []
    if part.direction:
        told.append(f"{SIGNS[part.direction]} {part.than:g}")
        if part.direction == "within":
            told[-1] += f" ± {part.margin:g}"
    if part.value is not None:
        told.append(f"{part.value:g}" + ("*" if part.misprint else ""))
    return ", ".join(told)


def measured(part: Judged) -> str:
    """What is measured, as text: ``14.2 [12.9, 15.5] points``."""
    text = digits(part.found.value)
    if not part.found.exact:
        text += " [{}, {}]".format(*map(digits, part.found.interval(LEVEL)))
    return f"{text} {part.unit}".rstrip().replace("-", "−")


def digits(value: float) -> str:
    """A number with three digits, as text."""
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{float(f'{value:.3g}'):g}"


def summary(rulings: Sequence[Ruling]) -> list[str]:
    """How many claims came out how, and how much that depends on level and seeds."""
    counts = Counter(ruling.verdict() for ruling in rulings)
    lines = [
        f"Verdicts on {len(rulings)} claims, as the paper measures: "
        + ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
        + "."
    ]
    mine = [ruling for ruling in rulings if ruling.paper]
    if twice := [ruling for ruling in mine if ruling.twice]:
        other = sum(ruling.verdict() != ruling.verdict(True) for ruling in twice)
        lines.append(f"By the strongest measurement here, made for {len(twice)}, {_changes(other)}.")
    seeds = max((part.found.seeds for ruling in mine for part in ruling.paper), default=0)
    levels = [sum(ruling.at(level) != ruling.verdict() for ruling in mine) for level in OTHERS]
    told = " and ".join(f"at {100 * level:g} % {_changes(n)}" for level, n in zip(OTHERS, levels, strict=True))
    lines.append(f"Intervals are at {100 * LEVEL:g} %; {told}.")
    if seeds == 1:
        lines.append(
            "There is one seed: intervals are over images only, and whether another training would give the same "
            "nobody can tell. What is left to chance stays undecided; two seeds are the least, and five are better."
        )
    elif seeds:
        moved = sum(any(name != ruling.verdict() for name in ruling.without().values()) for ruling in mine)
        lines.append(f"When a seed is left out, for at least one of the {seeds} seeds {_changes(moved)}.")
    return lines


def _changes(number: int) -> str:
    return f"{number or 'no'} verdict{'' if number == 1 else 's'} change{'s' if number == 1 else ''}"


def _strongest(ruling: Ruling) -> str:
    return ruling.verdict(True) if ruling.twice else ""


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(ruling: Ruling, first: float, other: float) -> dict[str, object]:
    claim = ruling.claim
    row = {"id": claim.id, "source": claim.source, "section": claim.section, "claim": claim.says}
    row |= {"paper": "; ".join(map(states, claim.stated))}
    for name, parts in (("", ruling.paper), ("_strongest", ruling.parts(True) if ruling.twice else ())):
        ends = [(part.found.value, *part.found.interval(LEVEL), *part.one_run) for part in parts]
        for i, key in enumerate(("ours", "low", "high", "one_run_low", "one_run_high")):
            row[key + name] = "; ".join(f"{end[i]:.6g}" for end in ends)
    mine = ruling.paper
    row |= {"unit": mine[0].unit if mine else "", "seeds": max((part.found.seeds for part in mine), default=0)}
    row |= {"images": "; ".join(str(part.found.images) for part in mine)}
    row |= {"verdict": ruling.verdict(), "verdict_strongest": _strongest(ruling)}
    row |= {"p": ruling.p(), "holm": first}
    row |= {"p_strongest": ruling.p(True) if ruling.twice else math.nan, "holm_strongest": other}
    for level in OTHERS:
        row[f"verdict_at_{100 * level:g}"] = ruling.at(level)
    row["without_seed"] = "; ".join(f"{seed}: {name}" for seed, name in ruling.without().items())
    row["seeds_that_would_decide"] = _decides(ruling)
    return row | {"shown": claim.shown, "missing": claim.missing, "note": claim.note}


def _decides(ruling: Ruling, strongest: bool = False) -> str:
    open_parts = [part for part in ruling.parts(strongest) if part.verdict == UNDECIDED]
    if not open_parts or ruling.verdict(strongest) != UNDECIDED:
        return ""
    if any(part.found.seeds == 1 for part in open_parts):
        return "2 or more"
    if any(part.decides is None for part in open_parts):
        return NO_NUMBER
    return str(max(part.decides for part in open_parts))


def _said(ruling: Ruling, strongest: bool = False) -> str:
    if not ruling.paper:
        return f"{UNMEASURED}: {ruling.claim.missing}"
    number = _decides(ruling, strongest)
    return ruling.verdict(strongest) + (
        f" ({number} of seeds would decide)"
        if number == NO_NUMBER
        else f" ({number} seeds would decide)"
        if number
        else ""
    )


def _to_read(rulings: Sequence[Ruling], holms: tuple[list[float], list[float]]) -> pd.DataFrame:
    rows = []
    for ruling, first in zip(rulings, holms[0], strict=True):
        claim = ruling.claim
        rows.append(
            {
                "": claim.id,
                "section": claim.section,
                "claim": " ".join(filter(None, (claim.says, claim.note and f"({claim.note})"))),
                "paper": "; ".join(map(states, claim.stated)),
                "ours": "; ".join(map(measured, ruling.paper)),
                "seeds": str(max(part.found.seeds for part in ruling.paper) or "exact") if ruling.paper else "",
                "verdict": _said(ruling),
                "strongest measurement": "; ".join(map(measured, ruling.parts(True))) if ruling.twice else "",
                "verdict under it": _said(ruling, True) if ruling.twice else "",
                "p": _p(ruling.p()),
                "Holm": _p(first),
                "shown in": claim.shown,
            }
        )
    return pd.DataFrame(rows)


STYLE = """<style>
.claim { display: grid; grid-template-columns: 10.5rem minmax(0, 1fr) minmax(0, 1.1fr); gap: .3rem 1.4rem;
         padding: .8rem 0; border-top: 1px solid #e3e3e6; font-size: .92rem; break-inside: avoid; }
.claim p, .claim dl { margin: 0; }
.claim .note, .claim dt { color: #6b6b70; font-size: .85rem; }
.claim dl { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr); gap: .1rem .8rem; align-content: start; }
.verdict { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-size: .82rem; font-weight: 600; }
.reproduced { background: #d7f0e8; color: #00573f; }
.direction-only { background: #dcecf8; color: #004a7a; }
.not-reproduced { background: #fbe0d3; color: #8a2f00; }
.undecided { background: #ececee; color: #3c3c40; }
.not-measured-here { background: #fff; color: #6b6b70; border: 1px solid #d0d0d4; }
@media (max-width: 46rem) { .claim { grid-template-columns: minmax(0, 1fr); } }
</style>
"""
"""Of the verdicts, in the report and alone."""


def _cards(read: pd.DataFrame, rulings: Sequence[Ruling]) -> str:
    """A block a claim, the verdict first; those that are not measured folded up at the end."""
    measured, missing = [], []
    for row, ruling in zip(read.to_dict("records"), rulings, strict=True):
        (measured if ruling.paper else missing).append(_card(row, ruling))
    folded = f"<details><summary>{len(missing)} {UNMEASURED}</summary>\n{''.join(missing)}</details>\n"
    return "".join(measured) + (folded if missing else "")


def _card(row: dict[str, str], ruling: Ruling) -> str:
    said = row["verdict"].partition(" (")[2].rstrip(")")
    under = row["verdict under it"]
    facts = {"the paper": row["paper"], "here": row["ours"]}
    if ruling.twice:
        facts |= {"strongest": row["strongest measurement"], "verdict under it": _chip(ruling.verdict(True), under)}
    facts |= {"seeds": row["seeds"], "p, Holm": ", ".join(filter(None, (row["p"], row["Holm"])))}
    if row["shown in"]:
        facts["shown in"] = f'<a href="#{escape(row["shown in"])}">{escape(row["shown in"])}</a>'
    listed = "".join(
        f"<dt>{name}</dt><dd>{text if text.startswith('<') else escape(text)}</dd>"
        for name, text in facts.items()
        if text
    )
    notes = [ruling.claim.note, "" if ruling.paper else ruling.claim.missing]
    note = "".join(f'<p class="note">{escape(text)}</p>' for text in notes if text)
    decides = f'<p class="note">{escape(said)}</p>' if ruling.paper and said else ""
    head = f"<p><b>{escape(row[''])}</b> · section {escape(row['section'])}</p>"
    return (
        f'<article class="claim"><div>{head}<p>{_chip(ruling.verdict())}</p>{decides}</div>\n'
        f"<div><p>{escape(ruling.claim.says)}</p>{note}</div>\n<dl>{listed}</dl></article>\n"
    )


def _chip(verdict: str, text: str = "") -> str:
    return f'<span class="verdict {verdict.replace(" ", "-")}">{escape(text or verdict)}</span>'


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _markdown(read: pd.DataFrame, lines: Sequence[str], note: str) -> str:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"

    table = row(list(read.columns)) + row(["---"] * read.shape[1])
    table += "".join(row(list(cells)) for cells in read.itertuples(index=False, name=None))
    return table + "\n" + "\n".join(lines) + "\n" + (f"\n{note}\n" if note else "")
