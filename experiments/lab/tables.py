"""The main table of a run: published beside reproduced, with intervals and tests against the baseline."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core import stats
from core.records import Record, Scalar
from core.stats import Paired, Summary
from experiments.lab.pivots import Pivot
from experiments.lab.runs import Run
from experiments.lab.statistics import Statistic, rule_of
from experiments.lab.system import Published, System, Table


class Entry(NamedTuple):
    """One method's metric on one data set."""

    dataset: str
    method: str
    metric: str
    reproduced: Summary | None
    published: Published | None
    against: Paired | None
    """Compared with the baseline, on the seeds that both have."""
    p_holm: float
    """Its p-value, corrected over the methods of this data set and metric; NaN where there is no test."""
    reference: Summary | None = None
    """The same number of the reference run, where another run is shown beside it."""

    @property
    def difference(self) -> float:
        """Reproduced less published; NaN where either is missing."""
        if self.reproduced is None or self.published is None:
            return math.nan
        return self.reproduced.value - self.published.value


Place = tuple[str, str, str]
"""Data set, method and metric."""


class Repeated(NamedTuple):
    """The values of one number, by what is repeated."""

    statistic: Statistic
    values: dict[tuple[Scalar, ...], float]
    """By seed, then the coordinates of the statistic in the order of their names; the newest counts."""

    @property
    def by_seed(self) -> dict[Scalar, float]:
        """Values by seed; none where something else is repeated."""
        return {key[0]: value for key, value in self.values.items()} if self.statistic.over == "seed" else {}

    @property
    def summary(self) -> Summary:
        """The number with the interval that is declared."""
        numbers, names = np.array(list(self.values.values())), ["seed", *sorted(self.statistic.coordinates)]
        if self.statistic.over == "fold":
            ordered = sorted(self.values, key=lambda key: (key[names.index("repetition")], key[names.index("fold")]))
            repetitions = len({(key[0], key[names.index("repetition")]) for key in ordered})
            return self.statistic.of(np.reshape([self.values[key] for key in ordered], (repetitions, -1)))
        classes: list[Any] = [key[names.index("class")] for key in self.values] if "class" in names else []
        return self.statistic.of(numbers, classes)


def main_table(run: Run, reference: Run | None = None) -> list[Entry]:
    """Entries of the main table, by data set, method and metric; published numbers only for the data sets run.

    Args:
      run: whose numbers are shown.
      reference: the run that ships as evidence, whose numbers stand beside them.
    """
    found = entries(run.system, repeated(run.system, run.records))
    if reference is None:
        return found
    known = repeated(reference.system, reference.records)
    places = [(entry, known.get((entry.dataset, entry.method, entry.metric))) for entry in found]
    return [entry._replace(reference=its and its.summary) for entry, its in places]


def repeated(system: System, found: Iterable[Record]) -> dict[Place, Repeated]:
    """The numbers with no other coordinates than those of what their statistic repeats."""
    values: dict[Place, Repeated] = {}
    for record in found:
        place = (record.dataset, record.method, record.metric)
        rule = rule_of(system.statistics, *place)
        if set(record.coords) == rule.coordinates:
            key = (record.seed, *(record.coords[name] for name in sorted(rule.coordinates)))
            values.setdefault(place, Repeated(rule, {})).values[key] = record.value
    return values


def entries(system: System, values: Mapping[Place, Repeated]) -> list[Entry]:
    """The main table from repeated numbers."""
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in values))
    metrics = list(system.metrics) or list(dict.fromkeys(metric for _, _, metric in values))
    published = {(p.dataset, p.method, p.metric): p for p in system.published}
    made = []
    for dataset in datasets:
        keys = [key for key in (*values, *published) if key[0] == dataset and key[2] in metrics]
        methods = list(dict.fromkeys(method for _, method, _ in keys))
        for metric in metrics:
            made += _column(system.baseline, dataset, metric, methods, values, published)
    return sorted(made, key=lambda entry: datasets.index(entry.dataset))


def _column(baseline, dataset, metric, methods, values, published) -> list[Entry]:
    base = values.get((dataset, baseline, metric))
    against = [_compare(values.get((dataset, m, metric)), base) if m != baseline else None for m in methods]
    corrected = stats.holm([math.nan if pair is None else pair.p_value for pair in against])
    return [
        Entry(
            dataset,
            method,
            metric,
            own.summary if (own := values.get((dataset, method, metric))) else None,
            published.get((dataset, method, metric)),
            pair,
            float(p),
        )
        for method, pair, p in zip(methods, against, corrected, strict=True)
    ]


def _compare(own: Repeated | None, base: Repeated | None) -> Paired | None:
    if own is None or base is None or {own.statistic.kind, base.statistic.kind} <= {"deterministic", "splits"}:
        return None  # no independent repetitions to pair
    ours, theirs = own.by_seed, base.by_seed
    seeds = sorted(ours.keys() & theirs.keys(), key=str)
    return stats.paired([ours[s] for s in seeds], [theirs[s] for s in seeds]) if len(seeds) > 1 else None


def tidy(found: Sequence[Entry]) -> pd.DataFrame:
    """A row per entry with every figure unrounded: what csv and json hold."""
    return pd.DataFrame([_plain_row(entry) for entry in found], columns=list(_plain_row(EMPTY)))


EMPTY = Entry("", "", "", None, None, None, math.nan)


def _plain_row(entry: Entry) -> dict[str, str | float | int | None]:
    own, theirs, pair = entry.reproduced, entry.published, entry.against
    row = {
        "dataset": entry.dataset,
        "method": entry.method,
        "metric": entry.metric,
        "n": own.n if own else 0,
        "mean": own and own.value,
        "low": own and own.low,
        "high": own and own.high,
        "level": own and own.level,
        "interval": own and own.kind,
        "published": theirs and theirs.value,
        "mark": theirs and theirs.mark,
        "source": theirs and theirs.source,
        "difference": entry.difference,
        "against_baseline": pair and pair.value,
        "p": pair and pair.p_value,
        "p_wilcoxon": pair and pair.p_wilcoxon,
        "p_holm": entry.p_holm,
        "reference": entry.reference and entry.reference.value,
        "reference_low": entry.reference and entry.reference.low,
        "reference_high": entry.reference and entry.reference.high,
    }
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


def as_json(run: Run, reference: Run | None = None) -> dict[str, Any]:
    """All tables as plain values, unrounded: ``rows`` of the main table, a line per cell of the further ones."""
    rows = [_plain_row(entry) for entry in main_table(run, reference)]
    lines = tidy_further(run, reference)
    more = {title: [_without_nan(line) for line in part.drop(columns="table").to_dict("records")]
            for title, part in (lines.groupby("table", sort=False) if len(lines) else ())}  # fmt: skip
    return {"system": run.system.slug, "preset": run.preset, "rows": rows, "tables": more}


def all_tidy(run: Run, reference: Run | None = None) -> pd.DataFrame:
    """All tables as one, a line per number, unrounded: ``table`` is "main" or a title."""
    main = tidy(main_table(run, reference)).rename(columns={"mean": "value"}).assign(table="main")
    parts = [part for part in (main, tidy_further(run, reference)) if len(part)]
    found = pd.concat(parts, ignore_index=True) if parts else main
    return found.reindex(columns=["table", *(column for column in found.columns if column != "table")])


def _without_nan(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in line.items()}


def further(run: Run) -> Mapping[str, pd.DataFrame]:
    """The system's own tables as text, by title; without those of which nothing was measured."""
    made = {title: table(run.frame) for title, table in _declared(run).items()} if run.records else {}
    return {title: table for title, table in made.items() if len(table)}


def _declared(run: Run) -> Mapping[str, Table]:
    """Tables by title; a function of the frame that makes several is asked for them once."""
    declared = run.system.tables
    if not callable(declared):
        return declared
    return {title: lambda _, made=made: made for title, made in declared(run.frame).items()} if run.records else {}


def tidy_further(run: Run, reference: Run | None = None) -> pd.DataFrame:
    """A line per cell of the system's own tables; unrounded where the table is a pivot, else as text.

    The cells of a reference stand beside them, those that it alone has at the end.
    """
    own = _tidy_further(run)
    if reference is None or not len(its := _tidy_further(reference)):
        return own
    keys = ["table", "row", "column"]
    names = {"value": "reference", "low": "reference_low", "high": "reference_high"}
    its = its.reindex(columns=[*keys, *names])
    its.columns = [*keys, *names.values()]
    return own.merge(its, "outer", keys, sort=False) if len(own) else its


def _tidy_further(run: Run) -> pd.DataFrame:
    lines = []
    for title, table in _declared(run).items() if run.records else ():
        if isinstance(table, Pivot):
            found = table.tidy(run.frame)
        else:
            shown = table(run.frame)
            first = [str(place) for place in (shown.iloc[:, 0] if shown.shape[1] else ())]
            found = pd.DataFrame(
                [
                    {"row": row, "column": str(name), "value": shown.iloc[i][name]}
                    for i, row in enumerate(first)
                    for name in shown.columns[1:]
                ]
            )
        lines.append(found.assign(table=title))
    return pd.concat(lines, ignore_index=True) if lines else pd.DataFrame()
