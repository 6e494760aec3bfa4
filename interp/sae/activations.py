"""Activations: which latents are active, and how strongly.

A *selection* looks at the pre-activations and names k latents per example; the derivative then needs these places only.
The others are functions of all pre-activations.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, Positive, checked
from core.errors import ConfigError
from core.kinds import Range
from core.learner import axis_is_bound
from core.sparse import top_k
from interp.sae.codes import LATENT_AXIS, Code, Params, Sparse, gathered, over_devices

Active = Annotated[int | Int[Array, ""], Range(1)]
"""How many latents of an example are active; an array where one program serves many such numbers."""


class Encoded(NamedTuple):
    """The dense half of an encoder: what it has seen and its pre-activations W_e (x - shift) + b_e."""

    x: Float[Array, "b d"]
    shift: Float[Array, " d"]
    pre: Float[Array, "b m"]


class Activation(NamedTuple):
    """Turns pre-activations into a code."""

    kind: str
    """Its name, by which layouts of weights know it."""
    apply: Callable[[Params, Encoded], Code]
    """Of an example by itself: how a trained dictionary is read."""
    train: Callable[[Params, Encoded], Code]
    """In training; differs from ``apply`` where examples of a batch compete."""
    leaves: Callable[[int], Params] = lambda latents: {}
    """Its own parameters, for a number of latents."""
    observe: Callable[[Code], Params] = lambda code: {}
    """Parameters that are running means over batches and not learned by gradient: this batch's values."""
    limit: int | None = None
    """The largest number of active latents per example, where it is fixed."""


Select = Callable[[Float[Array, "b m"]], Sparse]


@checked
def selection(kind: str, select: Select, limit: Count) -> Activation:
    """Z = relu(pre) at the places that ``select`` names, 0 elsewhere."""

    def apply(params: Params, encoded: Encoded) -> Sparse:
        return read(params, encoded, select(jax.lax.stop_gradient(encoded.pre)))

    return Activation(kind, apply, apply, limit=limit)


def read(params: Params, encoded: Encoded, at: Sparse) -> Sparse:
    """relu(pre) at some places, with the derivative on these alone; places of value 0 or less stay inactive."""
    values = gathered(encoded.x, encoded.shift, params["W_e"], params["b_e"], at)
    return Sparse(jnp.where(at.values > 0, values, 0), at.indices)


@checked
def largest(pre: Float[Array, "b m"], k: Count) -> Sparse:
    """The k largest, the lower index first among equals; over all devices that hold latents.

    Where latents are spread, every holder sends its k best and the k best of those are kept (its own by their values,
    those of others by 0), which is exact.
    """
    m = pre.shape[-1]
    holders = jax.lax.axis_size(LATENT_AXIS) if axis_is_bound(LATENT_AXIS) else 1
    if k > m * holders:
        raise ConfigError(f"k = {k} active latents of {m * holders}; lower k")
    if holders == 1:
        return Sparse(*top_k(pre, k))
    values, indices = top_k(pre, min(k, m))
    start = jax.lax.axis_index(LATENT_AXIS) * m
    everyones = (jax.lax.all_gather(a, LATENT_AXIS, axis=-1, tiled=True) for a in (values, indices + start))
    all_values, all_indices = everyones
    best, place = top_k(all_values, k)
    mine = jnp.take_along_axis(all_indices, place, axis=-1) - start
    held = (mine >= 0) & (mine < m)
    return Sparse(jnp.where(held, best, 0), jnp.where(held, mine, 0))


@checked
def among(pre: Float[Array, "b m"], allowed: Bool[Array, " m"], k: Count) -> Sparse:
    """The k largest of some latents; fewer where there are fewer."""
    chosen = largest(jnp.where(allowed, pre, -jnp.inf), k)
    return Sparse(jnp.where(jnp.isfinite(chosen.values), chosen.values, 0), chosen.indices)


@checked
def topk(k: Active, k_max: Count | None = None) -> Activation:
    """The k largest of relu(pre) (Gao et al. 2024, 2406.04093).

    Args:
      k: active latents per example; an array where one program serves many k.
      k_max: the largest k; needed where k is an array.

    Raises:
      ConfigError: where k is below 1 or above k_max, and in use where it is above the number of latents.
    """
    k = int(k) if isinstance(k, np.integer) else k
    if isinstance(k, int) and k_max is not None and k > k_max:
        raise ConfigError(f"topk: k is {k}, above k_max = {k_max}")
    if k_max is None and not isinstance(k, int):
        raise ConfigError("topk of an array k needs k_max, the largest of them")
    limit = k if isinstance(k, int) and k_max is None else k_max
    assert limit is not None

    def select(pre):
        chosen = largest(pre, limit)
        return chosen if k_max is None else Sparse(jnp.where(jnp.arange(limit) < k, chosen.values, 0), chosen.indices)

    return selection("topk", select, limit)


@checked
def groupmax(k: Count) -> Activation:
    """The largest of relu(pre) in each of k groups of neighbouring latents: needs no sorting, shards by groups."""

    def select(pre):
        holders = jax.lax.axis_size(LATENT_AXIS) if axis_is_bound(LATENT_AXIS) else 1
        groups, m = k // holders, pre.shape[-1]
        if k % holders or m % groups:
            raise ConfigError(f"{m * holders} latents on {holders} devices do not divide into {k} equal groups")
        grouped = pre.reshape(*pre.shape[:-1], groups, m // groups)
        indices = jnp.argmax(grouped, axis=-1)
        values = jnp.take_along_axis(grouped, indices[..., None], axis=-1)[..., 0]
        return Sparse(values, (indices + jnp.arange(groups) * (m // groups)).astype(jnp.int32))

    return selection("groupmax", select, k)


@checked
def relu() -> Activation:
    """Z = max(pre, 0)."""

    def apply(params: Params, encoded: Encoded) -> Array:
        return jax.nn.relu(encoded.pre)

    return Activation("relu", apply, apply)


@checked
def batch_topk(k: Active) -> Activation:
    """The B k largest of relu(pre) over a batch of B (Bussmann et al. 2024, 2412.06410).

    All that equal the least kept value are kept. Read by itself, an example keeps what exceeds the running mean of
    these least values, ``threshold``.
    """
    k = int(k) if isinstance(k, np.integer) else k

    def train(params: Params, encoded: Encoded) -> Array:
        z = jax.nn.relu(encoded.pre)
        latents = z.shape[-1] * (jax.lax.axis_size(LATENT_AXIS) if axis_is_bound(LATENT_AXIS) else 1)
        if isinstance(k, int) and k > latents:
            raise ConfigError(f"batch_topk: k = {k} active latents per example of {latents}; lower k")
        batch = over_devices(jax.lax.psum, jnp.asarray(z.shape[0], jnp.int32), "data")
        return jnp.where(z >= nth_largest(jax.lax.stop_gradient(z), batch * k), z, 0)

    def apply(params: Params, encoded: Encoded) -> Array:
        return jnp.where(encoded.pre >= params["threshold"], jax.nn.relu(encoded.pre), 0)

    def observe(code: Code) -> Params:
        assert not isinstance(code, Sparse)
        least = jnp.min(jnp.where(code > 0, code, jnp.inf))
        return {"threshold": over_devices(jax.lax.pmin, least)}

    return Activation("batch_topk", apply, train, lambda latents: {"threshold": jnp.zeros(())}, observe)


@checked
def nth_largest(x: Float[Array, "..."], n: Int[Array, ""]) -> Float[Array, ""]:
    """The n-th largest of non-negative numbers, over all devices: its bits are found from the highest down.

    Non-negative floats have the order of their bits, so that 31 (63) counts replace a sort.
    """
    width = x.dtype.itemsize * 8
    kind = jnp.int32 if width == 32 else jnp.int64
    bits = jax.lax.bitcast_convert_type(x, kind)

    def refine(i, found):
        candidate = found | (jnp.ones((), kind) << (width - 2 - i))
        enough = over_devices(jax.lax.psum, jnp.sum(bits >= candidate, dtype=jnp.int32)) >= n
        return jnp.where(enough, candidate, found)

    found = jax.lax.fori_loop(0, width - 1, refine, jnp.zeros((), kind))
    return jax.lax.bitcast_convert_type(found, x.dtype)


@checked
def jumprelu(theta: Positive = 1e-3, bandwidth: Positive = 1e-3) -> Activation:
    """Z = pre 1[pre > theta_j], thresholds learned (Rajamanoharan et al. 2024, 2407.14435).

    Args:
      theta: thresholds at the start.
      bandwidth: width eps of the kernel that stands for the derivative of the step.
    """

    def apply(params: Params, encoded: Encoded) -> Array:
        return jump(encoded.pre, jnp.exp(params["log_theta"]), bandwidth)

    return Activation("jumprelu", apply, apply, lambda latents: {"log_theta": jnp.full(latents, jnp.log(theta))})


def _kernel(pre, theta, bandwidth):
    return (jnp.abs(pre - theta) < bandwidth / 2).astype(pre.dtype) / bandwidth


@jax.custom_vjp
def jump(pre: Float[Array, "b m"], theta: Float[Array, " m"], bandwidth: float) -> Float[Array, "b m"]:
    """Pre 1[pre > theta]; pseudo-derivative for theta -(theta / eps) K((pre - theta) / eps), K a rectangle."""
    return jnp.where(pre > theta, pre, 0)


jump.defvjp(
    lambda pre, theta, eps: (jump(pre, theta, eps), (pre, theta, eps)),
    lambda res, g: (
        jnp.where(res[0] > res[1], g, 0),
        jnp.sum(-res[1] * _kernel(*res) * g, axis=0),
        None,
    ),
)


@jax.custom_vjp
def step(pre: Float[Array, "b m"], theta: Float[Array, " m"], bandwidth: float) -> Float[Array, "b m"]:
    """1[pre > theta]; pseudo-derivative for theta -(1 / eps) K((pre - theta) / eps), none for pre."""
    return (pre > theta).astype(pre.dtype)


step.defvjp(
    lambda pre, theta, eps: (step(pre, theta, eps), (pre, theta, eps)),
    lambda res, g: (jnp.zeros_like(g), jnp.sum(-_kernel(*res) * g, axis=0), None),
)


@checked
def gated() -> Activation:
    """Z = 1[pre > 0] relu(exp(r) (pre - b_e) + b_m), one matrix for gate and magnitude (2404.16014)."""

    def apply(params: Params, encoded: Encoded) -> Array:
        magnitude = jnp.exp(params["r"]) * (encoded.pre - params["b_e"]) + params["b_m"]
        return jnp.where(encoded.pre > 0, jax.nn.relu(magnitude), 0)

    return Activation("gated", apply, apply, lambda latents: {"r": jnp.zeros(latents), "b_m": jnp.zeros(latents)})
