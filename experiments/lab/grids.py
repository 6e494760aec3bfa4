"""Tables as text: for the terminal, Markdown, LaTeX and CSV."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from core.stats import NO_RANDOMNESS, Summary
from experiments.lab import evidence, tables
from experiments.lab.runs import Run
from experiments.lab.system import Published
from experiments.lab.tables import Entry
from experiments.lab.text import MISSING, number, p_value, with_interval

BELONGING = ("reference", "published", "difference", "p", "seeds")
"""Columns that say more about the metric to their left."""
LEVEL = 0.95
MARKS: Mapping[str, tuple[str, str]] = {
    "paper": ("†", "read in the paper"),
    "code": ("‡", "read in its code"),
    "log": ("§", "read in a published training log"),
    "recalled": ("¶", "recalled, not read again"),
}


REFERENCE = "reference: the run that ships as evidence."


class Grid(NamedTuple):
    """A table as text: of one data set, a row per method."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]

    @property
    def keys(self) -> int:
        """How many of the first columns name a row: as many as tell all rows apart, and one at least."""
        counts = range(1, len(self.header))
        return next((n for n in counts if len({tuple(row[:n]) for row in self.rows}) == len(self.rows)), 1)

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold figures and are set to the right; the others hold text and are set to the left."""
        return [all(map(_is_figure, cells)) for cells in zip(*self.rows, strict=True)] or [False] * len(self.header)


def main_grids(found: Sequence[Entry], baseline: str | None) -> list[Grid]:
    """One grid per data set; columns that would hold nothing are left out."""
    return [
        _grid(dataset, [e for e in found if e.dataset == dataset], baseline)
        for dataset in dict.fromkeys(entry.dataset for entry in found)
    ]


def _grid(dataset: str, found: Sequence[Entry], baseline: str | None) -> Grid:
    metrics = list(dict.fromkeys(entry.metric for entry in found))
    by_method: dict[str, dict[str, Entry]] = {}
    for entry in found:
        by_method.setdefault(entry.method, {})[entry.metric] = entry
    header, columns = ["method"], [list(by_method)]
    for metric in metrics:
        column = [row[metric] for row in by_method.values()]
        for title, cells in _columns(metric, column):
            header.append(title)
            columns.append(cells)
    header.append("seeds")
    columns.append([_seeds(row.values()) for row in by_method.values()])
    return Grid(dataset, header, [list(row) for row in zip(*columns, strict=True)], notes(found, baseline))


def _columns(metric: str, column: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    columns = [(metric, [_mean(e.reproduced) for e in column])]
    if any(e.reference for e in column):
        columns.append(("reference", [_mean(e.reference) for e in column]))
    if any(e.published for e in column):
        columns.append(("published", [_published(e) for e in column]))
        scale = [e.reproduced.value if e.reproduced else math.nan for e in column]
        columns.append(("difference", [_signed(e.difference, s) for e, s in zip(column, scale, strict=True)]))
    if any(not math.isnan(e.p_holm) for e in column):
        columns.append(("p", [p_value(e.p_holm) for e in column]))
    return columns


def _seeds(row: Iterable[Entry]) -> str:
    found = [e.reproduced for e in row if e.reproduced and e.reproduced.kind != NO_RANDOMNESS]
    counts, unit = sorted({each.n for each in found}), " people" if any("people" in each.kind for each in found) else ""
    return " to ".join(map(str, counts[:1] + counts[1:][-1:])) + unit if counts else MISSING


def notes(found: Sequence[Entry], baseline: str | None) -> list[str]:
    """What the table's figures and marks mean."""
    made = []
    kinds = dict.fromkeys(_without_counts(e.reproduced) for e in found if e.reproduced and e.reproduced.n > 1)
    if kinds:
        made.append(f"Reproduced, ± half of a 95 % interval or [its limits]: {'; '.join(kinds)}.")
    if any(e.reproduced and e.reproduced.kind == NO_RANDOMNESS for e in found):
        made.append("Without ±: methods without randomness.")
    if any(e.reference for e in found):
        made.append(REFERENCE)
    if any(not math.isnan(e.p_holm) for e in found):
        made.append(f"p: paired t test over seeds against {baseline}, Holm's correction over the methods of a column.")
    return made + _sources([e.published for e in found if e.published])


def _without_counts(found: Summary) -> str:
    level = "" if found.level == LEVEL or math.isnan(found.low) else f" ({found.level:.1%})"
    return re.sub(r"\b\d+ (x \d+ )?", "", found.kind) + level


def _sources(found: Sequence[Published]) -> list[str]:
    marks = dict.fromkeys(p.mark for p in found)
    sources = dict.fromkeys(f"{p.source} {MARKS[p.mark][0]}" for p in found)
    explained = "; ".join(f"{MARKS[mark][0]} {MARKS[mark][1]}" for mark in marks)
    return [f"Published: {explained}.", "Sources: " + "; ".join(sources) + "."] if found else []


def render(run: Run, form: Literal["md", "latex", "csv"], reference: Run | None = None) -> str:
    """All tables of a run as text for a document; csv has the unrounded figures of all of them."""
    if form == "csv":
        shown = "reference" if evidence.is_reference(run) else "own"
        return tables.all_tidy(run, reference).assign(shown=shown).map(_no_formula).to_csv(index=False)
    write = markdown if form == "md" else latex
    return "\n".join(write(grid) for grid in all_grids(run, reference))


def _no_formula(cell: Any) -> Any:
    """A text that a spreadsheet would compute, with the mark of a text before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def all_grids(run: Run, reference: Run | None = None) -> list[Grid]:
    """The main table's grids, what was published for other data sets, then the further tables.

    Each further table is followed by that of the reference, where it has other figures.
    """
    own, its = ({title: frame_grid(title, frame) for title, frame in tables.further(each).items()} if each else {}
                for each in (run, reference))  # fmt: skip
    further = []
    for title in dict.fromkeys([*own, *its]):
        further += [own[title]] if title in own else []
        if title in its and (title not in own or its[title].rows != own[title].rows):
            further.append(its[title]._replace(title=f"{title} (reference)", notes=[REFERENCE]))
    return main_grids(tables.main_table(run, reference), run.system.baseline) + elsewhere(run) + further


def elsewhere(run: Run) -> list[Grid]:
    """What was published for the run's methods on data sets that the run does not have, to be seen beside its own."""
    datasets, methods = ({getattr(r, name) for r in run.records} for name in ("dataset", "method"))
    found = [p for p in run.system.published if p.dataset not in datasets and p.method in methods]
    if not found:
        return []
    metrics = list(dict.fromkeys(p.metric for p in found))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for p in found:
        rows.setdefault((p.dataset, p.method), {})[p.metric] = number(p.value) + MARKS[p.mark][0]
    cells = [[*place, *(row.get(metric, MISSING) for metric in metrics)] for place, row in rows.items()]
    return [Grid("Published for other data sets", ["data set", "method", *metrics], cells, _sources(found))]


def markdown(grid: Grid) -> str:
    """The grid as a table of Markdown."""
    escaped = [[_in_markdown(cell) for cell in row] for row in [grid.header, *grid.rows]]
    lines = [f"**{_in_markdown(grid.title)}**", "", *(f"| {' | '.join(row)} |" for row in escaped)]
    lines.insert(3, "| " + " | ".join("---:" if figures else "---" for figures in grid.numeric) + " |")
    return "\n".join([*lines, "", *(f"{note}  " for note in grid.notes), ""])


def _in_markdown(text: str) -> str:
    """No end of a cell, and no tag of HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text.replace("|", "\\|"))


def latex(grid: Grid) -> str:
    """The grid as a table of LaTeX, with booktabs' rules."""
    body = [r" & ".join(map(_escape, row)) + r" \\" for row in [grid.header, *grid.rows]]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escape(grid.title)}. {_escape(' '.join(grid.notes))}}}",
        rf"\begin{{tabular}}{{{''.join('r' if figures else 'l' for figures in grid.numeric)}}}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _is_figure(cell: str) -> bool:
    """Whether a cell is missing or begins with a figure, as "< 0.001", "−0.02 [−0.1, 0.1]" and "3 of 5" do."""
    return cell in (MISSING, "never") or re.match(r"[<>≤≥~+−-]? ?\.?\d", cell) is not None


def _escape(text: str) -> str:
    special = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special |= {"^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$"}
    special |= {"†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"$^\S$", "¶": r"$^\P$"}
    return "".join(special.get(character, character) for character in text)


def frame_grid(title: str, frame: pd.DataFrame) -> Grid:
    """Any data frame as a grid; its index is shown where it says something."""
    shown = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    header = [" ".join(map(str, c)).strip() if isinstance(c, tuple) else str(c) for c in shown.columns]
    columns = [_cells(list(shown.iloc[:, index])) for index in range(shown.shape[1])]
    return Grid(title, header, [list(row) for row in zip(*columns, strict=True)], [])


def _cells(column: Sequence[Any]) -> list[str]:
    """A column of whole numbers is written without decimals, whatever its type."""
    numeric = [float(v) for v in column if isinstance(v, int | float | np.number) and math.isfinite(v)]
    whole = all(value.is_integer() for value in numeric)
    return [_cell(value, whole) for value in column]


def _cell(value: Any, whole: bool) -> str:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return MISSING if value is None or value is pd.NA else str(value)
    return f"{value:,.0f}" if whole and math.isfinite(value) else number(float(value))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A grid for the terminal; one that is too wide is shown in parts, metric by metric."""

    grid: Grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(f"\n{self.grid.title}", style="bold")
        for columns in _parts(self.grid, options.max_width):
            yield _table(self.grid, columns)
        for note in self.grid.notes:
            yield Text(note, style="dim")


def _parts(grid: Grid, width: int) -> list[list[int]]:
    """Columns of each part: those that name a row, and as many groups (a metric and what belongs to it) as fit."""
    names = list(range(grid.keys))
    starts = [i for i, name in enumerate(grid.header) if i >= grid.keys and name not in BELONGING] or [grid.keys]
    groups = [list(range(a, b)) for a, b in itertools.pairwise([*starts, len(grid.header)])]
    sizes = [3 + max(len(row[i]) for row in [grid.header, *grid.rows]) for i in range(len(grid.header))]
    parts: list[list[int]] = [[*names]]
    for group in groups:
        taken = sum(sizes[i] for i in parts[-1] + group)
        if taken > width and parts[-1] != names:
            parts.append([*names])
        parts[-1] += group
    return parts


def _table(grid: Grid, columns: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index in columns:
        name = grid.header[index]
        style = "dim" if name in BELONGING else ""
        table.add_column(name, justify="right" if grid.numeric[index] else "left", style=style, overflow="fold")
    for row in grid.rows:
        table.add_row(*(escape(row[index]) for index in columns))
    return table


def _signed(value: float, like: float) -> str:
    return MISSING if math.isnan(value) else f"{'+' if value >= 0 else '−'}{number(abs(value), like)}"


def _mean(found: Summary | None) -> str:
    return MISSING if found is None else with_interval(found)


def _published(entry: Entry) -> str:
    return MISSING if entry.published is None else number(entry.published.value) + MARKS[entry.published.mark][0]
