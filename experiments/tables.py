"""The main table of a run: published beside reproduced, with intervals and tests against the baseline."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core import stats
from core.records import Record
from core.stats import Paired, Summary
from experiments.runs import Run
from experiments.system import Published, System


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
    """The t test's p, corrected over the methods of this data set and metric; NaN where there is no test."""

    @property
    def difference(self) -> float:
        """Reproduced less published; NaN where either is missing."""
        if self.reproduced is None or self.published is None:
            return math.nan
        return self.reproduced.mean - self.published.value


def main_table(run: Run) -> list[Entry]:
    """Entries of the main table, by data set, method and metric; published numbers only for the data sets run."""
    return entries(run.system, plain(run.records))


def plain(found: Iterable[Record]) -> dict[tuple[str, str, str], dict[int, float]]:
    """Values by seed of the numbers without further coordinates, by (dataset, method, metric); the newest counts."""
    values: dict[tuple[str, str, str], dict[int, float]] = {}
    for record in found:
        if not record.coords:
            values.setdefault((record.dataset, record.method, record.metric), {})[record.seed] = record.value
    return values


def entries(system: System, values: Mapping[tuple[str, str, str], Mapping[int, float]]) -> list[Entry]:
    """The main table from values by seed."""
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
    base = values.get((dataset, baseline, metric), {})
    against = [_compare(values.get((dataset, m, metric), {}), base) if m != baseline else None for m in methods]
    corrected = stats.holm([math.nan if pair is None else pair.p_ttest for pair in against])
    return [
        Entry(
            dataset,
            method,
            metric,
            stats.summary(list(own.values())) if (own := values.get((dataset, method, metric))) else None,
            published.get((dataset, method, metric)),
            pair,
            float(p),
        )
        for method, pair, p in zip(methods, against, corrected, strict=True)
    ]


def _compare(own: Mapping[int, float], base: Mapping[int, float]) -> Paired | None:
    seeds = sorted(own.keys() & base.keys())
    return stats.paired([own[s] for s in seeds], [base[s] for s in seeds]) if len(seeds) > 1 else None


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
        "mean": own and own.mean,
        "low": own and own.low,
        "high": own and own.high,
        "published": theirs and theirs.value,
        "mark": theirs and theirs.mark,
        "source": theirs and theirs.source,
        "difference": entry.difference,
        "against_baseline": pair and pair.difference,
        "p_ttest": pair and pair.p_ttest,
        "p_wilcoxon": pair and pair.p_wilcoxon,
        "p_holm": entry.p_holm,
    }
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


def as_json(run: Run) -> dict[str, Any]:
    """All tables as plain values, unrounded: ``rows`` of the main table, further ``tables`` by title."""
    rows = [_plain_row(entry) for entry in main_table(run)]
    more = {title: json.loads(str(frame.to_json(orient="records"))) for title, frame in further(run).items()}
    return {"system": run.system.slug, "preset": run.preset, "rows": rows, "tables": more}


def further(run: Run) -> Mapping[str, pd.DataFrame]:
    """The system's own tables, by title."""
    return run.system.tables(run.frame) if run.system.tables and run.records else {}
