r"""What a network predicts, and what samplers need of it: x_0 and eps at once.

For ``x = a x_0 + s eps`` of a variance-preserving process: ``v = a eps - s x_0``, ``x_0 = a x - s v``,
``eps = s x + a v``, score ``= -eps / s``. EDM's raw output F gives ``D = c_skip y + c_out F`` for ``y = x / a``.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from core.checks import FINITE, Positive, checked

Parameterisation = Literal["x0", "eps", "v", "score", "edm"]


FiniteNumbers = Annotated[float | Real[Array | np.ndarray, "..."], FINITE]


class Level(NamedTuple):
    """A noise level, or many: scalars for a whole batch or one value per example."""

    a: Any
    s: Any
    logsnr: Any
    time: Any
    """What the network is told."""


class Query(NamedTuple):
    """What a denoiser is asked: a noisy sample and its noise level."""

    x: Float[Array, "batch ..."]
    level: Level
    x0_prev: Float[Array, "batch ..."] | None = None
    """The estimate at the step before (zeros at the first), for self-conditioning; None outside of samplers."""


class Prediction(NamedTuple):
    """The estimates of the clean sample and of the noise; they satisfy x = a x0 + s eps."""

    x0: Float[Array, "batch ..."]
    eps: Float[Array, "batch ..."]


Denoiser = Callable[[Any, Query], Prediction]
"""``(operands, query) -> prediction``; operands are whatever it needs (parameters, conditions, weights): traced."""


Network = Callable[..., Any]
"""``(params, x, time, cond) -> raw``, such as the ``apply`` of a linen module; times are [batch]."""


class Conditioned(NamedTuple):
    """Operands of a network with a condition."""

    params: Any
    cond: Any = None
    """A pytree with the batch along axis 0 of every leaf; None where there is none."""


def over(scalar: Any, x: Array) -> Array:
    """A number, or one per example, shaped to multiply a batch."""
    scalar = jnp.asarray(scalar, x.dtype)
    return scalar if scalar.ndim == 0 else scalar.reshape(scalar.shape + (1,) * (x.ndim - scalar.ndim))


@checked
def from_raw(kind: Parameterisation, raw: Array, x: Array, level: Level, data_std: Positive = 1.0) -> Prediction:
    """The prediction which a raw network output stands for.

    Divides by a (eps, score: worthless as SNR -> 0) or by s (x0: as SNR -> infinity) only where it must.

    Raises:
      ConfigError: for an unknown parameterisation.
    """
    a, s = over(level.a, x), over(level.s, x)
    if kind == "x0":
        return from_x0(raw, x, level)
    if kind == "eps":
        return from_eps(raw, x, level)
    if kind == "v":
        norm = a**2 + s**2  # 1 where variance is preserved
        return Prediction((a * x - s * raw) / norm, (s * x + a * raw) / norm)
    if kind == "score":
        return from_eps(-s * raw, x, level)
    # "edm", multiplied out: eps = (x - a x0) / s would lose the digits that F has of it at high SNR
    norm = jnp.sqrt(s**2 + (data_std * a) ** 2)
    x0 = data_std * (data_std * a * x / norm + s * raw) / norm
    return Prediction(x0, (s * x / norm - data_std * a * raw) / norm)


@checked
def to_raw(kind: Parameterisation, x0: Array, eps: Array, level: Level, data_std: Positive = 1.0) -> Array:
    """What the network should have put out: the training target of a parameterisation.

    Raises:
      ConfigError: for an unknown parameterisation.
    """
    a, s = over(level.a, x0), over(level.s, x0)
    if kind == "x0":
        return x0
    if kind == "eps":
        return eps
    if kind == "v":
        return a * eps - s * x0
    if kind == "score":
        return -eps / s
    return (s * x0 - data_std**2 * a * eps) / (data_std * jnp.sqrt(s**2 + (data_std * a) ** 2))  # "edm"


def from_x0(x0: Array, x: Array, level: Level) -> Prediction:
    """With eps = (x - a x0) / s."""
    return Prediction(x0, (x - over(level.a, x) * x0) / over(level.s, x))


def from_eps(eps: Array, x: Array, level: Level) -> Prediction:
    """With x0 = (x - s eps) / a."""
    return Prediction((x - over(level.s, x) * eps) / over(level.a, x), eps)


@checked
def denoiser(network: Network, kind: Parameterisation = "eps", data_std: Positive = 1.0) -> Denoiser:
    """A denoiser from ``network(params, x, time, cond) -> raw``; its operands are :class:`Conditioned`.

    The network gets one time per example. For "edm" it gets c_in y = y / sqrt(sigma^2 + data_std^2).
    """

    def denoise(operands: Conditioned, query: Query) -> Prediction:
        x, level = query.x, query.level
        entry = x / jnp.sqrt(over(level.s, x) ** 2 + (data_std * over(level.a, x)) ** 2) if kind == "edm" else x
        time = jnp.broadcast_to(jnp.asarray(level.time, jnp.float32), x.shape[:1])
        return from_raw(kind, network(operands.params, entry, time, operands.cond), x, level, data_std)

    return denoise


@checked
def gaussian(mean: FiniteNumbers, variance: FiniteNumbers) -> Denoiser:
    """The exact denoiser of data N(mean, variance I), for tests and demonstrations; operands are ignored.

    D = m + a v / (a^2 v + s^2) (x - a m).
    """

    def denoise(operands: Any, query: Query) -> Prediction:
        x, level = query.x, query.level
        a, s = over(level.a, x), over(level.s, x)
        total = a**2 * variance + s**2
        centred = x - a * mean
        return Prediction(jnp.asarray(mean + a * variance / total * centred), s / total * centred)

    return denoise


@checked
def mixture(
    means: Annotated[Float[Array | np.ndarray, "k d"], FINITE],
    variances: Annotated[Float[Array | np.ndarray, " k"], FINITE],
    weights: Annotated[Float[Array | np.ndarray, " k"], FINITE],
) -> Denoiser:
    """The exact denoiser of a mixture of isotropic Gaussians over vectors [batch, d]; operands are ignored."""

    def denoise(operands: Any, query: Query) -> Prediction:
        x, level = query.x, query.level
        a, s = over(level.a, x), over(level.s, x)
        total = a[..., None] ** 2 * variances + s[..., None] ** 2
        total = jnp.broadcast_to(total.reshape(-1, variances.shape[0]), (x.shape[0], variances.shape[0]))
        centred = x[:, None, :] - over(level.a, x[:, None, :]) * means
        squared = jnp.sum(centred**2, axis=-1)
        logits = jnp.log(weights) - squared / (2 * total) - x.shape[-1] / 2 * jnp.log(total)
        share = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        share /= jnp.sum(share, axis=-1, keepdims=True)
        eps = jnp.einsum("bk,bkd->bd", share * s.reshape(-1, 1) / total, centred)
        x0 = jnp.einsum("bk,bkd->bd", share, means + (a.reshape(-1, 1) * variances / total)[..., None] * centred)
        return Prediction(x0, eps)

    return denoise
