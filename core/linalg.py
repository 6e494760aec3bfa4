"""Decompositions and solutions of many small matrices inside one program."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from core.checks import NonNegative, checked


@checked
def of_each_matrix(fn: Callable[[Any], PyTree], matrices: Num[Array, "*batch rows columns"]) -> PyTree:
    """``fn`` of every matrix of [..., rows, columns], one by one on the CPU and as a batch elsewhere.

    On the CPU a batched LAPACK call of jaxlib shares its matrices out to the thread pool that it runs on and waits for
    them there. Where as many such calls run at once as the pool has threads, none is left to work, and all wait for
    ever (seen with jaxlib 0.10.2). A call with a single matrix waits for nobody.
    """
    lead = matrices.shape[:-2]
    flat = matrices.reshape(math.prod(lead), *matrices.shape[-2:])
    found = jax.lax.platform_dependent(flat, cpu=lambda x: jax.lax.map(fn, x), default=jax.vmap(fn))
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)


@checked
@partial(jax.jit, static_argnames="rtol")
def minimum_norm(H: Float[Array, "n n"], c: Float[Array, " n"], rtol: NonNegative = 1e-10) -> Float[Array, " n"]:
    """The shortest b which minimises b^T H b / 2 - b^T c, for H positive semi-definite: H^+ c without eigenvectors.

    Gauss-Jordan elimination skips what depends on the coordinates before it, a zero row included: coordinate k is
    skipped where its part outside of their span is below ``rtol`` of H[k, k]. Column k then says how it is made of the
    others, x_k = sum_i S[i, k] x_i, so that e_k - S[:, k] is in the null space, and the solution found is projected
    off these vectors. Plain arithmetic, which vmap turns into loops over the batch: no LAPACK call per matrix.

    Needs float64 where H is a Gram matrix, whose condition number is a square.
    """
    diagonal = jnp.diagonal(H)

    def eliminate(k, carry):
        S, kept = carry
        good = S[k, k] > rtol * diagonal[k]
        row = S[k] / jnp.where(good, S[k, k], 1.0)
        return jnp.where(good, (S - S[:, k, None] * row).at[k].set(row), S), kept.at[k].set(good)

    n = H.shape[-1]
    start = jnp.concatenate([H, c[:, None]], axis=1), jnp.zeros(n, bool)
    S, kept = jax.lax.fori_loop(0, n, eliminate, start)
    b = jnp.where(kept, S[:, n], 0.0)
    null = jnp.diag(~kept).astype(H.dtype) - jnp.where(kept[:, None] & ~kept, S[:, :n], 0.0)
    gram = jnp.concatenate([null.T @ null + jnp.diag(kept), (null.T @ b)[:, None]], axis=1)
    y = jax.lax.fori_loop(0, n, lambda k, G: (G - G[:, k, None] * (G[k] / G[k, k])).at[k].set(G[k] / G[k, k]), gram)
    return b - null @ y[:, n]


@checked
def small_inverse(S: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a small positive definite matrix by Gauss-Jordan elimination, n steps unrolled.

    Plain arithmetic, which vmap and pmap may batch at will: no LAPACK call per matrix (see :func:`of_each_matrix`).
    """
    n = S.shape[-1]
    both = jnp.concatenate([S, jnp.eye(n, dtype=S.dtype)], axis=1)
    for k in range(n):
        row = both[k] / both[k, k]
        both = (both - jnp.outer(both[:, k], row)).at[k].set(row)
    return both[:, n:]
