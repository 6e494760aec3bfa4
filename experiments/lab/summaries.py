"""The conclusion from a run in one sentence, computed from its records."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import pandas as pd

from core.stats import paired, summary
from experiments.lab import tables
from experiments.lab.judges import numbers
from experiments.lab.ledger import State
from experiments.lab.runs import Run
from experiments.lab.tables import Entry
from experiments.lab.text import number

MOST_NAMED = 4
"""Methods that a sentence names; of more it gives the number."""
Side = Literal["above", "below", "not distinguishable"]
"""Where the interval of a difference lies beside 0; the last holds it."""


def sentence(run: Run, counts: Mapping[State, int]) -> str:
    """The system's own summary; else its main table's comparison with the baseline; else its claims."""
    if run.system.summary is not None:
        own = run.system.summary(run.frame)
        if own:
            return own
    return against_baseline(run) or claims(counts)


def against_baseline(run: Run) -> str:
    """Which methods the intervals of paired differences put above and below the baseline, in the first metric.

    Empty where no method has two seeds in common with the baseline.
    """
    compared = [entry for entry in tables.main_table(run) if entry.against is not None]
    if not compared:
        return ""
    first = [entry for entry in compared if (entry.dataset, entry.metric) == (compared[0].dataset, compared[0].metric)]
    sides: dict[Side, list[Entry]] = {side: [] for side in get_args(Side)}
    for entry in first:
        sides[_side(entry)].append(entry)
    parts = [f"{_named(found)} {side}" for side, found in sides.items() if found]
    seeds = sorted({entry.reproduced.n for entry in first if entry.reproduced})
    over = " to ".join(map(str, seeds[:1] + seeds[1:][-1:]))
    head = f"On {first[0].dataset}, {first[0].metric} beside {run.system.baseline}: {'; '.join(parts)}"
    return f"{head} (95 % intervals of differences paired over {over} seeds)."


def _side(entry: Entry) -> Side:
    assert entry.against is not None
    if entry.against.low > 0:
        return "above"
    return "below" if entry.against.high < 0 else "not distinguishable"


def _named(found: Sequence[Entry]) -> str:
    names = [f"“{entry.method}”" if "," in entry.method else entry.method for entry in found]
    return _listed(names) if len(found) <= MOST_NAMED else f"{len(found)} methods"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def claims(counts: Mapping[State, int]) -> str:
    """How many claims are in each state; empty where there are none."""
    total = sum(counts.values())
    if not total:
        return ""
    if set(counts) <= {"not measured", "not shown"}:
        return f"None of the {total} claims was measured."
    parts = [f"{count} {'is' if count == 1 else 'are'} {state}" for state, count in counts.items()]
    return f"Of {total} claims, {_listed(parts)}."


def difference(frame: pd.DataFrame, dataset: str, method: str, baseline: str, metric: str) -> tuple[str, int]:
    """One method beside another in words, and the sign of the difference where its interval excludes 0.

    Args:
      frame: records without coordinates.
      dataset: where both were measured.
      method: whose metric is described.
      baseline: what it is compared with, on the seeds that both have.
      metric: what is compared.

    Returns:
      ``("DCCF's ndcg@20 is 0.010 lower than LightGCN's (...)", -1)``; 0 where the interval holds 0 or there is none.
      Empty where there is nothing to compare.
    """
    ours, theirs = (numbers(metric, dataset=dataset, method=m).of(frame) for m in (method, baseline))
    seeds = sorted(set(ours.index) & set(theirs.index))
    if not seeds:
        return "", 0
    a, b = ([float(values.loc[seed]) for seed in seeds] for values in (ours, theirs))
    found = paired(a, b)
    side = "higher" if found.value > 0 else "lower"
    means = f"{number(summary(a).value)} against {number(summary(b).value)}"
    size = number(abs(found.value), summary(b).value)
    head = f"{method}'s {metric} is {size} {side} than {baseline}'s ({means}"
    if len(seeds) < 2:
        return f"{head}; one seed, so the difference may be chance)", 0
    limits = sorted((found.low, found.high) if side == "higher" else (-found.low, -found.high))
    low, high = (number(limit, summary(b).value).replace("-", "−") for limit in limits)
    sign = (found.low > 0) - (found.high < 0)
    return f"{head}; 95 % interval of the difference {low} to {high}, paired over {len(seeds)} seeds)", sign
