"""Products of a pattern with dense matrices: one meaning, the fastest path of each platform.

On the CPU a C kernel streams over the edges with all cores; XLA's own CPU code for gathers and segment sums is several
times slower. Elsewhere they are sorted segment sums of gathers. ``RELIC_SPARSE=xla`` takes the latter everywhere.

Replicas share the work of a graph that says so (``Graph.shared``) where the data axis is bound: each sums an equal
number of consecutive edges, and the sums are added. The operands must be the same on all replicas. So that this holds
of cotangents too, which differ between the replicas' losses, they are averaged first; the mean over replicas of what
results is the derivative of the mean of their losses. With any other graph each replica computes its own product.

Shapes are checked at every call, those of traced arrays too. Edges are checked where a graph is made from them; a graph
put together in another way may hold columns that do not exist, and what needs these is NaN, on every platform.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from core.checks import checked
from core.errors import ConfigError
from core.learner import DATA_AXIS, axis_is_bound, mean_over_devices
from core.sparse import native
from core.sparse.graph import Graph, Side

Weights = Num[Array, " edges"]


@checked
def spmm(graph: Graph, x: Num[Array, "n d"], weights: Weights | None = None) -> Num[Array, "m d"]:
    """The product of a sparse matrix with a dense one: y_r = sum over edges e of row r of w_e x_{col(e)}.

    Differentiable in ``x`` and ``weights`` by reverse mode to any order, vmappable over either or both.

    Args:
      graph: the pattern of the m x n matrix.
      x: the dense matrix.
      weights: its entries in row-major order; ones if None.

    Raises:
      ConfigError: where the shapes are not those of the pattern.
    """
    x = jnp.asarray(x)
    weights = jnp.ones(graph.num_edges, x.dtype) if weights is None else jnp.asarray(weights)
    require_length("spmm: x", x, graph.shape[1], "column")
    require_length("spmm: weights", weights, graph.num_edges, "edge")
    return _product(graph, x, weights)


@checked
def sddmm(graph: Graph, a: Num[Array, "m d"], b: Num[Array, "n d"]) -> Weights:
    """The dot product <a_row(e), b_col(e)> of every edge: the entries of a b^T on the pattern.

    Raises:
      ConfigError: where the shapes are not those of the pattern.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    require_length("sddmm: a", a, graph.shape[0], "row")
    require_length("sddmm: b", b, graph.shape[1], "column")
    return _sampled(graph, a, b)


@checked
def row_sums(graph: Graph, weights: Weights) -> Num[Array, " m"]:
    """The sum of the weights of each row's edges.

    Raises:
      ConfigError: where there is not a weight for every edge.
    """
    weights = jnp.asarray(weights)
    return spmm(graph, jnp.ones((graph.shape[1], 1), weights.dtype), weights)[:, 0]


def require_length(name: str, array: Array, length: int, of: str) -> None:
    """Refuses an array that has not an entry for each row, column or edge of a pattern.

    Raises:
      ConfigError: names the array and both lengths.
    """
    if array.shape[0] != length:
        raise ConfigError(f"{name} has {array.shape[0]} entries along its first axis; the pattern has {length} {of}s")


def rows_of(table: Num[Array, "m ..."], indices: Int[Array, "*n"]) -> Array:
    """The rows of a table at some indices, NaN where there is no such row (in Python's sense of -1 neither)."""
    return table.at[indices].get(mode="fill", wrap_negative_indices=False)


@jax.custom_vjp
def _product(graph: Graph, x, weights):
    return _sum_of_edges(graph.by_row, x, weights, permuted=False, shared=graph.shared)


@jax.custom_vjp
def _product_transposed(graph: Graph, y, weights):
    """A^T y, with the weights in the order of A."""
    return _sum_of_edges(graph.by_col, y, weights, permuted=True, shared=graph.shared)


@jax.custom_vjp
def _sampled(graph: Graph, a, b):
    return _dot_of_edges(graph.by_row, a, b, shared=graph.shared)


def _of_all(cotangent_rule):
    """A backward pass that is given the mean of the cotangents of the replicas that share a graph."""
    return lambda residuals, g: cotangent_rule(residuals, mean_over_devices(g) if residuals[0].shared else g)


_product.defvjp(
    lambda graph, x, w: (_product(graph, x, w), (graph, x, w)),
    _of_all(lambda res, g: (None, _product_transposed(res[0], g, res[2]), _sampled(res[0], g, res[1]))),
)
_product_transposed.defvjp(
    lambda graph, y, w: (_product_transposed(graph, y, w), (graph, y, w)),
    _of_all(lambda res, g: (None, _product(res[0], g, res[2]), _sampled(res[0], res[1], g))),
)
_sampled.defvjp(
    lambda graph, a, b: (_sampled(graph, a, b), (graph, a, b)),
    _of_all(lambda res, g: (None, _product(res[0], res[2], g), _product_transposed(res[0], res[1], g))),
)


def _sum_of_edges(side: Side, x, weights, *, permuted: bool, shared: bool):
    """y_r = sum over the side's edges e of row r of w x_{col(e)}; ``permuted`` weights are in the other order."""
    num_rows = side.indptr.shape[0] - 1
    dtype = jnp.result_type(x, weights)

    def xla(indptr, rows, cols, slot, weights, x):
        edge = (rows_of(weights, slot) if permuted else weights)[:, None] * rows_of(x, cols)
        return jax.ops.segment_sum(edge, rows, num_rows, indices_are_sorted=True)

    def kernel(indptr, rows, cols, slot, weights, x):
        shape = jax.ShapeDtypeStruct((num_rows, x.shape[1]), dtype)
        return jax.ffi.ffi_call("relic_spmm", shape, vmap_method="expand_dims")(indptr, cols, slot, weights, x)

    share = _share(side, shared)
    if not permuted:
        weights = share.of(weights)
    own = share.side._replace(slot=share.side.slot if permuted else share.side.slot[:0])
    arrays = own.indptr, own.rows, own.cols, own.slot, weights.astype(dtype), x.astype(dtype)
    return share.summed(dispatch(kernel, xla, arrays, dtype))


def _dot_of_edges(side: Side, a, b, *, shared: bool):
    """<a_row(e), b_col(e)> of the side's edges, in its order."""
    dtype = jnp.result_type(a, b)

    def xla(indptr, rows, cols, a, b):
        return jnp.sum(rows_of(a, rows) * rows_of(b, cols), axis=-1)

    def kernel(indptr, rows, cols, a, b):
        shape = jax.ShapeDtypeStruct(cols.shape, dtype)
        return jax.ffi.ffi_call("relic_sddmm", shape, vmap_method="expand_dims")(indptr, cols, rows[:0], a, b)

    share = _share(side, shared)
    arrays = share.side.indptr, share.side.rows, share.side.cols, a.astype(dtype), b.astype(dtype)
    return share.joined(dispatch(kernel, xla, arrays, dtype))


class _Share(NamedTuple):
    """The edges of one replica."""

    side: Side
    of: Callable[[Array], Array]
    """Its part of an array with one entry per edge."""
    summed: Callable[[Array], Array]
    """The sum over replicas."""
    joined: Callable[[Array], Array]
    """Entries of all edges from those of every replica."""


def _share(side: Side, shared: bool) -> _Share:
    """Equally many consecutive edges for each replica, the last ones filled up with edges of no row."""
    if not (shared and axis_is_bound()):
        return _Share(side, *[lambda leaf: leaf] * 3)
    edges, replicas = side.rows.shape[0], jax.lax.axis_size(DATA_AXIS)
    size = -(-edges // replicas)
    first = jax.lax.axis_index(DATA_AXIS) * size

    def of(leaf, fill=0):
        padded = jnp.pad(leaf, (0, size * replicas - edges), constant_values=fill)
        return jax.lax.dynamic_slice_in_dim(padded, first, size)

    indptr = jnp.clip(side.indptr - first, 0, size)
    own = Side(indptr, of(side.rows, side.indptr.shape[0] - 1), of(side.cols), of(side.slot))
    return _Share(
        own,
        of,
        lambda leaf: jax.lax.psum(leaf, DATA_AXIS),
        lambda leaf: jax.lax.all_gather(leaf, DATA_AXIS, tiled=True)[:edges],
    )


def dispatch(
    kernel, xla, arrays: tuple[Int[Array, "..."] | Float[Array, "..."], ...], dtype, known=(jnp.float32, jnp.float64)
):
    """The C kernel where the program runs on a CPU and the kernel knows the type, XLA's operations elsewhere."""
    if os.environ.get("RELIC_SPARSE") == "xla" or dtype not in known or not native.register():
        return xla(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=kernel, default=xla)
