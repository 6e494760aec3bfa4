"""Noise grids: the levels that a sampler visits, from noise to data, in float64 on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from core.checks import Count, Fraction, NonNegative, Positive, checked, require_indices
from core.errors import ConfigError
from latent.diffusion import schedules
from latent.diffusion.schedules import DiscreteSchedule, Schedule

Levels = Real[np.ndarray | Array, " levels"]


class Grid(NamedTuple):
    """N + 1 levels for N steps, strictly falling noise; ``reverse`` turns one for inversion."""

    a: Float[np.ndarray, " levels"]
    s: Float[np.ndarray, " levels"]
    logsnr: Float[np.ndarray, " levels"]
    time: Float[np.ndarray, " levels"]
    """What the network is told."""

    @property
    def sigma(self) -> Float[np.ndarray, " levels"]:
        """EDM's noise level s / a."""
        return self.s / self.a

    @property
    def steps(self) -> int:
        """N."""
        return len(self.a) - 1


@checked
def reverse(grid: Grid) -> Grid:
    """The same levels from data to noise."""
    return Grid(*(column[::-1] for column in grid))


@checked
def variance_preserving(logsnr: Levels, time: Levels) -> Grid:
    """Levels of a variance-preserving process; L may be infinite (clean) or minus infinity (pure noise).

    Raises:
      ConfigError: where there are fewer than two levels, or the noise does not fall.
    """
    logsnr, time = np.asarray(logsnr, np.float64), np.asarray(time, np.float64)
    _require_more_signal(logsnr, time)
    return Grid(np.exp(-np.logaddexp(0, -logsnr) / 2), np.exp(-np.logaddexp(0, logsnr) / 2), logsnr, time)


@checked
def variance_exploding(sigma: Levels, time: Levels | None = None) -> Grid:
    """Levels x = x_0 + sigma e; the network is told log(sigma)/4, as in EDM, unless times are given.

    Raises:
      ConfigError: where there are fewer than two levels, or the noise is negative or does not fall.
    """
    sigma = np.asarray(sigma, np.float64)
    if (sigma < 0).any():
        raise ConfigError(f"sigma must not be negative, but one of them is {sigma.min():g}")
    with np.errstate(divide="ignore"):
        logsnr = -2 * np.log(sigma)
    told = np.where(sigma > 0, -logsnr / 8, -logsnr[:1] / 8) if time is None else np.asarray(time, np.float64)
    _require_more_signal(logsnr, told)
    return Grid(np.ones_like(sigma), sigma, logsnr, told)


@checked
def karras(steps: Count, smallest: NonNegative = 0.002, largest: Positive = 80.0, rho: Positive = 7.0) -> Grid:
    """sigma_i = (max^(1/rho) + i/(N-1) (min^(1/rho) - max^(1/rho)))^rho for i = 0..N-1, then 0 (Karras et al. 2022)."""
    share = np.arange(steps) / max(steps - 1, 1)
    ends = largest ** (1 / rho), smallest ** (1 / rho)
    return variance_exploding(np.append((ends[0] + share * (ends[1] - ends[0])) ** rho, 0.0))


@checked
def continuous(schedule: Schedule, times: Levels) -> Grid:
    """Levels of a schedule at decreasing times; the network is told the time."""
    return variance_preserving(schedules.in_double(schedule.logsnr, times), times)


@checked
def uniform_in_time(schedule: Schedule, steps: Count, start: Fraction = 1.0, end: Fraction = 1e-3) -> Grid:
    """Levels at evenly spaced times."""
    return continuous(schedule, np.linspace(start, end, steps + 1))


@checked
def uniform_in_logsnr(schedule: Schedule, steps: Count, start: Fraction = 1.0, end: Fraction = 1e-3) -> Grid:
    """Levels at evenly spaced log signal-to-noise ratios between two times; best for solvers in that coordinate."""
    ends = schedules.in_double(schedule.logsnr, np.array([start, end]))
    levels = np.linspace(ends[0], ends[1], steps + 1)
    times = schedules.in_double(schedule.time, levels).copy()
    times[0], times[-1] = start, end
    return variance_preserving(levels, times)


@checked
def chain(schedule: DiscreteSchedule, indices: Int[np.ndarray | Array, " n"] | Count, *, clean: bool = True) -> Grid:
    """Levels of a chain at some of its indices (increasing, or how many by :func:`schedules.respaced`).

    Args:
      schedule: the chain; the network is told its original indices.
      indices: increasing indices, or their number.
      clean: whether data without noise is the last level. There the network, where it is asked (inversion starts
        there), is told the index of the cleanest level visited.

    Raises:
      ConfigError: where there is no index, or they do not increase, or one is no level of the chain.
    """
    length = len(schedule.log_alpha_bar)
    if isinstance(indices, int | np.integer):
        indices = schedules.respaced(length, int(indices))
    require_indices("indices", indices, length, "levels of the chain")
    falling = np.asarray(indices)[::-1]
    if not len(falling) or (np.diff(falling) >= 0).any():
        raise ConfigError("chain: indices must increase strictly, and there must be one at least")
    levels, times = schedule.logsnr[falling], falling.astype(np.float64)
    if clean:
        levels, times = np.append(levels, np.inf), np.append(times, times[-1])
    return variance_preserving(levels, times)


def _require_more_signal(logsnr: np.ndarray, time: np.ndarray) -> None:
    """From level to level."""
    if len(logsnr) < 2 or np.isnan(logsnr).any() or not (np.diff(logsnr) > 0).all() or np.isnan(time).any():
        raise ConfigError(
            "the noise of a sampling grid must fall strictly from level to level, over two levels at least, and none "
            "of them may be NaN"
        )
