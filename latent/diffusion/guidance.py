"""Functions from denoisers to denoisers: guidance, clipping, inpainting, self-conditioning.

They compose by plain application, innermost first: ``clip_x0(cfg(denoiser(network)), -1, 1)``. Whatever changes the
estimate of x_0 recomputes that of the noise, so that samplers always see a consistent pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from core.checks import Fraction, Positive, checked, require_finite
from core.errors import ConfigError
from latent.diffusion.prediction import Conditioned, Denoiser, Network, Prediction, Query, from_eps, from_x0, over


class Guided(NamedTuple):
    """Operands of :func:`cfg`: those of the conditional denoiser, and the weight."""

    inner: Conditioned
    weight: Any
    """1 is conditional, 0 unconditional, above 1 exaggerates; Ho and Salimans' w' is this minus 1."""


@checked
def cfg(
    denoise: Denoiser,
    *,
    null: Callable[[Any], Any] | None = None,
    doubled: bool = True,
    rescale: Fraction = 0.0,
    interval: tuple[float, float] | None = None,
) -> Denoiser:
    """Classifier-free guidance: (1 - w) of the unconditional estimate plus w of the conditional one.

    Args:
      denoise: takes :class:`Conditioned` operands.
      null: the condition that stands for none, from the given one; zeros if None.
      doubled: one call on a doubled batch, best on accelerators; otherwise two calls, with half the memory.
      rescale: share to which the standard deviation of eps over an example is brought back to that of the conditional
        estimate (Lin et al. 2023).
      interval: log SNRs between which to guide; elsewhere the estimate is the conditional one.

    Returns:
      A denoiser which takes :class:`Guided` operands, and refuses a weight that is NaN or infinite (where it is not
      traced).

    Raises:
      ConfigError: where the interval's first log SNR exceeds its second.
    """
    if interval is not None:
        _require_ordered("interval", *interval)
    empty = null or (lambda cond: jax.tree.map(jnp.zeros_like, cond))

    def both(inner: Conditioned, query: Query) -> tuple[Prediction, Prediction]:
        if not doubled:
            return denoise(inner, query), denoise(inner._replace(cond=empty(inner.cond)), query)

        def twice(x, y):
            return jnp.concatenate([x, y])

        size = query.x.shape[0]
        level = jax.tree.map(lambda c: twice(c, c) if jnp.ndim(c) else c, query.level)
        previous = None if query.x0_prev is None else twice(query.x0_prev, query.x0_prev)
        cond = jax.tree.map(twice, inner.cond, empty(inner.cond))
        out = denoise(inner._replace(cond=cond), Query(twice(query.x, query.x), level, previous))
        return jax.tree.map(lambda c: c[:size], out), jax.tree.map(lambda c: c[size:], out)

    def guided(operands: Guided, query: Query) -> Prediction:
        require_finite("the weight of guidance", operands.weight, "choose a finite one, such as 1 for none")
        conditional, unconditional = both(operands.inner, query)
        w = over(operands.weight, query.x)
        if interval is not None:
            inside = (query.level.logsnr >= interval[0]) & (query.level.logsnr <= interval[1])
            w = jnp.where(over(inside, query.x) > 0, w, jnp.ones_like(w))
        # In this form w = 0 and w = 1 give either estimate exactly.
        mixed = jax.tree.map(lambda c, u: w * c + (1 - w) * u, conditional, unconditional)
        if not rescale:
            return mixed
        axes = tuple(range(1, query.x.ndim))
        deviation = [jnp.std(p.eps, axis=axes, keepdims=True) for p in (conditional, mixed)]
        eps = mixed.eps * (rescale * deviation[0] / deviation[1] + 1 - rescale)
        return from_eps(eps, query.x, query.level)

    return guided


class Classified(NamedTuple):
    """Operands of :func:`classifier`."""

    inner: Any
    params: Any
    target: Any
    """What the classifier should say, with the batch along axis 0."""
    scale: Any


@checked
def classifier(denoise: Denoiser, log_prob: Callable[[Any, Query, Any], Array]) -> Denoiser:
    """Classifier guidance: eps - scale s grad_x log p(target | x) (Dhariwal, Nichol 2021).

    Args:
      denoise: any denoiser.
      log_prob: ``(params, query, target) -> [batch]``.

    Returns:
      A denoiser which takes :class:`Classified` operands.
    """

    def guided(operands: Classified, query: Query) -> Prediction:
        require_finite("the scale of guidance", operands.scale, "choose a finite one, such as 0 for none")

        def total(x):
            return jnp.sum(log_prob(operands.params, query._replace(x=x), operands.target))

        pull = over(operands.scale, query.x) * over(query.level.s, query.x) * jax.grad(total)(query.x)
        return from_eps(denoise(operands.inner, query).eps - pull, query.x, query.level)

    return guided


@checked
def with_x0(denoise: Denoiser, change: Callable[[Any, Array], Array]) -> Denoiser:
    """The denoiser with ``change(operands, x0)`` for its estimate of x_0, and eps to match.

    Where s is 0 nothing can be inferred about the noise, and eps is left alone.
    """

    def changed(operands: Any, query: Query) -> Prediction:
        before = denoise(operands, query)
        x0 = change(operands, before.x0)
        noisy = over(query.level.s, query.x) > 0
        level = query.level._replace(s=jnp.where(jnp.asarray(query.level.s) > 0, query.level.s, 1.0))
        return Prediction(x0, jnp.where(noisy, from_x0(x0, query.x, level).eps, before.eps))

    return changed


def _require_ordered(what: str, low: float, high: float) -> None:
    if not low < high:
        raise ConfigError(f"{what}: the lower end, {low:g}, must lie below the upper one, {high:g}")


@checked
def clip_x0(denoise: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """Keeps x_0 in the range of the data, from low to high.

    Raises:
      ConfigError: where low is not below high.
    """
    _require_ordered("clip_x0", low, high)
    return with_x0(denoise, lambda operands, x0: jnp.clip(x0, low, high))


@checked
def dynamic_threshold(denoise: Denoiser, quantile: Fraction = 0.995, floor: Positive = 1.0) -> Denoiser:
    """Clips x_0 of each example at a quantile of its magnitudes, at least ``floor``, and divides by that / floor.

    Saharia et al. 2022 (Imagen); data in [-floor, floor].
    """

    def change(operands: Any, x0: Array) -> Array:
        magnitude = jnp.abs(x0).reshape(x0.shape[0], -1)
        limit = over(jnp.maximum(jnp.quantile(magnitude, quantile, axis=1), floor), x0)
        return jnp.clip(x0, -limit, limit) * (floor / limit)

    return with_x0(denoise, change)


class Inpainted(NamedTuple):
    """Operands of :func:`inpaint`."""

    inner: Any
    mask: Array
    """1 where the value is known."""
    value: Array


@checked
def inpaint(denoise: Denoiser) -> Denoiser:
    """Puts the known part of the sample into every estimate of x_0; takes :class:`Inpainted` operands."""

    def inner(operands: Inpainted, query: Query) -> Prediction:
        return denoise(operands.inner, query)

    return with_x0(inner, lambda o, x0: o.mask * o.value + (1 - o.mask) * x0)


@checked
def self_condition(
    network: Network,
) -> Callable[[Callable[[Callable], Denoiser]], Denoiser]:
    """Feeds the last estimate of x_0 to the network, beside x along the last axis (Chen, Zhang, Hinton 2023).

    Args:
      network: ``(params, [x, x0_prev], time, cond) -> raw``.

    Returns:
      A function of a constructor: ``self_condition(network)(lambda net: denoiser(net, "eps"))``.
    """

    def build(constructor: Callable[[Callable], Denoiser]) -> Denoiser:
        def denoise(operands: Any, query: Query) -> Prediction:
            previous = jnp.zeros_like(query.x) if query.x0_prev is None else query.x0_prev

            def entered(params, x, time, cond):
                return network(params, jnp.concatenate([x, previous], axis=-1), time, cond)

            return constructor(entered)(operands, query)

        return denoise

    return build
