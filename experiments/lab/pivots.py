"""Tables of a paper as data: what along the rows, what along the columns, and which statistic stands in a cell."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from core.stats import Summary
from experiments.lab.frames import groups, require_distinct, select
from experiments.lab.statistics import Kind, Statistic, rule_of
from experiments.lab.text import MISSING, with_interval

Frame = pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Pivot:
    """A table of one number per cell, with its interval over what is repeated."""

    along: tuple[str, ...]
    """Columns of the frame whose values name the rows."""
    across: str
    """The column of the frame whose values name the table's columns."""
    statistic: Statistic | Sequence[Statistic]
    """Of a cell's values, or the rules of a system, of which the first that names its numbers counts."""
    where: Mapping[str, Any]
    of: Callable[[np.ndarray], Any] | None = None
    """Applied to the values of a cell before the statistic, e.g. ``lambda p: p <= 0.05``."""
    only: tuple[Any, ...] = ()
    """Values of ``across``, in the order in which they are shown; all that there are if empty."""
    per: tuple[str, ...] = ("seed",)
    """What is repeated: within a cell it tells all records apart."""
    rows: tuple[Any, ...] = ()
    """Values of the first of ``along`` that come first, in order."""
    shown: Callable[[Summary], str] = with_interval

    def cells(self, frame: Frame) -> dict[tuple[Any, ...], dict[Any, Summary]]:
        """The summaries by row, then by column; empty where nothing was measured."""
        chosen = select(frame, **self.where)
        keys = [*self.along, self.across]
        if not set(keys) <= set(chosen.columns):
            return {}
        found: dict[tuple[Any, ...], dict[Any, Summary]] = {}
        for (*place, column), part in groups(chosen.dropna(subset=keys), *keys):
            if not self.only or column in self.only:
                require_distinct(part, self.per)
                values = part.sort_values("seed")["value"].to_numpy(float)
                own = self._statistic_of(part)
                found.setdefault(tuple(place), {})[column] = own.of(
                    values if self.of is None else np.asarray(self.of(values), float)
                )
        order = {name: i for i, name in enumerate(self.rows)}
        return dict(sorted(found.items(), key=lambda row: order.get(row[0][0], len(order))))

    def _statistic_of(self, part: Frame) -> Statistic:
        if isinstance(self.statistic, Statistic):
            return self.statistic
        dataset, method, metric = (str(part[name].iloc[0]) for name in ("dataset", "method", "metric"))
        return rule_of(self.statistic, dataset, method, metric)

    def __call__(self, frame: Frame) -> Frame:
        """The table as text."""
        cells = self.cells(frame)
        there = dict.fromkeys(column for row in cells.values() for column in row)
        columns = [c for c in self.only if c in there] or list(there)
        table = [
            dict(zip(self.along, place, strict=True))
            | {str(c): self.shown(row[c]) if c in row else MISSING for c in columns}
            for place, row in cells.items()
        ]
        return pd.DataFrame(table)

    def tidy(self, frame: Frame) -> Frame:
        """A line per cell, unrounded: its row and column, value, limits, repetitions."""
        lines = [
            {"row": _named(self.along, place), "column": str(column), **_plain(found)}
            for place, row in self.cells(frame).items()
            for column, found in row.items()
        ]
        return pd.DataFrame(lines)


def _named(names: Sequence[str], place: Sequence[Any]) -> str:
    return "; ".join(f"{name} = {value}" for name, value in zip(names, place, strict=True))


def _plain(found: Summary) -> dict[str, Any]:
    return {
        "n": found.n, "value": found.value, "low": found.low, "high": found.high, "level": found.level,
        "interval": found.kind,
    }  # fmt: skip


def pivot(
    along: str | Sequence[str], across: str, statistic: Kind | Sequence[Statistic] = "mean", *,
    of: Callable[[np.ndarray], Any] | None = None, only: Sequence[Any] = (), rows: Sequence[Any] = (),
    per: str | Sequence[str] = "seed", shown: Callable[[Summary], str] = with_interval, **where: Any,
) -> Pivot:  # fmt: skip
    """A table of one statistic.

    Args:
      along: column or columns of the frame whose values name the rows.
      across: the column of the frame whose values name the table's columns.
      statistic: of a cell's values; or the rules that a system declares, of which the first that names them counts.
      of: applied to the values of a cell before the statistic.
      only: values of ``across`` to show, in order; all if empty.
      rows: values of the (first) column along that come first, in order.
      per: what is repeated, the seed or the seed and coordinates; several records of one are refused.
      shown: a cell as text.
      **where: columns with the values that they must have; None for a coordinate that must not be there.
    """
    names = (along,) if isinstance(along, str) else tuple(along)
    chosen = Statistic(statistic) if isinstance(statistic, str) else tuple(statistic)
    repeated = (per,) if isinstance(per, str) else tuple(per)
    return Pivot(names, across, chosen, where, of, tuple(only), repeated, tuple(rows), shown)
