"""Comparisons: paired differences, what an interval decides, corrections for many tests, rank correlation."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from core.checks import FINITE, OpenFraction, checked
from core.errors import ConfigError
from core.stats.intervals import Values, summary


class Paired(NamedTuple):
    """A comparison of two methods on the same seeds."""

    value: float
    """The mean of ``a - b``."""
    low: float
    high: float
    n: int
    level: float
    kind: str
    p_ttest: float
    """Two-sided, paired t test; NaN where all differences are equal, for they leave no variance to test with."""
    p_wilcoxon: float
    """Two-sided, Wilcoxon's signed ranks; with n pairs never below 2^(1-n)."""

    @property
    def interval(self) -> tuple[float, float]:
        """Limits of the difference."""
        return self.low, self.high

    @property
    def p_value(self) -> float:
        """Of the t test; where all differences are equal, of exchanged signs: 2^(1-n), and 1 where all are 0."""
        return self.p_wilcoxon if math.isnan(self.p_ttest) else self.p_ttest


@checked
def paired(a: Values, b: Values, level: OpenFraction = 0.95, unit: str = "seeds") -> Paired:
    """The mean difference ``a - b`` over pairs, with Student's interval and two tests of no difference.

    Args:
      a: one number per seed.
      b: the other method's numbers for the same seeds in the same order.
      level: coverage of the interval.
      unit: what the pairs are, for ``kind``.

    Raises:
      ConfigError: where the lengths differ or there is no pair.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.size != y.size:
        raise ConfigError(f"paired: a and b must have equal lengths, not {x.size} and {y.size}")
    difference = x - y
    largest = np.maximum(np.abs(x), np.abs(y)).max(initial=0.0)
    if difference.size and np.ptp(difference) <= 1e-12 * largest:  # equal but for rounding
        difference = np.full_like(difference, 0.0 if abs(difference[0]) <= 1e-12 * largest else difference[0])
    found = summary(difference, level, unit)
    head = (found.value, found.low, found.high, found.n, found.level, f"difference, {found.kind}")
    if found.n == 1 or not np.all(np.isfinite(difference)):
        return Paired(*head, np.nan, np.nan)
    if not np.ptp(difference):
        return Paired(*head, np.nan, 2.0 ** (1 - found.n) if difference[0] else 1.0)
    return Paired(*head, float(stats.ttest_rel(x, y)[1]), float(np.asarray(stats.wilcoxon(difference))[1]))


def within(interval: tuple[float, float], least: float = -math.inf, most: float = math.inf) -> bool | None:
    """Whether an interval lies between two limits; None where it holds one of them, for then nothing is decided.

    It may touch a limit, but one that is nothing else than a limit (equal numbers in all repetitions) is no evidence.
    One that is not known (NaN) decides nothing.
    """
    low, high = interval
    if low == high and low in (least, most):
        return None
    return True if least <= low and high <= most else False if high < least or low > most else None


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """Whether all are True; one that is False decides, and one that is open leaves the rest open."""
    found = set(answers)
    return False if False in found else None if None in found else True


@checked
def rank_correlation(x: Values, y: Values) -> float:
    """Spearman's, 0 where one of the two is constant.

    Raises:
      ConfigError: where the lengths differ or there is no pair.
    """
    if len(x) != len(y) or not len(x):
        raise ConfigError(f"rank_correlation: x and y must have equal lengths of at least 1, not {len(x)} and {len(y)}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic)


@checked
def sign_test(differences: Values) -> float:
    """One-sided p of the sign test that differences are below 0, in whose favour small values speak; ties are left out.

    Differences within 1e-9 are ties; with nothing else p is 1.
    """
    x = np.asarray(differences)
    below, above = int((x < -1e-9).sum()), int((x > 1e-9).sum())
    return float(stats.binomtest(below, below + above, alternative="greater").pvalue) if below + above else 1.0


@checked
def auc(scores: Annotated[Float[np.ndarray, " n"], FINITE], positive: Bool[np.ndarray, " n"]) -> float:
    """The probability that a positive example scores higher than a negative one, ties counted half.

    Raises:
      ConfigError: for scores that are not finite and where all examples are of one kind.
    """
    scores, positive = np.asarray(scores), np.asarray(positive)
    if positive.all() or not positive.any():
        raise ConfigError(f"auc: {int(positive.sum())} of {len(positive)} examples are positive; both kinds are needed")
    ranks = stats.rankdata(scores)
    count, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


@checked
def holm(pvalues: Values) -> Float[np.ndarray, " n"]:
    """p-values adjusted for their number, after Holm (1979), in the given order.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). NaN (a test that could
    not be made) stays NaN and does not count.

    Raises:
      ConfigError: where a number is no p-value.
    """
    p = np.asarray(pvalues, float)
    if np.any((p < 0) | (p > 1)):
        wrong = int(np.flatnonzero((p < 0) | (p > 1))[0])
        raise ConfigError(f"holm: pvalues[{wrong}] is {p[wrong]:g}, no probability between 0 and 1")
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted
