r"""Noise schedules: how the signal-to-noise ratio falls with time.

All processes are ``x_t = a x_0 + s e`` with standard normal e. One coordinate serves all of them, the log
signal-to-noise ratio ``L = log(a^2 / s^2)``. Others in use: VDM's gamma is -L, k-diffusion's time -log sigma is L/2,
DPM-Solver's lambda is L/2, EDM's sigma is exp(-L/2). A variance-preserving process has ``a^2 = sigmoid(L)`` and
``s^2 = sigmoid(-L)``; a variance-exploding one ``a = 1`` and ``s = exp(-L/2)``.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from core.checks import Count, Natural, NonNegative, Positive, checked
from core.errors import ConfigError
from core.kinds import Range, is_traced

Beta = Annotated[float, Range(0, below=1)]
"""A transition's variance."""


class Schedule(NamedTuple):
    """A continuous schedule on [0, 1], as a pair of pure functions."""

    logsnr: Callable[[Any], Any]
    """Time to log signal-to-noise ratio, decreasing."""
    time: Callable[[Any], Any]
    """Its inverse."""


class DiscreteSchedule(NamedTuple):
    """A chain of T noise levels, 0 the cleanest, in float64 on the host."""

    log_alpha_bar: Float[np.ndarray, " T"]
    """log of the product of (1 - beta), which is log a^2."""

    @property
    def alpha_bar(self) -> Float[np.ndarray, " T"]:
        """a^2 at every level."""
        return np.exp(self.log_alpha_bar)

    @property
    def logsnr(self) -> Float[np.ndarray, " T"]:
        """log(abar / (1 - abar)), without forming 1 - abar where abar is close to 1."""
        with np.errstate(divide="ignore"):
            return self.log_alpha_bar - np.log(-np.expm1(self.log_alpha_bar))


def scales(logsnr: Any) -> tuple[Array, Array]:
    """``(a, s)`` of a variance-preserving process; precise at both ends, unlike sqrt(1 - abar)."""
    return jnp.exp(-jax.nn.softplus(-logsnr) / 2), jnp.exp(-jax.nn.softplus(logsnr) / 2)


# --- chains -----------------------------------------------------------------------------------------------------------


@checked
def from_betas(betas: Real[np.ndarray | Array, " T"]) -> DiscreteSchedule:
    """The chain with transition variances ``betas`` [T].

    Raises:
      ConfigError: where there is none, or a beta is outside [0, 1).
    """
    betas = np.asarray(betas, np.float64)
    outside = np.flatnonzero(~((betas >= 0) & (betas < 1)))
    if not betas.size or outside.size:
        what = f"betas[{outside[0]}] is {betas[outside[0]]:g}" if betas.size else "there is none"
        raise ConfigError(f"betas must be numbers of at least 0 and below 1, at least one of them; {what}")
    return DiscreteSchedule(np.cumsum(np.log1p(-betas)))


@checked
def linear_beta(steps: Count = 1000, first: Beta = 1e-4, last: Beta = 2e-2) -> DiscreteSchedule:
    """Linearly spaced betas, scaled by 1000 / steps so that the whole chain keeps its length (Ho et al. 2020).

    Raises:
      ConfigError: where the betas fall, or a chain of so few steps would need betas of 1 or more.
    """
    _require_rising(first, last)
    scale = 1000 / steps
    if scale * last >= 1:
        raise ConfigError(
            f"linear_beta: {steps} steps as noisy as 1000 with betas up to {last:g} would need betas of 1 or more; "
            f"use at least {int(1000 * last) + 1} steps"
        )
    return from_betas(np.linspace(scale * first, scale * last, steps))


@checked
def scaled_linear(steps: Count = 1000, first: Beta = 0.00085, last: Beta = 0.012) -> DiscreteSchedule:
    """Betas whose square roots are linearly spaced (latent diffusion)."""
    _require_rising(first, last)
    return from_betas(np.linspace(first**0.5, last**0.5, steps) ** 2)


def _require_rising(first: float, last: float) -> None:
    if first > last:
        raise ConfigError(f"the first beta, {first:g}, must not exceed the last, {last:g}: noise grows along a chain")


@checked
def cosine_beta(steps: Count = 1000, offset: NonNegative = 0.008, largest: Beta = 0.999) -> DiscreteSchedule:
    """beta_k = min(1 - f((k+1)/T) / f(k/T), largest), f(u) = cos^2(((u + offset)/(1 + offset)) pi/2).

    Nichol, Dhariwal 2021. The product of (1 - beta) is not divided by f(0).
    """
    f = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1 - f[1:] / f[:-1], largest))


@checked
def zero_terminal_snr(schedule: DiscreteSchedule) -> DiscreteSchedule:
    """The chain with sqrt(abar) shifted and scaled to end at exactly 0 (Lin et al. 2023).

    Its last level is pure noise, from which eps tells nothing of x_0: predict v or x_0 there.
    """
    root = np.exp(schedule.log_alpha_bar / 2)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    with np.errstate(divide="ignore"):
        return DiscreteSchedule(2 * np.log(root))


@checked
def respaced(steps: Count, count: Count) -> np.ndarray:
    """``count`` of ``steps`` levels, both ends among them, evenly spread: increasing indices.

    The running sum of the stride (steps - 1)/(count - 1) rounded half to even, the rule of improved-diffusion.
    """
    _check_count(steps, count)
    if count == 1:
        return np.zeros(1, np.int64)
    stride, at, chosen = (steps - 1) / (count - 1), 0.0, []
    for _ in range(count):
        chosen.append(round(at))
        at += stride
    return np.asarray(chosen)


@checked
def leading(steps: Count, count: Count, offset: Natural = 0) -> np.ndarray:
    """Multiples of steps // count, plus an offset; the noisiest level is usually not among them."""
    _check_count(steps, count)
    return np.minimum(np.arange(count) * (steps // count) + offset, steps - 1)


@checked
def trailing(steps: Count, count: Count) -> np.ndarray:
    """round(T - i T/N) - 1, which includes the noisiest level; increasing."""
    _check_count(steps, count)
    return (np.round(steps - np.arange(count) * steps / count).astype(np.int64) - 1)[::-1]


def _check_count(steps: int, count: int) -> None:
    if count > steps:
        raise ConfigError(f"cannot choose {count} of {steps} noise levels: the count must be in 1..{steps}")


# --- continuous -------------------------------------------------------------------------------------------------------


@checked
def linear_vp(beta_min: NonNegative = 0.1, beta_d: Positive = 19.9) -> Schedule:
    """The limit of linear betas: log a = -beta_d t^2/4 - beta_min t/2 (Song et al. 2021)."""

    def logsnr(t):
        log_a2 = -beta_d * t**2 / 2 - beta_min * t
        return log_a2 - jnp.log(-jnp.expm1(log_a2))

    def time(level):
        log_a2 = -jax.nn.softplus(-level)
        return -2 * log_a2 / (beta_min + jnp.sqrt(beta_min**2 - 2 * beta_d * log_a2))

    return Schedule(logsnr, time)


@checked
def cosine(offset: NonNegative = 0.008, limit: Positive = 20.0) -> Schedule:
    """abar(t) = cos^2(((t + offset)/(1 + offset)) pi/2) with L clipped to [-limit, limit] (Nichol, Dhariwal 2021)."""

    def logsnr(t):
        angle = (t + offset) / (1 + offset) * jnp.pi / 2
        return jnp.clip(-2 * jnp.log(jnp.tan(jnp.minimum(angle, jnp.pi / 2 - 1e-6))), -limit, limit)

    def time(level):
        return jnp.arctan(jnp.exp(-level / 2)) * 2 / jnp.pi * (1 + offset) - offset

    return Schedule(logsnr, time)


@checked
def cosine_logsnr(lowest: float = -15.0, highest: float = 15.0, shift: float = 0.0) -> Schedule:
    """L(t) = -2 log tan(t_0 + t (t_1 - t_0)) + shift between two ends (Kingma et al. 2021; simple diffusion).

    Args:
      lowest: L at t = 1, before the shift.
      highest: L at t = 0.
      shift: 2 log(side at which noise is calibrated / side of the image), for larger images.
    """
    _require_falling(highest, lowest)
    start, end = math.atan(math.exp(-highest / 2)), math.atan(math.exp(-lowest / 2))

    def logsnr(t):
        return -2 * jnp.log(jnp.tan(start + t * (end - start))) + shift

    def time(level):
        return (jnp.arctan(jnp.exp(-(level - shift) / 2)) - start) / (end - start)

    return Schedule(logsnr, time)


def _require_falling(highest: Any, lowest: Any) -> None:
    """L at both ends; of learned ends, which are traced, nothing is asked."""
    if not (is_traced(highest) or is_traced(lowest)) and not highest > lowest:
        raise ConfigError(f"the log SNR must fall: highest, {highest}, must exceed lowest, {lowest}")


@checked
def linear_logsnr(highest: float | Float[Array, ""] = 13.3, lowest: float | Float[Array, ""] = -5.0) -> Schedule:
    """L falls linearly: VDM's fixed gamma(t) = gamma_min + (gamma_max - gamma_min) t (Kingma et al. 2021)."""
    _require_falling(highest, lowest)
    return Schedule(lambda t: highest + (lowest - highest) * t, lambda level: (level - highest) / (lowest - highest))


@checked
def tabulated(logsnr: Callable[[Any], Any], points: Annotated[int, Range(2)] = 4096) -> Schedule:
    """A schedule from a decreasing function alone: the inverse is read from a table, by linear interpolation.

    Raises:
      ConfigError: where the function rises; of a learned one, which is traced, nothing is asked.
    """
    times = np.linspace(0, 1, points)
    _require_falls(times, logsnr(jnp.asarray(times)))

    def time(level):
        return jnp.interp(-level, -logsnr(jnp.asarray(times)), jnp.asarray(times))

    return Schedule(logsnr, time)


def _require_falls(times: np.ndarray, levels: Any) -> None:
    """Rises within a hundred-thousandth of the whole fall are rounding."""
    if is_traced(levels):
        return
    levels = np.asarray(levels, np.float64)
    fine = np.diff(levels) <= 1e-5 * (levels[0] - levels[-1])
    if not (fine.all() and levels[0] > levels[-1]):
        at = times[int(np.argmin(fine))]
        raise ConfigError(f"a schedule's log SNR must fall from time 0 to 1; this one does not from time {at:.4g} on")


@checked
class ScalarGamma(nn.Module):
    """VDM's learned line: gamma(t) = b + |w| t, from ``start`` to ``end`` at first; the log SNR is its negative."""

    start: float = -13.3
    end: float = 5.0

    @nn.compact
    def __call__(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Gamma at times in [0, 1]."""
        w = self.param("w", nn.initializers.constant(self.end - self.start), ())
        b = self.param("b", nn.initializers.constant(self.start), ())
        return b + jnp.abs(w) * t


@checked
class MonotoneGamma(nn.Module):
    """VDM's learned monotone network: gamma(t) = l_1(t) + l_3(2 sigmoid(l_2(2 (t - 1/2))) - 1) / width.

    All weights enter by their absolute value, so that gamma increases. (Kingma et al. 2021, appendix H.)
    """

    start: float = -13.3
    end: float = 5.0
    width: Count = 1024

    @nn.compact
    def __call__(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Gamma at times in [0, 1]."""
        normal, constant = nn.initializers.normal(1.0), nn.initializers.constant
        line = self.param("l1_kernel", constant(self.end - self.start), ())
        offset = self.param("l1_bias", constant(self.start), ())
        inner = self.param("l2_kernel", normal, (self.width,))
        bias = self.param("l2_bias", nn.initializers.zeros, (self.width,))
        outer = self.param("l3_kernel", normal, (self.width,))
        hidden = 2 * jax.nn.sigmoid(jnp.abs(inner) * (2 * (t[..., None] - 0.5)) + bias) - 1
        return jnp.abs(line) * t + offset + hidden @ jnp.abs(outer) / self.width


@checked
def pinned(gamma: Callable[[Any], Any], start: float | Float[Array, ""], end: float | Float[Array, ""]) -> Schedule:
    """The learned shape between two given ends: gamma rescaled to run from ``start`` to ``end``; as a schedule."""

    def logsnr(t):
        first, last = gamma(jnp.zeros(())), gamma(jnp.ones(()))
        return -(start + (end - start) * (gamma(t) - first) / (last - first))

    return tabulated(logsnr)


def slope(schedule: Schedule, t: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """``(L, dL/dt)`` at times t, by forward differentiation."""
    return jax.jvp(schedule.logsnr, (t,), (jnp.ones_like(t),))


def in_double(fn: Callable[..., Any], *args: Any) -> np.ndarray:
    """A function of arrays in float64 on the host, whatever the precision elsewhere."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(fn(*(jnp.asarray(np.asarray(arg, np.float64)) for arg in args)), np.float64)


def net_times(schedule: DiscreteSchedule) -> np.ndarray:
    """What a network trained on a chain is told at each level: its index."""
    return np.arange(len(schedule.log_alpha_bar), dtype=np.float64)


@functools.cache
def table(steps: int, first: float = 1e-4, last: float = 2e-2) -> Float[np.ndarray, " T"]:
    """Log SNR of the linear chain in float32, for training."""
    return linear_beta(steps, first, last).logsnr.astype(np.float32)
