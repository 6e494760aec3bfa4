"""Quantiles and limits: what intervals are made of, for numbers and arrays alike."""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Num
from scipy import stats

from core.checks import Count, NonNegative, OpenFraction, checked
from core.errors import ConfigError
from core.kinds import Range

Degrees = Annotated[float, Range(above=0)]
"""Degrees of freedom, possibly infinite or broken."""
TOLERANCE = 1e-9
"""Of shares beyond 0 and 1 by rounding."""


class Limits(NamedTuple):
    """Lower and upper limits; arrays of equal shape where there are several."""

    low: Any
    high: Any


@checked
def critical_value(level: OpenFraction = 0.95, degrees: Degrees = math.inf, comparisons: Count = 1) -> float:
    """How many standard errors an interval reaches to either side.

    Args:
      level: coverage of the interval, e.g. 0.95.
      degrees: Student's degrees of freedom; infinitely many are the normal distribution.
      comparisons: with several intervals, which shall hold together with ``level``, each is wider (Bonferroni).
    """
    tail = (1 - level) / (2 * comparisons)
    return float(stats.norm.isf(tail) if math.isinf(degrees) else stats.t.isf(tail, degrees))


@checked
def from_error(
    value: Any, error: Any, level: OpenFraction = 0.95, degrees: Degrees = math.inf, comparisons: Count = 1
) -> Limits:
    """Limits from an estimate and its standard error; arrays are of NumPy or JAX, traced or not."""
    half = critical_value(level, degrees, comparisons) * error
    return Limits(value - half, value + half)


@checked
def central(draws: Num[np.ndarray, "draws ..."], level: OpenFraction = 0.95) -> Limits:
    """Limits of the middle share of draws along axis 0, of a posterior or a bootstrap; NaN draws are left out."""
    if not len(draws):
        raise ConfigError("central: draws has no entry; a percentile takes one")
    low, high = np.nanquantile(np.asarray(draws, float), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Limits(low, high)


@checked
def wilson(happened: Any, trials: Any, level: OpenFraction = 0.95) -> Limits:
    """Wilson's limits of probabilities, for arrays of counts; 0 and 1 where there was no trial.

    Raises:
      ConfigError: where something happened more often than there were trials, or less often than never.
    """
    if np.any(np.asarray(happened) < 0) or np.any(np.asarray(happened) > np.asarray(trials)):
        raise ConfigError("wilson: happened must be at least 0 and at most as many as trials")
    z, n = critical_value(level), np.maximum(np.asarray(trials, float), 1.0)
    p = np.asarray(happened, float) / n
    middle, half = p + z**2 / (2 * n), z * np.sqrt(np.maximum(p * (1 - p), 0.0) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    tried = np.asarray(trials) > 0
    return Limits(np.where(tried, np.clip(low, 0, 1), 0.0), np.where(tried, np.clip(high, 0, 1), 1.0))


def share_limits(p: float, trials: float, level: float) -> Limits:
    """Clopper and Pearson's limits of a share p of so many trials, which may be broken numbers."""
    happened, tail = p * trials, (1 - level) / 2
    low = 0.0 if p <= TOLERANCE else float(stats.beta.ppf(tail, happened, trials - happened + 1))
    high = 1.0 if p >= 1 - TOLERANCE else float(stats.beta.isf(tail, happened + 1, trials - happened))
    return Limits(low, high)


@checked
def correlation_limits(
    r: Annotated[float, Range(-1, 1)], n: NonNegative, level: OpenFraction = 0.95
) -> tuple[float, float]:
    """Limits of a correlation over n independent pairs by Fisher's transformation; NaN where n is at most 3."""
    if n <= 3:
        return math.nan, math.nan
    low, high = from_error(math.atanh(max(-1 + TOLERANCE, min(r, 1 - TOLERANCE))), 1 / math.sqrt(n - 3), level)
    return math.tanh(low), math.tanh(high)
