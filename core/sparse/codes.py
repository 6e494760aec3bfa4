"""Sparse codes: a few entries per example, at places found on the device; their products with dense matrices.

The pattern is an array of indices [b, k] into the rows of a table [m, d]. Three operations close under differentiation:

    combine(v, i, T)_b    = sum_a v_ba T[i_ba]           d/dv: pick(g, i, T)       d/dT: scatter(v, i, g)
    pick(x, i, T)_ba      = <x_b, T[i_ba]>               d/dx: combine(g, i, T)    d/dT: scatter(g, i, x)
    scatter(v, i, x)_j    = sum_{(b,a): i_ba = j} v_ba x_b   d/dv: pick(x, i, g)   d/dx: combine(v, i, g)

Their cost grows with b k d, and with m only where a result of m rows is written. On the CPU they are the kernels of
:mod:`core.sparse.products` and two more, elsewhere gathers and segment sums.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from core.sparse.products import dispatch


def top_k(x: Float[Array, "*batch m"], k: int) -> tuple[Float[Array, "*batch k"], Int[Array, "*batch k"]]:
    """The k largest of every row in descending order and where they stand; among equals the lower index comes first.

    Not differentiable. Its results are whole arrays: XLA on the CPU sorts everything where only a part of the result
    of ``lax.top_k`` is used.
    """

    def kernel(x):
        shape = (*x.shape[:-1], k)
        results = jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.int32)
        return tuple(jax.ffi.ffi_call("relic_topk", results, vmap_method="broadcast_all")(x))

    x = jax.lax.stop_gradient(x)
    values, indices = dispatch(kernel, lambda x: tuple(jax.lax.top_k(x, k)), (x,), x.dtype, (jnp.float32,))
    return values, indices


@jax.custom_vjp
def combine(values: Float[Array, "b k"], indices: Int[Array, "b k"], table: Float[Array, "m d"]) -> Float[Array, "b d"]:
    """The sum of every example's rows of the table, weighted by its values."""

    def kernel(values, indices, table):
        shape = jax.ShapeDtypeStruct((values.shape[0], table.shape[1]), table.dtype)
        call = jax.ffi.ffi_call("relic_spmm", shape, vmap_method="expand_dims")
        return call(_row_starts(indices), indices.ravel(), indices.ravel()[:0], values.ravel(), table)

    def xla(values, indices, table):
        return jnp.einsum("bk,bkd->bd", values, table[indices])

    return dispatch(kernel, xla, (values, indices, table), table.dtype)


@jax.custom_vjp
def pick(x: Float[Array, "b d"], indices: Int[Array, "b k"], table: Float[Array, "m d"]) -> Float[Array, "b k"]:
    """Dot products of every example with its rows of the table."""

    def kernel(x, indices, table):
        shape = jax.ShapeDtypeStruct((indices.size,), table.dtype)
        call = jax.ffi.ffi_call("relic_sddmm", shape, vmap_method="expand_dims")
        return call(_row_starts(indices), indices.ravel(), indices.ravel()[:0], x, table).reshape(indices.shape)

    def xla(x, indices, table):
        return jnp.einsum("bd,bkd->bk", x, table[indices])

    return dispatch(kernel, xla, (x, indices, table), table.dtype)


def _differentiable(fn: Callable[..., Array]) -> Any:
    """A function whose last argument is a size."""
    return jax.custom_vjp(fn, nondiff_argnums=(3,))


@_differentiable
def scatter(
    values: Float[Array, "b k"], indices: Int[Array, "b k"], x: Float[Array, "b d"], rows: int
) -> Float[Array, "rows d"]:
    """The sum over all examples and entries of value times example, in the row that the entry's index names."""

    def kernel(values, indices, x):
        shape = jax.ShapeDtypeStruct((rows, x.shape[1]), x.dtype)
        return jax.ffi.ffi_call("relic_scatter", shape, vmap_method="expand_dims")(indices, values, x)

    def xla(values, indices, x):
        order = jnp.argsort(indices.ravel())
        edges = values.ravel()[order, None] * x[order // values.shape[1]]
        return jax.ops.segment_sum(edges, indices.ravel()[order], rows, indices_are_sorted=True)

    return dispatch(kernel, xla, (values, indices, x), x.dtype)


combine.defvjp(
    lambda v, i, table: (combine(v, i, table), (v, i, table)),
    lambda res, g: (pick(g, res[1], res[2]), None, scatter(res[0], res[1], g, res[2].shape[0])),
)
pick.defvjp(
    lambda x, i, table: (pick(x, i, table), (x, i, table)),
    lambda res, g: (combine(g, res[1], res[2]), None, scatter(g, res[1], res[0], res[2].shape[0])),
)
scatter.defvjp(
    lambda v, i, x, rows: (scatter(v, i, x, rows), (v, i, x)),
    lambda rows, res, g: (pick(res[2], res[1], g), None, combine(res[0], res[1], g)),
)


def _row_starts(indices: Int[Array, "b k"]) -> Int[Array, " b_and_1"]:
    b, k = indices.shape
    return jnp.arange(b + 1, dtype=jnp.int32) * k
