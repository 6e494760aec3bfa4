"""Edits of an activation through a dictionary: its reconstruction, and latents ablated, scaled or set.

Steering adds the change of the latents to the original activation, x' = x + sum_j (z'_j - z_j) W_d[j], so that the
error of reconstruction does not enter; an unchanged code leaves x bit for bit.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from core.checks import OpenFraction, checked, require_indices
from core.errors import ConfigError
from core.sparse import combine
from interp.recsae.probes import Edit
from interp.sae import Code, Params, Sparse, Variant, encode, reconstruct

Change = Callable[[Float[Array, " b"]], Float[Array, " b"]]
"""``z_j -> z'_j``."""


@checked
def splice(variant: Variant, params: Params) -> Edit:
    """x_hat in the place of x."""
    return _row_by_row(lambda x: reconstruct(variant, params, x))


def ablated(z: Float[Array, " b"]) -> Float[Array, " b"]:
    """Z' = 0."""
    return jnp.zeros_like(z)


@checked
def scaled(factor: Float[Array, ""] | float) -> Change:
    """Z' = c z."""
    return lambda z: factor * z


@checked
def clamped(value: Float[Array, ""] | float) -> Change:
    """Z' = v, active or not."""
    return lambda z: jnp.full_like(z, value)


@checked
def steer(variant: Variant, params: Params, latents: Int[Array, "..."], change: Change) -> Edit:
    """One latent changed: the same in all rows, or one for each row.

    Args:
      variant: of the dictionary.
      params: of the dictionary.
      latents: the number of a latent, or [rows].
      change: what becomes of its activation.

    Raises:
      ConfigError: for a latent that the dictionary does not have.
    """
    require_indices("steer: latents", latents, params["W_d"].shape[0], "latents")

    def edit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        z = of_latents(encode(variant, params, x), latents)
        return x + (change(z) - z)[:, None] * params["W_d"][latents] * _scale(variant, x)

    return _row_by_row(edit)


@checked
def rescale(variant: Variant, params: Params, factors: Float[Array, " m"]) -> Edit:
    """All latents multiplied by a factor each: z'_j = c_j z_j.

    Raises:
      ConfigError: where there is not a factor for every latent.
    """
    if factors.shape[0] != params["W_d"].shape[0]:
        raise ConfigError(f"rescale: {factors.shape[0]} factors for {params['W_d'].shape[0]} latents")

    def edit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
        code = encode(variant, params, x)
        if isinstance(code, Sparse):
            moved = combine((factors[code.indices] - 1) * code.values, code.indices, params["W_d"])
        else:
            moved = ((factors - 1) * code) @ params["W_d"]
        return x + moved * _scale(variant, x)

    return _row_by_row(edit)


@checked
def of_latents(code: Code, latents: Int[Array, "..."]) -> Float[Array, " b"]:
    """The activation of one latent in every row: the same latent, or one for each row."""
    if isinstance(code, Sparse):
        wanted = jnp.broadcast_to(latents, code.values.shape[:1])[:, None]
        return jnp.sum(jnp.where(code.indices == wanted, code.values, 0), axis=1)
    return code[jnp.arange(code.shape[0]), latents]


def _scale(variant: Variant, x: Float[Array, "b d"]) -> Array:
    """What a change in the units of the dictionary is in the units of x."""
    return variant.normalise(x)[2]


def _row_by_row(edit: Callable[[Float[Array, "b d"]], Float[Array, "b d"]]) -> Edit:
    """An edit of activations [..., d]; the model's type is kept, the dictionary computes in float32."""

    def reshaped(x: Array) -> Array:
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        return edit(rows).reshape(x.shape).astype(x.dtype)

    return reshaped


@checked
def overlap(a: Int[Array, "*n k"], b: Int[Array, "*n k"], p: OpenFraction = 0.9) -> Float[Array, "*n"]:
    """Rank-biased overlap of two lists of the same length, 1 where they are equal.

    (1 - p) / (1 - p^k) sum_d p^(d-1) |a_1..d & b_1..d| / d; Webber, Moffat and Zobel, TOIS 2010, cut at k.
    """
    depth = jnp.arange(1, a.shape[-1] + 1)
    both = (a[..., :, None] == b[..., None, :]).astype(jnp.float32)
    place = jnp.maximum(depth[:, None], depth)
    within = jnp.sum(both[..., None] * (place[..., None] <= depth), axis=(-3, -2))
    weights = p ** (depth - 1.0)
    return jnp.sum(weights * within / depth, axis=-1) / jnp.sum(weights)


@checked
def another_active(
    code: Sparse, latents: Int[np.ndarray, " rows"], rng: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """For every row a random active latent of its code other than the row's own: what ablating is compared with."""
    values, indices = np.asarray(code.values), np.asarray(code.indices)
    weight = np.where((values > 0) & (indices != latents[:, None]), rng.random(values.shape), -1.0)
    return indices[np.arange(len(latents)), weight.argmax(axis=1)]
