r"""The variational bound on -log p in continuous time, with a fixed or a learned schedule (Kingma et al. 2021)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from core.checks import checked
from latent.diffusion.losses import noised, stratified_times
from latent.diffusion.prediction import Denoiser, Level, Query
from latent.diffusion.schedules import Schedule, scales, slope


class Bound(NamedTuple):
    """The terms of the variational bound on -log p, in nats per example."""

    diffusion: Float[Array, " batch"]
    reconstruction: Float[Array, " batch"]
    prior: Float[Array, " batch"]

    @property
    def total(self) -> Float[Array, " batch"]:
        """Their sum."""
        return self.diffusion + self.reconstruction + self.prior


@checked
def variational_bound(
    schedule: Schedule,
    denoise: Denoiser,
    operands: Any,
    x: Float[Array, "batch ..."],
    key: Key[Array, ""],
    *,
    times: Callable[..., Array] = stratified_times,
    told: Callable[[Array, Array], Array] | None = None,
) -> Bound:
    r"""VDM's continuous-time bound, estimated at one time per example (Kingma et al. 2021).

    Diffusion: -dL/dt / 2 |eps - eps^|^2. Reconstruction: E[-log N(x; z_0 / a_0, sigma_0^2)], which is
    d/2 log(2 pi e sigma_0^2). Prior: KL(q(z_1 | x) || N(0, I)).

    Args:
      schedule: may be learned: gradients flow through its ends.
      denoise: takes samples and levels [batch].
      operands: passed on to it.
      x: data.
      key: for times and noise.
      times: ``(key, count) -> [count]``.
      told: ``(t, L) -> `` what the network is told; t if None.
    """
    time_key, noise_key = jax.random.split(key)
    t = times(time_key, x.shape[0])
    logsnr, rate = slope(schedule, t)
    level = Level(*scales(logsnr), logsnr, told(t, logsnr) if told else t)
    noisy, eps = noised(x, level, noise_key)
    error = (denoise(operands, Query(noisy, level)).eps - eps).reshape(x.shape[0], -1)
    diffusion = -rate / 2 * jnp.sum(error**2, axis=1)
    return Bound(diffusion, *_ends(x, schedule.logsnr(jnp.zeros(())), schedule.logsnr(jnp.ones(()))))


def _ends(x: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """Reconstruction and prior from the log SNRs at both ends."""
    squares = jnp.sum(x.reshape(x.shape[0], -1) ** 2, axis=1)
    size = x[0].size
    prior = (jax.nn.sigmoid(last) * squares + size * (jax.nn.sigmoid(-last) - 1 + jax.nn.softplus(last))) / 2
    reconstruction = size / 2 * (np.log(2 * np.pi * np.e) - first)
    return jnp.broadcast_to(reconstruction, prior.shape), prior


class Learned(NamedTuple):
    """What :func:`learned_bound` trains."""

    first: Any
    """gamma = -L at t = 0."""
    last: Any
    """gamma at t = 1."""
    shape: Any
    """Parameters of the path between them."""
    operands: Any
    """Of the denoiser."""


@checked
def learned_bound(
    gamma: Callable[[Any, Array], Any], denoise: Denoiser, *, times: Callable[..., Array] = stratified_times
) -> Callable[[Learned, Key[Array, ""], Array], Bound]:
    r"""The bound with a learned schedule, made so that its gradient trains each part for what it can change.

    gamma(t) = first + (last - first) u(t), u the shape rescaled to [0, 1]. The bound's mean does not depend on u, only
    its variance does: the gradient of each example's diffusion term f with respect to u is that of f^2, while ends
    and denoiser get that of f, in one pass (Kingma et al. 2021, appendix I.2). Values are those of
    :func:`variational_bound`; the network is told u(t).

    Args:
      gamma: ``(shape parameters, t) -> `` a rising function of t, such as the ``apply`` of
        :class:`schedules.MonotoneGamma`.
      denoise: takes samples and levels [batch].
      times: ``(key, count) -> [count]``.

    Returns:
      ``(learned, key, x) -> bound``.
    """

    def bound(learned: Learned, key: Key[Array, ""], x: Array) -> Bound:
        time_key, noise_key = jax.random.split(key)
        t = times(time_key, x.shape[0])

        def u(t):
            start, end = (gamma(learned.shape, jnp.full((), at, x.dtype)) for at in (0.0, 1.0))
            return (gamma(learned.shape, t) - start) / (end - start)

        path = jax.jvp(u, (t,), (jnp.ones_like(t),))
        rest = (learned.first, learned.last, learned.operands, x, noise_key)
        diffusion: Any = _variance_trained(functools.partial(_diffusion, denoise), rest, path)
        return Bound(diffusion, *_ends(x, -jnp.asarray(learned.first), -jnp.asarray(learned.last)))

    return bound


def _diffusion(denoise: Denoiser, rest: tuple, path: tuple[Array, Array]) -> Float[Array, " batch"]:
    (first, last, operands, x, key), (u, rate) = rest, path
    logsnr = -(first + (last - first) * u)
    level = Level(*scales(logsnr), logsnr, u)
    noisy, eps = noised(x, level, key)
    error = (denoise(operands, Query(noisy, level)).eps - eps).reshape(x.shape[0], -1)
    return (last - first) * rate / 2 * jnp.sum(error**2, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _variance_trained(fn: Callable[..., Array], rest: Any, path: Any) -> Array:
    """``fn(rest, path)``, one number per example, whose gradient in ``path`` is that of its square."""
    return fn(rest, path)


def _forward(fn: Callable[..., Array], rest: Any, path: Any) -> tuple[Array, Any]:
    out, pull = jax.vjp(fn, rest, path)
    return out, (out, pull)


def _backward(fn: Callable[..., Array], kept: Any, cotangent: Array) -> tuple[Any, Any]:
    out, pull = kept
    rest, path = pull(cotangent)
    return rest, jax.tree.map(lambda c: 2 * out * c, path)


_variance_trained.defvjp(_forward, _backward)
