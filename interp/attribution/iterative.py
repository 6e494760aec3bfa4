r"""Solving (G + lambda) h = v without the matrix: conjugate gradients, and LiSSA's Neumann series on random batches.

LiSSA (Agarwal et al. 2017; Koh & Liang 2017): h_{k+1} = v + (I - (G_B + lambda)/sigma) h_k, result h/sigma, which
converges in the mean where sigma exceeds the largest eigenvalue of every G_B + lambda.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, NonNegative, checked
from interp.attribution.gauss_newton import product
from interp.likelihoods import Task, require_examples


class Solution(NamedTuple):
    """Solutions for a stack of right-hand sides, and what they cost."""

    vectors: PyTree
    """With the right-hand sides' leading axis."""
    spread: PyTree
    """Standard error over repeats, of the same structure; zeros where nothing is random."""
    gradients: int
    """Gradient evaluations of single examples per right-hand side: a product with G over n examples counts as n."""


@checked
def conjugate_gradient(
    task: Task, params: PyTree, examples: PyTree, vectors: PyTree, damping: NonNegative, iterations: Count
) -> Solution:
    """CG on the damped matrix over all examples, for every right-hand side along the leading axis."""
    require_examples(task, params, examples)
    damped = _damped(product(task, params, examples), damping)

    def solve(v):
        return jax.scipy.sparse.linalg.cg(damped, v, maxiter=iterations, tol=0.0)[0]

    found = jax.lax.map(solve, vectors)
    cost = iterations * jax.tree.leaves(examples)[0].shape[0]
    return Solution(found, jax.tree.map(jnp.zeros_like, found), cost)


@checked
def lissa(
    task: Task,
    params: PyTree,
    examples: PyTree,
    vectors: PyTree,
    damping: NonNegative,
    *,
    key: Key[Array, ""],
    sigma: ArrayLike,
    batch_size: Count,
    iterations: Count,
    repeats: Count = 1,
) -> Solution:
    """The series on random batches, averaged over independent repeats.

    Args:
      task: network and likelihood.
      params: parameters.
      examples: training examples.
      vectors: right-hand sides along the leading axis.
      damping: lambda.
      key: for the batches, which all right-hand sides share.
      sigma: above the largest eigenvalue of G_B + lambda (see :func:`largest_eigenvalue`).
      batch_size: examples per product.
      iterations: terms of the series.
      repeats: independent series.
    """
    require_examples(task, params, examples)
    rows = jax.tree.leaves(examples)[0].shape[0]

    def series(key):
        def step(h, key):
            batch = jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (batch_size,), 0, rows)], examples)
            curved = jax.vmap(_damped(product(task, params, batch), damping))(h)
            return jax.tree.map(lambda v, h, c: v + h - c / sigma, vectors, h, curved), None

        last = jax.lax.scan(step, vectors, jax.random.split(key, iterations))[0]
        return jax.tree.map(lambda leaf: leaf / sigma, last)

    found = jax.lax.map(series, jax.random.split(key, repeats))
    mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)
    spread = jax.tree.map(lambda leaf: jnp.std(leaf, axis=0) / max(repeats - 1, 1) ** 0.5, found)
    return Solution(mean, spread, iterations * batch_size * repeats)


@checked
def largest_eigenvalue(apply: Callable[[PyTree], PyTree], start: PyTree, iterations: Count = 30) -> Float[Array, ""]:
    """Of a positive operator, by power iteration."""

    def normalised(v):
        return jax.tree.map(lambda leaf: leaf / _norm(v), v)

    last = jax.lax.fori_loop(0, iterations, lambda _, v: apply(normalised(v)), start)
    return _norm(last)


def _norm(v: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(v)))


def _damped(apply: Callable[[PyTree], PyTree], damping: float) -> Callable[[PyTree], PyTree]:
    return lambda v: jax.tree.map(lambda g, leaf: g + damping * leaf, apply(v), v)
