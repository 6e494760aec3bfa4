"""Means over seeds with their uncertainty, and paired comparisons of methods."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

Values = Sequence[float] | Float[np.ndarray, " n"]


class Summary(NamedTuple):
    """A mean over repetitions and a confidence interval for it; NaN limits where one value gives none."""

    mean: float
    low: float
    high: float
    n: int
    std: float
    """With n - 1 in the denominator; NaN for one value."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its limits."""
        return self.low, self.high

    @property
    def half_width(self) -> float:
        """Half of the interval's width, the figure behind ±."""
        return (self.high - self.low) / 2


class Paired(NamedTuple):
    """A comparison of two methods on the same seeds."""

    difference: float
    """The mean of ``a - b``."""
    low: float
    high: float
    p_ttest: float
    """Two-sided, paired t test."""
    p_wilcoxon: float
    """Two-sided, Wilcoxon's signed ranks; with n pairs never below 2^(1-n)."""

    @property
    def interval(self) -> tuple[float, float]:
        """Limits of the difference."""
        return self.low, self.high


class Share(NamedTuple):
    """How often something happened, and a 95 % interval for its probability."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Limits of the probability."""
        return self.low, self.high


def share(happened: int, trials: int, level: float = 0.95, method: Literal["wilson", "exact"] = "wilson") -> Share:
    """The share of trials in which something happened; "exact" is Clopper and Pearson's interval, which is wider."""
    found = stats.binomtest(happened, trials).proportion_ci(level, method=method)
    return Share(happened / trials, float(found.low), float(found.high), trials)


def within(interval: tuple[float, float], least: float = -math.inf, most: float = math.inf) -> bool | None:
    """Whether an interval lies between two limits; None where it holds one of them, for then nothing is decided.

    It may touch a limit, but one that is nothing else than a limit (equal numbers in all repetitions) is no evidence.
    """
    low, high = interval
    if low == high and low in (least, most):
        return None
    return True if least <= low and high <= most else False if high < least or low > most else None


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """Whether all are True; one that is False decides, and one that is open leaves the rest open."""
    found = set(answers)
    return False if False in found else None if None in found else True


def rank_correlation(x: Values, y: Values) -> float:
    """Spearman's, 0 where one of the two is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic)


def summary(values: Values, level: float = 0.95, method: Literal["t", "bootstrap"] = "t") -> Summary:
    """The mean of independent repetitions with a confidence interval.

    Args:
      values: one number per repetition (seed).
      level: coverage of the interval.
      method: "t" for Student's interval, "bootstrap" for percentiles of the resampled mean.

    Raises:
      ValueError: where there are no values.
    """
    x = np.asarray(values, float).ravel()
    if not x.size:
        raise ValueError("a summary needs at least one value")
    mean = float(np.mean(x))
    if x.size == 1 or not np.all(np.isfinite(x)):
        return Summary(mean, np.nan, np.nan, x.size, np.nan)
    std = float(np.std(x, ddof=1))
    if method == "t":
        half = float(stats.t.ppf((1 + level) / 2, x.size - 1)) * std / math.sqrt(x.size)
        return Summary(mean, mean - half, mean + half, x.size, std)
    low, high = (mean, mean) if np.ptp(x) == 0 else _bootstrap(x, level)
    return Summary(mean, float(low), float(high), x.size, std)


def _bootstrap(x: Float[np.ndarray, " n"], level: float) -> tuple[float, float]:
    interval = stats.bootstrap(
        (x,), np.mean, confidence_level=level, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    return interval.low, interval.high


def paired(a: Values, b: Values, level: float = 0.95) -> Paired:
    """The mean difference ``a - b`` over pairs, with Student's interval and two tests of no difference.

    Args:
      a: one number per seed.
      b: the other method's numbers for the same seeds in the same order.
      level: coverage of the interval.

    Raises:
      ValueError: where the lengths differ.
    """
    x, y = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    if x.shape != y.shape:
        raise ValueError(f"paired values must have equal lengths, got {x.size} and {y.size}")
    difference = x - y
    mean, low, high, n, _ = summary(difference, level)
    if n == 1 or not np.all(np.isfinite(difference)):
        return Paired(mean, low, high, np.nan, np.nan)
    if not difference.any():
        return Paired(mean, low, high, 1.0, 1.0)
    constant = np.ptp(difference) <= 1e-12 * abs(mean)  # but for rounding: the t statistic is infinite
    p_ttest = 0.0 if constant else float(stats.ttest_rel(x, y)[1])
    return Paired(mean, low, high, p_ttest, float(np.asarray(stats.wilcoxon(difference))[1]))


def holm(pvalues: Values) -> Float[np.ndarray, " n"]:
    """p-values adjusted for their number, after Holm (1979), in the given order.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). NaN (a test that could
    not be made) stays NaN and does not count.
    """
    p = np.asarray(pvalues, float).ravel()
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted
