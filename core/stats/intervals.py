"""Intervals from independent repetitions: of means, shares, medians, geometric means and rates."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from core.checks import Count, Natural, OpenFraction, Positive, checked
from core.errors import ConfigError
from core.stats.limits import TOLERANCE, Limits, critical_value, from_error, share_limits

NO_RANDOMNESS = "no randomness"
"""The kind of a number without an interval, however often it was computed."""
Values = Num[np.ndarray, " n"] | Sequence[float]


class Summary(NamedTuple):
    """One number from repetitions, and the interval that they give it; NaN limits where they give none."""

    value: float
    low: float
    high: float
    n: int
    """Repetitions: of what, ``kind`` says."""
    level: float
    """Coverage of the interval; below what was asked for where n values allow for no more."""
    kind: str
    """In words, e.g. "mean over 5 seeds, Student's interval"."""
    error: float = math.nan
    """Standard error, where the interval is made from one."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its limits."""
        return self.low, self.high

    @property
    def half_width(self) -> float:
        """Half of the interval's width, the figure behind ±; NaN where no ± is shown: no interval, or of no width."""
        return (self.high - self.low) / 2 if self.high > self.low else math.nan

    @property
    def whiskers(self) -> tuple[float, float]:
        """Distances from the value down and up to the limits, for error bars; 0 where there is no interval."""
        return (self.value - self.low, self.high - self.value) if self.high > self.low else (0.0, 0.0)


def as_values(values: Any, what: str) -> Float[np.ndarray, " n"]:
    """Numbers of any type as float64.

    Raises:
      ConfigError: where there are none.
    """
    x = np.asarray(values, float)
    if not x.size:
        raise ConfigError(f"{what}: values has no entry; it takes at least one")
    return x


def unknown(value: float, n: int, level: float, kind: str) -> Summary:
    """A number whose repetitions give no interval."""
    return Summary(value, math.nan, math.nan, n, level, f"{kind}, no interval")


def of_equal_values(value: float, n: int, level: float, kind: str) -> Summary:
    """The interval that n equal numbers give: the number itself where 1 - 2^(1-n) reaches the level, else none.

    A variance estimated as zero is no knowledge of the variance. That the median lies between the least and the
    greatest of n values is true with 1 - 2^(1-n) whatever the distribution; 95 % takes six.
    """
    covered = 1 - 2.0 ** (1 - n)
    if covered < level:
        return unknown(value, n, level, f"{kind}, all equal")
    return Summary(value, value, value, n, covered, f"{kind}, all equal", 0.0)


@checked
def summary(values: Values, level: OpenFraction = 0.95, unit: str = "seeds") -> Summary:
    """The mean of independent repetitions with Student's interval.

    Args:
      values: one number per repetition.
      level: coverage of the interval.
      unit: what the repetitions are, for ``kind``.

    Returns:
      No limits for one value, where a value is not finite, and where fewer values than show anything are all equal (see
      :func:`of_equal_values`).

    Raises:
      ConfigError: where there are no values.
    """
    x = as_values(values, "summary")
    mean, kind = float(np.mean(x)), f"mean over {x.size} {unit}"
    if x.size == 1 or not np.all(np.isfinite(x)):
        return unknown(mean, x.size, level, kind)
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # equal but for rounding
        return of_equal_values(mean, x.size, level, kind)
    error = float(np.std(x, ddof=1)) / math.sqrt(x.size)
    low, high = from_error(mean, error, level, x.size - 1)
    return Summary(mean, low, high, x.size, level, f"{kind}, Student's interval", error)


@checked
def share(
    happened: Natural,
    trials: Natural,
    level: OpenFraction = 0.95,
    method: Literal["wilson", "exact"] = "wilson",
    unit: str = "trials",
) -> Summary:
    """The share of independent trials in which something happened.

    Args:
      happened: in how many.
      trials: of how many.
      level: coverage of the interval.
      method: "exact" is Clopper and Pearson's interval, which covers at least with ``level`` and is wider.
      unit: what the trials are, for ``kind``.

    Raises:
      ConfigError: where there was no trial, or it happened more often than there were trials.
    """
    if not trials or happened > trials:
        raise ConfigError(
            f"share: happened is {happened} of {trials} trials; it must be at most as many, of at least 1"
        )
    limits = stats.binomtest(int(happened), int(trials)).proportion_ci(level, method=method)
    name = {"wilson": "Wilson's interval", "exact": "Clopper and Pearson's interval"}[method]
    kind = f"share of {trials} {unit}, {name}"
    return Summary(happened / trials, float(limits.low), float(limits.high), int(trials), level, kind)


@checked
def mean_share(
    values: Values,
    level: OpenFraction = 0.95,
    unit: str = "seeds",
    whole: Positive = 1.0,
    trials: Count = 1,
) -> Summary:
    """The mean of shares, one from each independent repetition, with limits between 0 and ``whole``.

    Where all are 0 or 1 they are trials, see :func:`share`. Else Clopper and Pearson's limits at the effective number
    of trials, mean (1 - mean) / variance of the mean, with the correction for its own degrees of freedom (Korn and
    Graubard, Survey Methodology 1998). Where all are 0 or all are the whole, as many trials as there were, at least one
    for each share; for other equal numbers see :func:`of_equal_values`.

    Args:
      values: a share per repetition.
      level: coverage of the interval.
      unit: what the repetitions are, for ``kind``.
      whole: what all is called, e.g. 100 for percentages.
      trials: of how many independent trials each share is, where that is known.

    Raises:
      ConfigError: where there are no values, or one lies outside of 0 and ``whole``.
    """
    x = as_values(values, "mean_share") / whole
    kind = f"mean share over {x.size} {unit}"
    if not np.all(np.isfinite(x)):
        return unknown(float(np.mean(x)) * whole, x.size, level, kind)
    require_shares("mean_share", x, whole)
    x = np.where(x < TOLERANCE, 0.0, np.where(x > 1 - TOLERANCE, 1.0, x))
    if trials == 1 and np.isin(x, (0, 1)).all():
        found = share(round(x.sum()), x.size, level, unit=unit)
        return found._replace(value=found.value * whole, low=found.low * whole, high=found.high * whole)
    if x.size == 1:
        return unknown(float(x[0]) * whole, 1, level, kind)
    if np.ptp(x) <= TOLERANCE and 0 < x[0] < 1:
        found = of_equal_values(float(x[0]), x.size, level, kind)
        return found._replace(value=found.value * whole, low=found.low * whole, high=found.high * whole)
    p, error = float(np.mean(x)), float(np.std(x, ddof=1)) / math.sqrt(x.size)
    low, high = limits_of_share(p, error, x.size * trials, x.size - 1, level)
    return Summary(p * whole, low * whole, high * whole, x.size, level, f"{kind}, effective trials", error * whole)


def require_shares(what: str, x: Float[np.ndarray, " n"], whole: float = 1.0) -> None:
    """Refuses numbers outside of 0..1.

    Raises:
      ConfigError: names the first.
    """
    wrong = np.flatnonzero((x < -TOLERANCE) | (x > 1 + TOLERANCE))
    if wrong.size:
        raise ConfigError(f"{what}: values[{wrong[0]}] is {x[wrong[0]] * whole:g}, no share between 0 and {whole:g}")


def limits_of_share(p: float, error: float, n: int, degrees: float, level: float) -> Limits:
    """Limits of a share with a standard error, which has so many degrees of freedom, from n repetitions."""
    p = min(max(p, 0.0), 1.0)
    if error <= 1e-12:
        return share_limits(p, n, level)
    known = (critical_value(level) / critical_value(level, degrees)) ** 2
    return share_limits(p, known * p * (1 - p) / error**2, level)


@checked
def median(values: Values, level: OpenFraction = 0.95, unit: str = "seeds") -> Summary:
    """The median with the narrowest pair of order statistics that covers it with ``level``, whatever the distribution.

    The k-th smallest and k-th largest of n enclose it with 1 - 2 P(Binomial(n, 1/2) < k). Six values are the fewest
    with 95 %; with fewer the interval is [min, max] and ``level`` is what that has, 0.9375 for five.

    Raises:
      ConfigError: where there are no values.
    """
    x = np.sort(as_values(values, "median"))
    middle, n, kind = float(np.median(x)), x.size, f"median of {x.size} {unit}"
    if n == 1 or np.isnan(x).any():
        return unknown(middle, n, level, kind)
    below = stats.binom.cdf(np.arange((n + 1) // 2), n, 0.5)
    k = max(int(np.searchsorted(below, (1 - level) / 2 * (1 + 1e-12), side="right")) - 1, 0)
    covered = float(1 - 2 * below[k])
    return Summary(middle, float(x[k]), float(x[n - 1 - k]), n, covered, f"{kind}, order statistics")


@checked
def geometric_mean(values: Values, level: OpenFraction = 0.95, unit: str = "seeds") -> Summary:
    """The geometric mean of positive numbers, such as ratios, with Student's interval of their logarithms.

    Raises:
      ConfigError: where there are no values, or one is not positive.
    """
    x = as_values(values, "geometric_mean")
    if not np.all((x > 0) | np.isnan(x)):
        wrong = int(np.argmin(np.where(np.isnan(x), 1.0, x)))
        raise ConfigError(f"geometric_mean: values[{wrong}] is {x[wrong]:g}; all must be positive")
    found = summary(np.log(x), level, unit)
    value, low, high = (math.exp(each) for each in found[:3])
    return found._replace(value=value, low=low, high=high, kind=f"geometric {found.kind}", error=math.nan)


@checked
def exponential_rate(mean: Any, n: Count, level: OpenFraction = 0.95) -> tuple[Any, Any, Any]:
    """The rate 1 / mean of an exponential distribution from n values, with its exact limits (2 n rate mean ~ chi2(2n)).

    Args:
      mean: of the values; an array for several samples of n.
      n: values in each sample.
      level: coverage.

    Returns:
      (rate, low, high).

    Raises:
      ConfigError: where a mean is negative.
    """
    mean = np.asarray(mean, float)[()]
    if np.any(mean < 0):
        raise ConfigError("exponential_rate: mean must not be negative")
    with np.errstate(divide="ignore"):  # all values 0: the rate is infinite
        rate = 1 / mean
    low, high = (rate * stats.chi2.ppf((1 + sign * level) / 2, 2 * n) / (2 * n) for sign in (-1, 1))
    return rate, low, high


@checked
def exact(values: Values) -> Summary:
    """The number of a method without randomness: no interval, however often it was computed.

    Numbers that differ by more than rounding are random after all, and get :func:`summary`'s interval.
    """
    x = as_values(values, "exact")
    if np.ptp(x) > 1e-6 * np.abs(x).max():
        return summary(x)
    return Summary(float(x[0]), math.nan, math.nan, 1, 1.0, NO_RANDOMNESS)
