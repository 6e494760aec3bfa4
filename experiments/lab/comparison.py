"""Which numbers of a run leave the intervals of the reference run."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.lab import tables
from experiments.lab.runs import Run
from experiments.lab.text import interval_text, number

PLACE = ("table", "dataset", "method", "metric", "row", "column")
"""What names a number of a system's tables."""


class Comparison(NamedTuple):
    """The numbers that both runs have, and what differs."""

    shared: int
    outside: list[tuple[str, float, float, tuple[float, float]]]
    """Name, own value, the reference's and its interval, of those that lie outside of it."""
    only_own: list[str]
    only_reference: list[str]


def compared(run: Run, reference: Run) -> Comparison:
    """Compares all numbers of all tables.

    A number lies outside where it is not within the reference's 95 % interval; where the reference has no interval, or
    one of no width, where it is another number but for rounding.
    """
    own, its = (_numbers(tables.all_tidy(each)) for each in (run, reference))
    outside = [
        (name, value, theirs, interval)
        for name, (value, _) in own.items()
        if name in its and _lies_outside(value, *(found := its[name]))
        for theirs, interval in [found]
    ]
    missing = [[name for name in a if name not in b] for a, b in ((own, its), (its, own))]
    return Comparison(len(own.keys() & its.keys()), outside, *missing)


def _numbers(frame: pd.DataFrame) -> dict[str, tuple[float, tuple[float, float]]]:
    found: dict[str, tuple[float, tuple[float, float]]] = {}
    for line in frame.to_dict("records"):
        if isinstance(value := line.get("value"), int | float) and value == value:
            name = ", ".join(str(line[key]) for key in PLACE if isinstance(line.get(key), str) and line[key] != "main")
            found[name] = float(value), (_limit(line.get("low")), _limit(line.get("high")))
    return found


def _limit(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _lies_outside(value: float, theirs: float, interval: tuple[float, float]) -> bool:
    low, high = interval
    return not low <= value <= high if high > low else not math.isclose(value, theirs, rel_tol=1e-5, abs_tol=1e-12)


def terminal(found: Comparison) -> Sequence[RenderableType]:
    """The comparison for the terminal."""
    head = Text(
        f"{len(found.outside)} of {found.shared} numbers lie outside of the reference's intervals", style="bold"
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("number", "here", "reference", "its interval"):
        table.add_column(title, overflow="fold")
    for name, value, theirs, interval in found.outside:
        table.add_row(name, number(value), number(theirs), interval_text(interval))
    notes = [
        Text(f"{len(names)} numbers {words}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}", style="dim")
        for names, words in ((found.only_own, "are not in the reference"), (found.only_reference, "are missing here"))
        if names
    ]
    chance = Text("Of equally many new seeds about one mean in six leaves such an interval by chance.", style="dim")
    return [head, *([table, chance] if found.outside else []), *notes]
