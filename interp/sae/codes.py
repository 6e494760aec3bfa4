"""What a dictionary says of an example: all latents, or the few that are active."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from core.checks import Count, Natural, NonNegative, checked, require_indices
from core.errors import ConfigError
from core.learner import DATA_AXIS, axis_is_bound
from core.sparse import combine, scatter

LATENT_AXIS = "latents"
"""The named axis over which latents may be spread; where it is bound, a device holds its share of the dictionary."""

Params = dict[str, Array]


class Sparse(NamedTuple):
    """At most k active latents per example; the places of inactive ones hold 0."""

    values: Float[Array, "b k"]
    indices: Int[Array, "b k"]


Code = Float[Array, "b m"] | Sparse


def require_latents(of: str, code: Code, latents: int) -> None:
    """Refuses codes that name, or have, other latents than there are; of traced ones what shapes tell.

    Raises:
      ConfigError: names the first place.
    """
    if isinstance(code, Sparse):
        require_indices(f"{of}: code.indices", code.indices, latents, "latents")
    elif code.shape[-1] != latents:
        raise ConfigError(f"{of}: the code has {code.shape[-1]} latents, the dictionary {latents}")


@checked
def dense(code: Code, latents: Count) -> Float[Array, "b m"]:
    """The code as one number per latent.

    Raises:
      ConfigError: for a code of another dictionary.
    """
    require_latents("dense", code, latents)
    if not isinstance(code, Sparse):
        return code
    rows = jnp.arange(code.values.shape[0])[:, None]
    return jnp.zeros((rows.shape[0], latents), code.values.dtype).at[rows, code.indices].add(code.values)


def map_values(fn: Callable[[Array], Array], code: Code) -> Code:
    """``fn`` of the values; it must keep 0."""
    return Sparse(fn(code.values), code.indices) if isinstance(code, Sparse) else fn(code)


@checked
def first_latents(code: Code, count: Natural, latents: Count) -> Code:
    """The code without the latents from ``count`` on, of all ``latents`` that this device holds."""
    start = jax.lax.axis_index(LATENT_AXIS) * latents if axis_is_bound(LATENT_AXIS) else 0
    if isinstance(code, Sparse):
        return Sparse(jnp.where(code.indices + start < count, code.values, 0), code.indices)
    return jnp.where(jnp.arange(latents) + start < count, code, 0)


def weighted_sum(code: Code, table: Float[Array, "m d"]) -> Float[Array, "b d"]:
    """sum_j z_j table_j, over all devices that hold latents."""
    total = combine(*code, table) if isinstance(code, Sparse) else code @ table
    return _sum_forward(total)


def norm_weighted(code: Code, norms: Float[Array, " m"]) -> Float[Array, " b"]:
    """sum_j z_j norm_j, over all devices that hold latents."""
    weights = norms[code.indices] if isinstance(code, Sparse) else norms
    values = code.values if isinstance(code, Sparse) else code
    return _sum_forward(jnp.sum(values * weights, axis=-1))


@checked
def active(code: Code) -> Float[Array, " b"]:
    """The number of active latents of every example (its L0)."""
    values = code.values if isinstance(code, Sparse) else code
    return _sum_forward(jnp.sum(values > 0, axis=-1).astype(values.dtype))


@checked
def frequencies(code: Code, latents: Count, above: NonNegative = 0.0) -> Float[Array, " m"]:
    """The share of examples in which each latent is active, of those that this device sees."""
    if isinstance(code, Sparse):
        fires = (code.values > above).astype(code.values.dtype)
        examples = jnp.ones((fires.shape[0], 1), fires.dtype)
        counts: Array = scatter(fires, code.indices, examples, latents)
        return counts[:, 0] / fires.shape[0]
    return jnp.mean(code > above, axis=0, dtype=code.dtype)


def gathered(
    x: Float[Array, "b d"], shift: Float[Array, " d"], W_e: Float[Array, "m d"], b_e: Float[Array, " m"], at: Sparse
) -> Float[Array, "b k"]:
    """The pre-activations W_e (x - shift) + b_e at the places of ``at``, whose values they are already.

    Only the derivative is computed here, on these places alone: the cost of a step grows with k but for the dense
    product that found them. The derivative for the shift is summed over examples first, one matrix-vector product.
    """
    return _gathered(x, shift, W_e, b_e, jax.lax.stop_gradient(at.values), at.indices)


@jax.custom_vjp
def _gathered(x, shift, W_e, b_e, values, indices):
    return values


def _gathered_fwd(x, shift, W_e, b_e, values, indices):
    return values, (x, shift, W_e, indices)


def _gathered_bwd(res, g):
    x, shift, W_e, indices = res
    ones = jnp.ones((x.shape[0], 1), x.dtype)
    per_latent: Array = scatter(g, indices, ones, W_e.shape[0])
    db_e = per_latent[:, 0]
    dW_e = scatter(g, indices, x - shift, W_e.shape[0])
    return combine(g, indices, W_e), -(db_e @ W_e), dW_e, db_e, None, None


_gathered.defvjp(_gathered_fwd, _gathered_bwd)


def shared_by_latents(x: Array) -> Array:
    """An array that all holders of latents share: the identity, whose derivative sums their shares."""
    return _shared(x) if axis_is_bound(LATENT_AXIS) else x


def _sum_forward(x: Array) -> Array:
    """The sum over the holders of latents, each of whose derivative is the whole one's."""
    return _summed(x) if axis_is_bound(LATENT_AXIS) else x


@jax.custom_vjp
def _shared(x):
    return x


@jax.custom_vjp
def _summed(x):
    return jax.lax.psum(x, LATENT_AXIS)


_shared.defvjp(lambda x: (x, None), lambda _, g: (jax.lax.psum(g, LATENT_AXIS),))
_summed.defvjp(lambda x: (jax.lax.psum(x, LATENT_AXIS), None), lambda _, g: (g,))


def over_devices(reduce: Callable[[Array, str], Array], x: Array, *axes: str) -> Array:
    """A collective over those of the axes that are bound."""
    for axis in axes or (DATA_AXIS, LATENT_AXIS):
        x = reduce(x, axis) if axis_is_bound(axis) else x
    return x
