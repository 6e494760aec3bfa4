"""Sparse times dense beside SciPy: 70,000 nodes, 1.6 million edges, 32 columns, float32.

SciPy's CSR product runs on one core; ours uses all. XLA's own gathers and segment sums are shown for comparison.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from core.bench import BenchResult, first_call, interleaved
from core.sparse import Graph, spmm

NODES, EDGES, WIDTH = 70_000, 1_600_000, 32


def run() -> list[BenchResult]:
    """Forward, forward and backward in x, and the forward product with XLA's operations as the peer."""
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, NODES * NODES, EDGES + 1_000))[:EDGES]
    graph = Graph.from_edges(keys // NODES, keys % NODES, (NODES, NODES))
    weights = rng.random(EDGES, np.float32)
    matrix = scipy.sparse.csr_matrix((weights, graph.cols, graph.indptr), shape=graph.shape)
    transposed = matrix.T.tocsr()
    x = rng.normal(size=(NODES, WIDTH)).astype(np.float32)
    args = graph, jnp.asarray(x), jnp.asarray(weights)

    forward = jax.jit(spmm)
    pullback = jax.jit(lambda graph, x, w: jax.vjp(lambda x: spmm(graph, x, w), x)[1](x)[0])
    compare = functools.partial(_compare, args=args)
    return [
        compare("spmm forward", forward, "SciPy CSR", lambda: matrix @ x),
        compare("spmm backward in x", pullback, "SciPy CSR of the transpose", lambda: transposed @ x),
        compare("spmm forward", forward, "XLA segment sum", _with_xla(args)),
    ]


def _compare(name, ours, peer_name, peer, *, args) -> BenchResult:
    compile_s = first_call(lambda: ours.lower(*args).compile()(*args))
    own, others = interleaved(lambda: ours(*args), peer)
    return BenchResult.of(name, own, peer_name, others, compile_s, f"{EDGES:,} edges x {WIDTH}")


def _with_xla(args):
    before = os.environ.get("RELIC_SPARSE")
    os.environ["RELIC_SPARSE"] = "xla"
    try:
        compiled = jax.jit(lambda *args: spmm(*args)).lower(*args).compile()
    finally:
        os.environ.pop("RELIC_SPARSE")
        if before is not None:
            os.environ["RELIC_SPARSE"] = before
    return lambda: compiled(*args)
