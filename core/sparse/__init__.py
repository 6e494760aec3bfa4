"""Sparse linear algebra on a fixed pattern of edges: products, per-edge dot products and row sums.

The algebra closes under differentiation, so gradients of any order need nothing else::

    y = spmm(graph, x, w)     dy/dx: spmm(graph.T, .)    dy/dw: sddmm(graph, ., x)
    s = sddmm(graph, a, b)    ds/da: spmm(graph, b, .)   ds/db: spmm(graph.T, a, .)
Codes of a few entries per example, whose pattern is found on the device, have operations of the same kind (``combine``,
``pick``, ``scatter``, ``top_k``).
"""

from core.sparse.codes import combine, pick, scatter, top_k
from core.sparse.graph import Graph, bipartite, symmetric_normalised, transpose_weights
from core.sparse.products import row_sums, sddmm, spmm

__all__ = [
    "Graph", "bipartite", "combine", "pick", "row_sums", "scatter", "sddmm", "spmm", "symmetric_normalised", "top_k",
    "transpose_weights",
]  # fmt: skip
