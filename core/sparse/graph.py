"""A sparse pattern kept in both orders, by rows and by columns, so that no direction needs a scatter."""

from typing import Annotated, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from core.checks import checked
from core.errors import ConfigError, DataError
from core.kinds import Range

Size = Annotated[int, Range(0, 2**31 - 1)]
"""Rows or columns of a pattern, which are numbered in 32 bits."""


class Side(NamedTuple):
    """The edges in one order."""

    indptr: Int[Array, " rows_and_1"]
    """Edges ``indptr[r]`` to ``indptr[r + 1]`` belong to row r."""
    rows: Int[Array, " edges"]
    """The row of each edge, ascending."""
    cols: Int[Array, " edges"]
    """The column of each edge, ascending within a row."""
    slot: Int[Array, " edges"]
    """The position of each edge in the other order."""


@flax.struct.dataclass
class Graph:
    """The pattern of a sparse m x n matrix; weights of the edges are arrays in row-major order."""

    by_row: Side
    by_col: Side
    shape: tuple[int, int] = flax.struct.field(pytree_node=False)
    shared: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether replicas share the work of its products, see :mod:`core.sparse.products`: right only where the operands
    are the same on all of them, as a table of all nodes is."""

    @classmethod
    @checked
    def from_edges(
        cls,
        rows: Int[np.ndarray, " edges"],
        cols: Int[np.ndarray, " edges"],
        shape: tuple[Size, Size],
        *,
        shared: bool = False,
    ) -> "Graph":
        """The pattern with the given edges, put in row-major order.

        Args:
          rows: row of each edge, integers.
          cols: column of each edge, integers.
          shape: (m, n).
          shared: whether replicas share the work of its products.

        Raises:
          DataError: for edges outside of the shape and for repeated edges.
          ConfigError: for rows and columns of unequal number and for a shape of negative numbers.
        """
        rows, cols = np.asarray(rows), np.asarray(cols)
        for name, ids, size in (("row", rows, shape[0]), ("column", cols, shape[1])):
            outside = np.flatnonzero((ids < 0) | (ids >= size))
            if outside.size:
                raise DataError(
                    f"edge {outside[0]} has {name} {ids[outside[0]]}, outside of a pattern with {size} {name}s"
                )
        order = np.lexsort((cols, rows))
        rows, cols = rows[order].astype(np.int32), cols[order].astype(np.int32)
        repeated = np.flatnonzero((np.diff(rows) == 0) & (np.diff(cols) == 0))
        if repeated.size:
            pair = rows[repeated[0]], cols[repeated[0]]
            raise DataError(
                f"edge ({pair[0]}, {pair[1]}) occurs more than once; remove repetitions or sum their weights"
            )
        forth = np.lexsort((rows, cols)).astype(np.int32)
        back = np.argsort(forth).astype(np.int32)
        return cls(_side(rows, cols, back, shape[0]), _side(cols[forth], rows[forth], forth, shape[1]), shape, shared)

    @property
    def num_edges(self) -> int:
        """The number of edges."""
        return self.by_row.rows.shape[-1]

    @property
    def indptr(self) -> Int[Array, " m_and_1"]:
        """Where each row's edges begin."""
        return self.by_row.indptr

    @property
    def rows(self) -> Int[Array, " edges"]:
        """The row of each edge."""
        return self.by_row.rows

    @property
    def cols(self) -> Int[Array, " edges"]:
        """The column of each edge."""
        return self.by_row.cols

    @property
    def T(self) -> "Graph":
        """The transposed pattern; see :func:`transpose_weights` for its weights."""
        return Graph(self.by_col, self.by_row, (self.shape[1], self.shape[0]), self.shared)


def _side(rows: np.ndarray, cols: np.ndarray, slot: np.ndarray, num_rows: int) -> Side:
    indptr = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int32)
    return Side(*map(jnp.asarray, (indptr, rows, cols, slot)))


@checked
def transpose_weights(graph: Graph, weights: Num[Array, " edges"]) -> Num[Array, " edges"]:
    """The same weights in the edge order of ``graph.T``.

    Raises:
      ConfigError: where there is not a weight for every edge.
    """
    weights = jnp.asarray(weights)
    if weights.shape[0] != graph.num_edges:
        raise ConfigError(f"transpose_weights: {weights.shape[0]} weights for the {graph.num_edges} edges of a pattern")
    return weights[graph.by_col.slot]


@checked
def symmetric_normalised(graph: Graph) -> Float[Array, " edges"]:
    """1 / sqrt(deg(row) deg(col)) of every edge, the entries of D_r^-1/2 A D_c^-1/2 for a 0/1 matrix A."""
    row_degrees, col_degrees = jnp.diff(graph.by_row.indptr), jnp.diff(graph.by_col.indptr)
    product = row_degrees[graph.rows].astype(jnp.float32) * col_degrees[graph.cols]
    return jax.lax.rsqrt(product)


@checked
def bipartite(graph: Graph) -> Graph:
    """The pattern of [[0, A], [A^T, 0]]: one node set, rows first."""
    m, n = graph.shape
    rows, cols = np.asarray(graph.rows), np.asarray(graph.cols)
    return Graph.from_edges(np.concatenate([rows, cols + m]), np.concatenate([cols + m, rows]), (m + n, m + n))
