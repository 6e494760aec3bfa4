r"""Training: noise levels drawn and errors weighted.

The loss of an example is ``w(L) |eps - eps^|^2`` with the mean over its dimensions (improved-diffusion) unless said
otherwise; a weighting is stated on the eps error. With SNR = exp(L): |eps error|^2 = SNR |x0 error|^2 =
SNR / (1 + SNR) |v error|^2.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from core.checks import Count, Fraction, Positive, checked
from core.errors import ConfigError
from core.kinds import Range
from core.learner import DATA_AXIS, axis_is_bound, example_keys
from latent.diffusion.prediction import Level, Network, Parameterisation, over, to_raw
from latent.diffusion.schedules import DiscreteSchedule, Schedule, scales, slope

Share = Annotated[float, Range(0, below=1)]


class Drawn(NamedTuple):
    """Noise levels for a batch."""

    level: Level
    slope: Any
    """dL/dt; zeros where time is not continuous."""
    weight: Any
    """Importance weights, mean 1."""


Levels = Callable[[Key[Array, ""], int], Drawn]
"""Draws levels for a batch of a size."""

Weighting = Callable[[Drawn], Array]
"""The factor of the eps error, one per example."""


# --- which levels -----------------------------------------------------------------------------------------------------


def uniform_times(key: Key[Array, ""], count: int) -> Float[Array, " batch"]:
    """Independent times in [0, 1); an example's is a function of its place in the global batch."""
    return jax.vmap(jax.random.uniform)(example_keys(key, count))


def stratified_times(key: Key[Array, ""], count: int) -> Float[Array, " batch"]:
    """t_i = frac(u + i/B): the variance of a batch's loss falls, every time stays uniform (Kingma et al. 2021).

    Under pmap the strata are shared out over the replicas, which must be given the same key.
    """
    devices = jax.lax.axis_size(DATA_AXIS) if axis_is_bound() else 1
    first = jax.lax.axis_index(DATA_AXIS) * count if axis_is_bound() else 0
    return (jax.random.uniform(key) + (first + jnp.arange(count)) / (count * devices)) % 1.0


@checked
def continuous_levels(schedule: Schedule, times: Callable[..., Array] = stratified_times, end: Share = 0.0) -> Levels:
    """Levels of a variance-preserving schedule at times in [end, 1]; the network is told the time."""

    def draw(key, count):
        t = end + (1 - end) * times(key, count)
        logsnr, rate = slope(schedule, t)
        return Drawn(Level(*scales(logsnr), logsnr, t), rate, jnp.ones(count))

    return draw


@checked
def chain_levels(schedule: DiscreteSchedule, probabilities: Float[Array | np.ndarray, " T"] | None = None) -> Levels:
    """Levels of a chain, uniform or by ``probabilities`` with importance weights 1 / (T p); the network gets indices.

    Levels of zero SNR carry no eps error that could be weighted: train v or x_0 on them.

    Raises:
      ConfigError: where there is not one probability per level.
    """
    table = jnp.asarray(schedule.logsnr, jnp.float32)
    steps = table.shape[0]
    if probabilities is not None and len(probabilities) != steps:
        raise ConfigError(f"chain_levels: {len(probabilities)} probabilities for {steps} levels")

    def draw(key, count):
        if probabilities is None:
            t = jnp.minimum((uniform_times(key, count) * steps).astype(jnp.int32), steps - 1)
            weight = jnp.ones(count)
        else:
            t = jax.vmap(lambda k: jax.random.choice(k, steps, p=probabilities))(example_keys(key, count))
            weight = 1 / (steps * probabilities[t])
        return Drawn(Level(*scales(table[t]), table[t], t.astype(jnp.float32)), jnp.zeros(count), weight)

    return draw


@checked
def edm_levels(mean: float = -1.2, std: Positive = 1.2) -> Levels:
    """EDM's levels: log sigma ~ N(mean, std^2), variance exploding; told is log(sigma)/4 (Karras et al. 2022)."""

    def draw(key, count):
        log_sigma = mean + std * jax.vmap(jax.random.normal)(example_keys(key, count))
        level = Level(jnp.ones(count), jnp.exp(log_sigma), -2 * log_sigma, log_sigma / 4)
        return Drawn(level, jnp.zeros(count), jnp.ones(count))

    return draw


# --- weightings, all on the eps error ---------------------------------------------------------------------------------


def simple(drawn: Drawn) -> Array:
    """1 (DDPM)."""
    return jnp.ones_like(drawn.level.logsnr)


def variational(drawn: Drawn) -> Array:
    """-dL/dt / 2: the continuous-time bound; sum over dimensions for nats (Kingma et al. 2021)."""
    return -drawn.slope / 2


@checked
def min_snr(limit: Positive = 5.0) -> Weighting:
    """min(SNR, limit) / SNR (Hang et al. 2023)."""
    return lambda drawn: jnp.minimum(1.0, limit * jnp.exp(-drawn.level.logsnr))


def velocity(drawn: Drawn) -> Array:
    """1 + 1/SNR: the error of v, unweighted (Salimans, Ho 2022)."""
    return 1 + jnp.exp(-drawn.level.logsnr)


@checked
def edm(data_std: Positive = 0.5) -> Weighting:
    """(sigma^2 + sd^2) / (sigma sd)^2 on the x_0 error: F's error, unweighted (Karras et al. 2022)."""
    return lambda drawn: 1 + jnp.exp(-drawn.level.logsnr) / data_std**2


@checked
def soft_min_snr(data_std: Positive = 1.0) -> Weighting:
    """(sigma sd)^2 / (sigma^2 + sd^2)^2 on F's error (k-diffusion)."""

    def weight(drawn):
        variance = jnp.exp(-drawn.level.logsnr)
        return variance / (variance + data_std**2)

    return weight


@checked
def discrete_gap(schedule: Schedule, t: Float[Array, "..."], steps: Count) -> Float[Array, "..."]:
    """(T/2) expm1(gamma_t - gamma_s), s = t - 1/T: the eps weight of the bound with T steps (Kingma et al. 2021)."""
    return steps / 2 * jnp.expm1(schedule.logsnr(t - 1 / steps) - schedule.logsnr(t))


@checked
def on_raw(kind: Parameterisation, logsnr: Any, data_std: Positive = 1.0) -> Any:
    """|eps error|^2 over |raw error|^2 of a variance-preserving process: turns an eps weight into one on outputs."""
    snr = jnp.exp(logsnr)
    return {
        "eps": lambda: jnp.ones_like(snr),
        "x0": lambda: snr,
        "v": lambda: jax.nn.sigmoid(logsnr),
        "score": lambda: jax.nn.sigmoid(-logsnr),
        "edm": lambda: data_std**2 / (1 / snr + data_std**2),
    }[kind]()


# --- losses -----------------------------------------------------------------------------------------------------------


def noised(x: Float[Array, "batch ..."], level: Level, key: Key[Array, ""]) -> tuple[Array, Array]:
    """``(a x + s e, e)``; an example's noise is a function of its place in the global batch."""
    eps = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(example_keys(key, x.shape[0]))
    return over(level.a, x) * x + over(level.s, x) * eps, eps


@checked
def denoising_loss(
    network: Network,
    levels: Levels,
    kind: Parameterisation = "eps",
    weighting: Weighting = simple,
    data_std: Positive = 1.0,
) -> Callable[..., tuple[Array, Drawn]]:
    """Per-example training losses of a network.

    Args:
      network: ``(params, x, time, cond) -> raw``; for "edm" it gets c_in y.
      levels: which noise levels to train on.
      kind: what the network puts out; its own error is what is squared, times the weight that makes it
        ``weighting`` on the eps error.
      weighting: one of this module's.
      data_std: for "edm".

    Returns:
      ``(params, key, x, cond) -> (losses [batch], what was drawn)``: means over the dimensions of an example.
    """

    def losses(params, key, x, cond=None):
        level_key, noise_key = jax.random.split(key)
        drawn = levels(level_key, x.shape[0])
        noisy, eps = noised(x, drawn.level, noise_key)
        entry = noisy
        if kind == "edm":
            entry = noisy / jnp.sqrt(over(drawn.level.s, x) ** 2 + (data_std * over(drawn.level.a, x)) ** 2)
        raw = network(params, entry, drawn.level.time, cond)
        error = raw - to_raw(kind, x, eps, drawn.level, data_std)
        weight = drawn.weight * weighting(drawn) * on_raw(kind, drawn.level.logsnr, data_std)
        return weight * jnp.mean(error.reshape(x.shape[0], -1) ** 2, axis=1), drawn

    return losses


# --- learning which levels matter -------------------------------------------------------------------------------------


class LossHistory(NamedTuple):
    """The last losses of every level of a chain."""

    losses: Float[Array, "T kept"]
    count: Float[Array, " T"]


@checked
def loss_history(steps: Count, kept: Count = 10) -> LossHistory:
    """An empty one."""
    return LossHistory(jnp.zeros((steps, kept)), jnp.zeros(steps, jnp.int32))


def remember(history: LossHistory, index: Array, losses: Array) -> LossHistory:
    """Appends losses [batch] of levels [batch], in order; the oldest are forgotten."""

    def append(history, entry):
        i, loss = entry
        place = history.count[i] % history.losses.shape[1]
        return LossHistory(history.losses.at[i, place].set(loss), history.count.at[i].add(1)), None

    return jax.lax.scan(append, history, (index, losses))[0]


@checked
def level_probabilities(history: LossHistory, uniform: Fraction = 0.001) -> Float[Array, " T"]:
    """Probabilities ~ sqrt(mean loss^2), mixed with a uniform share; uniform until every level has its full history.

    Nichol, Dhariwal 2021 (loss-second-moment resampling).
    """
    steps = history.losses.shape[0]
    root = jnp.sqrt(jnp.mean(history.losses**2, axis=1))
    p = (1 - uniform) * root / jnp.maximum(jnp.sum(root), 1e-30) + uniform / steps
    ready = jnp.all(history.count >= history.losses.shape[1])
    return jnp.where(ready, p, jnp.full(steps, 1 / steps))
