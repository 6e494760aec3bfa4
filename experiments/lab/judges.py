"""What records must say for a claim to hold: numbers by seed, a statistic of them, and the limits that it must keep.

    mean(numbers("R^2", dataset="d = 2", method="AE-MMR"), least=0.95)
    geometric(numbers("MSE", method="ours") / numbers("MSE", method="OLS"), most=0.5)

One rule for all: met where the 95 % interval lies within the limits, not met where it lies outside of them, open
between. A seed that failed, or that one side of a pair lacks, leaves the item open; none is dropped in silence.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from core import stats
from core.errors import DataError
from core.stats import Summary, all_of, within
from experiments.lab.frames import select
from experiments.lab.statistics import Statistic
from experiments.lab.system import Verdict
from experiments.lab.text import interval_text, number

Frame = pd.DataFrame
SEEDS, RUNS = 5, 20
"""Fewest seeds from which a mean is judged, and fewest runs from which a share is."""
RANGE = "range"
"""The interval from the smallest of all values to the largest, which estimates nothing."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One number per seed and what to call it; differences and ratios pair equal seeds."""

    name: str
    of: Callable[[Frame], pd.Series]
    """From the tidy frame, indexed by seed (or by what else is repeated); NaN for a seed whose number is missing."""

    def __add__(self, other: "Numbers") -> "Numbers":
        return self._with(other, "+", pd.Series.add)

    def __sub__(self, other: "Numbers") -> "Numbers":
        return self._with(other, "−", pd.Series.sub)

    def __truediv__(self, other: "Numbers") -> "Numbers":
        return self._with(other, "/", pd.Series.div)

    def __rmul__(self, factor: float) -> "Numbers":
        return self.map(lambda x: factor * x, f"{factor:g} {self.name}")

    def __abs__(self) -> "Numbers":
        return self.map(np.abs, f"|{self.name}|")

    def map(self, fn: Callable[[np.ndarray], Any], name: str = "") -> "Numbers":
        """A function of all values at once, value by value."""
        return Numbers(name or self.name, lambda frame: _mapped(self.of(frame), fn))

    def named(self, name: str) -> "Numbers":
        """The same numbers under another name."""
        return dataclasses.replace(self, name=name)

    def per_seed(self, reduce: Callable[[np.ndarray], float] = np.mean) -> "Numbers":
        """One number per seed of several, such as the mean over the models of a seed."""

        def of(frame: Frame) -> pd.Series:
            values = self.of(frame)
            parts = values.groupby(level="seed") if len(values) else ()
            found: dict[Any, float] = {seed: float(reduce(x.to_numpy())) for seed, x in parts}
            return pd.Series(found, dtype=float).rename_axis("seed")

        return Numbers(self.name, of)

    def _with(self, other: "Numbers", sign: str, of: Callable[[pd.Series, pd.Series], pd.Series]) -> "Numbers":
        def paired(frame: Frame) -> pd.Series:
            ours, theirs = self.of(frame), other.of(frame)
            return of(ours, theirs) if len(ours) and len(theirs) else pd.Series(dtype=float)

        return Numbers(f"{self.name} {sign} {other.name}", paired)


def _mapped(values: pd.Series, fn: Callable[[np.ndarray], Any]) -> pd.Series:
    return pd.Series(np.asarray(fn(values.to_numpy(float)), float), values.index)


def numbers(metric: str, *, per: str | Sequence[str] = "seed", name: str = "", **where: Any) -> Numbers:
    """The values of a metric by seed.

    Args:
      metric: of the records.
      per: what tells the numbers apart, the seed or the seed and further coordinates.
      name: what to call them; made of the metric and ``where`` if empty.
      **where: columns with the values that they must have; None for a coordinate that must not be there.

    Raises:
      DataError: on use, where several records have the same ``per``: they would count as a larger sample.
    """
    keys = [per] if isinstance(per, str) else list(per)
    told = name or ", ".join([metric, *(str(value) for value in where.values() if value is not None)])
    return Numbers(told, lambda frame: _by(select(frame, metric=metric, **where), keys, told))


def _by(chosen: Frame, keys: Sequence[str], name: str) -> pd.Series:
    if not len(chosen) or not set(keys) <= set(chosen.columns):
        return pd.Series(dtype=float)
    found = pd.Series(chosen["value"].to_numpy(float), _index(chosen, keys)).sort_index()
    if found.index.has_duplicates:
        twice = found.index[found.index.duplicated()][0]
        raise DataError(f"{name}: several records of {' and '.join(keys)} {twice}; name the coordinates that differ")
    return found


def _index(chosen: Frame, keys: Sequence[str]) -> pd.Index:
    return (
        pd.Index(chosen[keys[0]], name=keys[0])
        if len(keys) == 1
        else pd.MultiIndex.from_arrays([chosen[key] for key in keys], names=list(keys))
    )


def larger(*options: Numbers) -> Numbers:
    """The largest of several numbers, seed by seed."""
    return Numbers(
        f"larger of {', '.join(each.name for each in options)}",
        lambda frame: _beside(options, frame).max(axis=1, skipna=False),
    )


def smaller(*options: Numbers) -> Numbers:
    """The smallest of several numbers, seed by seed."""
    return Numbers(
        f"smaller of {', '.join(each.name for each in options)}",
        lambda frame: _beside(options, frame).min(axis=1, skipna=False),
    )


def _beside(options: Sequence[Numbers], frame: Frame) -> Frame:
    """Several numbers as columns, a row per seed; no row where one of them was not recorded at all."""
    found = [each.of(frame) for each in options]
    return pd.concat(found, axis=1) if all(map(len, found)) else pd.DataFrame(columns=range(len(found)))


def slopes(metric: str, along: str, *, log: bool = False, **where: Any) -> Numbers:
    """The slope of a metric along a coordinate, by least squares, of each seed.

    Args:
      metric: of the records.
      along: the coordinate.
      log: whether of logarithms on logarithms, so that the slope is an exponent.
      **where: see :func:`numbers`.
    """

    def slope(x: np.ndarray, y: np.ndarray) -> float:
        x, y = (np.log(x), np.log(y)) if log else (x, y)
        return float(np.polyfit(x, y, 1)[0]) if np.isfinite(x).all() and np.isfinite(y).all() else math.nan

    return _along(f"{'exponent' if log else 'slope'} of {metric} in {along}", metric, along, slope, where)


def rank_correlations(metric: str, along: str, **where: Any) -> Numbers:
    """Spearman's correlation of a metric with a coordinate, of each seed; a time that is infinite is the longest."""
    name = f"rank correlation of {metric} with {along}"
    return _along(name, metric, along, lambda x, y: stats.rank_correlation(x, y), where)


def _along(name: str, metric: str, along: str, fn: Callable[[Any, Any], float], where: dict[str, Any]) -> Numbers:
    found = numbers(metric, per=("seed", along), **where)

    def of(frame: Frame) -> pd.Series:
        values = found.of(frame)
        parts = values.groupby(level="seed") if len(values) else ()
        each = {seed: fn(p.index.get_level_values(along).to_numpy(float), p.to_numpy()) for seed, p in parts}
        return pd.Series(each, dtype=float).rename_axis("seed")

    return Numbers(name, of)


@dataclasses.dataclass(frozen=True)
class Judge:
    """What a claim asks of one statistic of some numbers."""

    numbers: Numbers
    statistic: str
    """Its name, in words."""
    summarise: Callable[[pd.Series], Summary]
    least: float = -math.inf
    most: float = math.inf
    seeds: int = SEEDS
    """With fewer numbers nothing is judged."""

    @property
    def words(self) -> str:
        """How the claim is judged, in words."""
        return f"{self.statistic} of {self.numbers.name}, {limits(self.least, self.most)}; {self.seeds} or more"

    def __call__(self, frame: Frame) -> Verdict:
        """The verdict from the tidy frame of a run's records."""
        values = self.numbers.of(frame)
        if len(values) < self.seeds:
            return Verdict(None)
        if values.isna().any():
            return Verdict(None, f"{self.numbers.name}: no number of {_seeds(values, values.isna())}")
        if self.statistic == "geometric mean" and (values <= 0).any():
            return Verdict(None, f"{self.numbers.name}: not above 0 of {_seeds(values, values <= 0)}")
        found = self.summarise(values)
        if found.level < 0.95:
            text = f"{self.numbers.name} {number(found.value)}; [{number(found.low)}, {number(found.high)}]"
            return Verdict(None, f"{text} is no 95 % interval")
        low, high = found.interval
        all_lie_within = self.least <= low and high <= self.most
        met = all_lie_within if found.kind == RANGE else within(found.interval, self.least, self.most)
        misses = met is None and not self.least <= found.value <= self.most
        return Verdict(met, f"{self.numbers.name} {number(found.value)} ({found.n})", found.interval, misses)


def limits(least: float, most: float) -> str:
    """Limits in words."""
    if math.isinf(most):
        return f"at least {least:g}" if math.isfinite(least) else "reported"
    return f"at most {most:g}" if math.isinf(least) else f"{least:g} to {most:g}"


def _seeds(values: pd.Series, where: pd.Series) -> str:
    """The seeds of some values, in words."""
    seeds = values.index.to_numpy()[where.to_numpy()].tolist()
    more = f" and {len(seeds) - 5} more" if len(seeds) > 5 else ""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds[:5]))}{more}"


def statistic(
    q: Numbers, kind: Statistic, least: float = -math.inf, most: float = math.inf, seeds: int = SEEDS
) -> Judge:
    """A statistic that a system declares of its numbers, see :class:`experiments.lab.statistics.Statistic`.

    The classes of a balanced share are the level ``class`` of the numbers' index.
    """

    def summarise(values: pd.Series) -> Summary:
        named = "class" in values.index.names
        return kind.of(values.to_numpy(), list(values.index.get_level_values("class")) if named else ())

    return Judge(q, kind.kind, summarise, least, most, seeds)


def mean(q: Numbers, least: float = -math.inf, most: float = math.inf, seeds: int = SEEDS) -> Judge:
    """The mean over seeds with Student's interval."""
    return statistic(q, Statistic("mean"), least, most, seeds)


def geometric(q: Numbers, least: float = -math.inf, most: float = math.inf, seeds: int = SEEDS) -> Judge:
    """The geometric mean over seeds: of ratios, and of errors that differ by powers of ten; open where one is 0."""
    return statistic(q, Statistic("geometric mean"), least, most, seeds)


def median(q: Numbers, least: float = -math.inf, most: float = math.inf, seeds: int = 6) -> Judge:
    """The median over seeds; its 95 % interval takes six."""
    return statistic(q, Statistic("median"), least, most, seeds)


def share(
    q: Numbers, holds: Callable[[np.ndarray], Any] | None = None, least: float = -math.inf, most: float = math.inf,
    seeds: int = RUNS,
) -> Judge:  # fmt: skip
    """How often something holds, with the exact interval; of numbers that are 0 or 1 if ``holds`` is None."""

    def summarise(values: pd.Series) -> Summary:
        happened = np.asarray(values if holds is None else holds(values.to_numpy()), float)
        return stats.share(round(happened.sum()), len(happened), method="exact")

    return Judge(q, "share", summarise, least, most, seeds)


def every_seed(q: Numbers, least: float = -math.inf, most: float = math.inf, seeds: int = SEEDS) -> Judge:
    """All values, one by one, where the claim says "every" or "never"; the interval is their range."""

    def summarise(values: pd.Series) -> Summary:
        low, high = float(values.min()), float(values.max())
        beyond = [x for x in (low, high) if not least <= x <= most]
        worst = beyond[0] if beyond else low if math.isfinite(least) else high
        return Summary(worst, *((worst, worst) if beyond else (low, high)), len(values), 1.0, RANGE)

    return Judge(q, "every one", summarise, least, most, seeds)


@dataclasses.dataclass(frozen=True)
class Count:
    """A count, where the claim's own words are one ("in at least 4 of 5 worlds")."""

    numbers: Numbers
    holds: Callable[[np.ndarray], Any]
    least: float
    """Share of the seeds in which it must hold, as the claim has it."""
    seeds: int = SEEDS

    @property
    def words(self) -> str:
        """How the claim is judged, in words."""
        return f"count of {self.numbers.name}, at least {self.least:.0%} of {self.seeds} or more"

    def __call__(self, frame: Frame) -> Verdict:
        """The verdict; the share's exact interval stands beside it and does not decide."""
        values = self.numbers.of(frame)
        if len(values) < self.seeds:
            return Verdict(None)
        if values.isna().any():
            return Verdict(None, f"{self.numbers.name}: no number of {_seeds(values, values.isna())}")
        happened = int(np.sum(self.holds(values.to_numpy())))
        found = stats.share(happened, len(values), method="exact")
        met = happened >= math.ceil(self.least * len(values) - 1e-9)
        return Verdict(met, f"{self.numbers.name}: {happened} of {len(values)}", found.interval)


def count(q: Numbers, holds: Callable[[np.ndarray], Any], least: float, seeds: int = SEEDS) -> Count:
    """In how many of the seeds something holds, where the claim's own words are a count."""
    return Count(q, holds, least, seeds)


@dataclasses.dataclass(frozen=True)
class Every:
    """Several judges of whom all must find their part met."""

    judges: tuple["AnyJudge", ...]

    @property
    def words(self) -> str:
        """How the claim is judged, in words."""
        return "; ".join(judge.words for judge in self.judges)

    def __call__(self, frame: Frame) -> Verdict:
        """Met where all are, not met where one is not; nothing is judged before all have their numbers."""
        found = [judge(frame) for judge in self.judges]
        if any(verdict.met is None and not verdict.value for verdict in found):
            return Verdict(None)
        words = "; ".join(f"{v.value} {interval_text(v.interval)}".strip() for v in found)
        met = all_of(v.met for v in found)
        return Verdict(met, words, None, met is None and any(v.misses for v in found))


AnyJudge = Judge | Count | Every


def every(*judges: AnyJudge) -> Every:
    """All must hold."""
    return Every(judges)


def ordered(*ascending: Numbers, gap: float = 0.0, seeds: int = SEEDS) -> Every:
    """Each of several numbers exceeds the one before by a gap, in the mean of paired differences."""
    return Every(tuple(mean(b - a, least=gap, seeds=seeds) for a, b in itertools.pairwise(ascending)))
