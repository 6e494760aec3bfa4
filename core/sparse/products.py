"""Products of a pattern with dense matrices: one meaning, the fastest path of each platform.

On the CPU a C kernel streams over the edges with all cores; XLA's own CPU code for gathers and segment sums is several
times slower. Elsewhere they are sorted segment sums of gathers. ``RELIC_SPARSE=xla`` takes the latter everywhere.
"""

import os

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from core.sparse import native
from core.sparse.graph import Graph, Side

Weights = Float[Array, " edges"]


def spmm(graph: Graph, x: Float[Array, "n d"], weights: Weights | None = None) -> Float[Array, "m d"]:
    """The product of a sparse matrix with a dense one: y_r = sum over edges e of row r of w_e x_{col(e)}.

    Differentiable in ``x`` and ``weights`` by reverse mode to any order, vmappable over either or both.

    Args:
      graph: the pattern of the m x n matrix.
      x: the dense matrix.
      weights: its entries in row-major order; ones if None.
    """
    return _product(graph, x, jnp.ones(graph.num_edges, x.dtype) if weights is None else weights)


def sddmm(graph: Graph, a: Float[Array, "m d"], b: Float[Array, "n d"]) -> Weights:
    """The dot product <a_row(e), b_col(e)> of every edge: the entries of a b^T on the pattern."""
    return _sampled(graph, a, b)


def row_sums(graph: Graph, weights: Weights) -> Float[Array, " m"]:
    """The sum of the weights of each row's edges."""
    return spmm(graph, jnp.ones((graph.shape[1], 1), weights.dtype), weights)[:, 0]


@jax.custom_vjp
def _product(graph: Graph, x, weights):
    return _sum_of_edges(graph.by_row, x, weights, permuted=False)


@jax.custom_vjp
def _product_transposed(graph: Graph, y, weights):
    """A^T y, with the weights in the order of A."""
    return _sum_of_edges(graph.by_col, y, weights, permuted=True)


@jax.custom_vjp
def _sampled(graph: Graph, a, b):
    return _dot_of_edges(graph.by_row, a, b)


_product.defvjp(
    lambda graph, x, w: (_product(graph, x, w), (graph, x, w)),
    lambda res, g: (None, _product_transposed(res[0], g, res[2]), _sampled(res[0], g, res[1])),
)
_product_transposed.defvjp(
    lambda graph, y, w: (_product_transposed(graph, y, w), (graph, y, w)),
    lambda res, g: (None, _product(res[0], g, res[2]), _sampled(res[0], res[1], g)),
)
_sampled.defvjp(
    lambda graph, a, b: (_sampled(graph, a, b), (graph, a, b)),
    lambda res, g: (None, _product(res[0], res[2], g), _product_transposed(res[0], res[1], g)),
)


def _sum_of_edges(side: Side, x, weights, *, permuted: bool):
    """y_r = sum over the side's edges e of row r of w x_{col(e)}; ``permuted`` weights are in the other order."""
    num_rows = side.indptr.shape[0] - 1
    dtype = jnp.result_type(x, weights)
    slot = side.slot if permuted else side.slot[:0]

    def xla(indptr, rows, cols, slot, weights, x):
        edge = (weights[slot] if permuted else weights)[:, None] * x[cols]
        return jax.ops.segment_sum(edge, rows, num_rows, indices_are_sorted=True)

    def kernel(indptr, rows, cols, slot, weights, x):
        shape = jax.ShapeDtypeStruct((num_rows, x.shape[1]), dtype)
        return jax.ffi.ffi_call("relic_spmm", shape, vmap_method="expand_dims")(indptr, cols, slot, weights, x)

    arrays = side.indptr, side.rows, side.cols, slot, weights.astype(dtype), x.astype(dtype)
    return dispatch(kernel, xla, arrays, dtype)


def _dot_of_edges(side: Side, a, b):
    """<a_row(e), b_col(e)> of the side's edges, in its order."""
    dtype = jnp.result_type(a, b)

    def xla(indptr, rows, cols, a, b):
        return jnp.sum(a[rows] * b[cols], axis=-1)

    def kernel(indptr, rows, cols, a, b):
        shape = jax.ShapeDtypeStruct(cols.shape, dtype)
        return jax.ffi.ffi_call("relic_sddmm", shape, vmap_method="expand_dims")(indptr, cols, rows[:0], a, b)

    return dispatch(kernel, xla, (side.indptr, side.rows, side.cols, a.astype(dtype), b.astype(dtype)), dtype)


def dispatch(
    kernel, xla, arrays: tuple[Int[Array, "..."] | Float[Array, "..."], ...], dtype, known=(jnp.float32, jnp.float64)
):
    """The C kernel where the program runs on a CPU and the kernel knows the type, XLA's operations elsewhere."""
    if os.environ.get("RELIC_SPARSE") == "xla" or dtype not in known or not native.register():
        return xla(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=kernel, default=xla)
