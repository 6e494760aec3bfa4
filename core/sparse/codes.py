"""Sparse codes: a few entries per example, at places found on the device; their products with dense matrices.

The pattern is an array of indices [b, k] into the rows of a table [m, d]. Three operations close under differentiation:

    combine(v, i, T)_b    = sum_a v_ba T[i_ba]           d/dv: pick(g, i, T)       d/dT: scatter(v, i, g)
    pick(x, i, T)_ba      = <x_b, T[i_ba]>               d/dx: combine(g, i, T)    d/dT: scatter(g, i, x)
    scatter(v, i, x)_j    = sum_{(b,a): i_ba = j} v_ba x_b   d/dv: pick(x, i, g)   d/dx: combine(v, i, g)

Their cost grows with b k d, and with m only where a result of m rows is written. On the CPU they are the kernels of
:mod:`core.sparse.products` and two more, elsewhere gathers and segment sums.

Shapes are checked at every call. An index is known on the device only, and nothing is read or written at one that names
no row (a negative one neither): ``combine`` and ``pick`` are NaN where they need it, ``scatter`` leaves it out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from core.checks import Natural, checked
from core.errors import ConfigError
from core.sparse.products import dispatch, rows_of


@checked
def top_k(x: Num[Array, "*batch m"], k: Natural) -> tuple[Num[Array, "*batch k"], Int[Array, "*batch k"]]:
    """The k largest of every row in descending order and where they stand; among equals the lower index comes first.

    Not differentiable. Its results are whole arrays: XLA on the CPU sorts everything where only a part of the result
    of ``lax.top_k`` is used.

    Raises:
      ConfigError: where k is above m.
    """
    x = jnp.asarray(x)
    if not x.ndim or k > x.shape[-1]:
        raise ConfigError(f"top_k: k is {k}, more than the entries of a row of x {list(x.shape)}")

    def kernel(x):
        shape = (*x.shape[:-1], k)
        results = jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.int32)
        return tuple(jax.ffi.ffi_call("relic_topk", results, vmap_method="broadcast_all")(x))

    x = jax.lax.stop_gradient(x)
    values, indices = dispatch(kernel, lambda x: tuple(jax.lax.top_k(x, k)), (x,), x.dtype, (jnp.float32,))
    return values, indices


@checked
def combine(values: Float[Array, "b k"], indices: Int[Array, "b k"], table: Float[Array, "m d"]) -> Float[Array, "b d"]:
    """The sum of every example's rows of the table, weighted by its values; NaN where an index names no row.

    Raises:
      ConfigError: where shapes do not fit.
    """
    values, table = _alike(values, table)
    return _combine(values, _int32(indices, table.shape[0]), table)


@checked
def pick(x: Float[Array, "b d"], indices: Int[Array, "b k"], table: Float[Array, "m d"]) -> Float[Array, "b k"]:
    """Dot products of every example with its rows of the table; NaN where an index names no row.

    Raises:
      ConfigError: where shapes do not fit.
    """
    x, table = _alike(x, table)
    return _pick(x, _int32(indices, table.shape[0]), table)


@checked
def scatter(
    values: Float[Array, "b k"], indices: Int[Array, "b k"], x: Float[Array, "b d"], rows: Natural
) -> Float[Array, "rows d"]:
    """The sum over all examples and entries of value times example, in the row that the entry's index names.

    An index that names no row adds to none; the derivative for its value is NaN.

    Raises:
      ConfigError: where shapes do not fit.
    """
    values, x = _alike(values, x)
    return _scatter(values, _int32(indices, rows), x, rows)


def _alike(*arrays: Any) -> list[Array]:
    """Arrays of one type."""
    dtype = jnp.result_type(*arrays)
    return [jnp.asarray(array, dtype) for array in arrays]


def _int32(indices: Any, rows: int) -> Int[Array, "b k"]:
    """Indices as the kernels take them; what is no row of ``rows`` stays none."""
    indices = jnp.asarray(indices)
    if indices.dtype.itemsize < 4:
        return indices.astype(jnp.int32)
    if indices.dtype != jnp.int32:
        indices = jnp.where((indices >= 0) & (indices < rows), indices, -1 if indices.dtype == jnp.int64 else rows)
    return indices.astype(jnp.int32)


@jax.custom_vjp
def _combine(values, indices, table):
    def kernel(values, indices, table):
        shape = jax.ShapeDtypeStruct((values.shape[0], table.shape[1]), table.dtype)
        call = jax.ffi.ffi_call("relic_spmm", shape, vmap_method="expand_dims")
        return call(_row_starts(indices), indices.ravel(), indices.ravel()[:0], values.ravel(), table)

    def xla(values, indices, table):
        return jnp.einsum("bk,bkd->bd", values, rows_of(table, indices))

    return dispatch(kernel, xla, (values, indices, table), table.dtype)


@jax.custom_vjp
def _pick(x, indices, table):
    def kernel(x, indices, table):
        shape = jax.ShapeDtypeStruct((indices.size,), table.dtype)
        call = jax.ffi.ffi_call("relic_sddmm", shape, vmap_method="expand_dims")
        return call(_row_starts(indices), indices.ravel(), indices.ravel()[:0], x, table).reshape(indices.shape)

    def xla(x, indices, table):
        return jnp.einsum("bd,bkd->bk", x, rows_of(table, indices))

    return dispatch(kernel, xla, (x, indices, table), table.dtype)


def _differentiable(fn: Callable[..., Array]) -> Any:
    """A function whose last argument is a size."""
    return jax.custom_vjp(fn, nondiff_argnums=(3,))


@_differentiable
def _scatter(values, indices, x, rows: int):
    def kernel(values, indices, x):
        shape = jax.ShapeDtypeStruct((rows, x.shape[1]), x.dtype)
        return jax.ffi.ffi_call("relic_scatter", shape, vmap_method="expand_dims")(indices, values, x)

    def xla(values, indices, x):
        order = jnp.argsort(indices.ravel())
        edges = values.ravel()[order, None] * x[order // values.shape[1]]
        return jax.ops.segment_sum(edges, indices.ravel()[order], rows, indices_are_sorted=True)

    return dispatch(kernel, xla, (values, indices, x), x.dtype)


_combine.defvjp(
    lambda v, i, table: (_combine(v, i, table), (v, i, table)),
    lambda res, g: (_pick(g, res[1], res[2]), None, _scatter(res[0], res[1], g, res[2].shape[0])),
)
_pick.defvjp(
    lambda x, i, table: (_pick(x, i, table), (x, i, table)),
    lambda res, g: (_combine(g, res[1], res[2]), None, _scatter(g, res[1], res[0], res[2].shape[0])),
)
_scatter.defvjp(
    lambda v, i, x, rows: (_scatter(v, i, x, rows), (v, i, x)),
    lambda rows, res, g: (_pick(res[2], res[1], g), None, _combine(res[0], res[1], g)),
)


def _row_starts(indices: Int[Array, "b k"]) -> Int[Array, " b_and_1"]:
    b, k = indices.shape
    return jnp.arange(b + 1, dtype=jnp.int32) * k
