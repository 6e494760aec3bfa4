r"""The damped Gauss-Newton matrix, exactly where it fits in memory and as a product with vectors where it does not.

G = 1/N sum_n J_n^T H_n J_n with J_n the Jacobian of example n's outputs and H_n their metric. Influence on a query is
grad L_q^T (G + lambda)^{-1} grad L_m, the derivative of the proximal Bregman response (Grosse et al. 2023, section 2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from core.checks import Count, NonNegative, checked, require_finite
from interp.likelihoods import Task, require_examples


@checked
def matrix(task: Task, params: PyTree, examples: PyTree, batch_size: Count = 64) -> Float[Array, "p p"]:
    """G of a small network; parameters in the order of ``ravel_pytree``."""
    require_examples(task, params, examples)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    def factors(example):
        def outputs(p):
            return jax.flatten_util.ravel_pytree(task.outputs(unflatten(p), example))[0]

        value, shaped = jax.flatten_util.ravel_pytree(task.outputs(params, example))

        def curved(v):
            return _ravel(task.likelihood.metric(shaped(value), shaped(v), example))

        jacobian = jax.jacrev(outputs)(flat)
        return jacobian, jax.vmap(curved)(jnp.eye(value.size)) @ jacobian

    def summed(batch):  # one product of matrices: p x p is held once, not for every example
        return jnp.einsum("nop,noq->pq", *jax.vmap(factors)(batch))

    n = len(jax.tree.leaves(examples)[0])
    full = n - n % batch_size
    first = jax.tree.map(lambda leaf: leaf[:full].reshape(full // batch_size, batch_size, *leaf.shape[1:]), examples)
    rest = jax.tree.map(lambda leaf: leaf[full:], examples)
    start = summed(rest) if n % batch_size else jnp.zeros((flat.size, flat.size), flat.dtype)
    return jax.lax.scan(lambda total, batch: (total + summed(batch), None), start, first)[0] / n


def product(task: Task, params: PyTree, examples: PyTree) -> Callable[[PyTree], PyTree]:
    """``v -> G v`` over the given examples, by a forward and a backward pass."""

    def apply(v):
        def one(example):
            outputs, tangent = jax.jvp(lambda p: task.outputs(p, example), (params,), (v,))
            curved = task.likelihood.metric(outputs, tangent, example)
            return jax.vjp(lambda p: task.outputs(p, example), params)[1](curved)[0]

        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(one)(examples))

    return apply


@checked
def per_example_gradients(
    loss: Callable[[PyTree, Any], Array], params: PyTree, examples: PyTree, batch_size: Count = 64
) -> Float[Array, "n p"]:
    """Gradients of every example, flattened."""
    require_finite("examples", examples)
    return jax.lax.map(lambda example: _ravel(jax.grad(loss)(params, example)), examples, batch_size=batch_size)


@checked
def exact_influence(
    task: Task, params: PyTree, train: PyTree, queries: PyTree, damping: NonNegative
) -> Float[Array, "query example"]:
    """Influence with the whole damped matrix."""
    G = matrix(task, params, train)
    return _solve_between(task, params, train, queries, G + damping * jnp.eye(len(G)))


@checked
def block_influence(
    task: Task, params: PyTree, train: PyTree, queries: PyTree, damping: NonNegative, block: Callable[[str], str]
) -> Float[Array, "query example"]:
    """Influence with the matrix's diagonal blocks only.

    Args:
      task: network and likelihood.
      params: parameters.
      train: training examples, over which G is averaged.
      queries: query examples.
      damping: lambda.
      block: path of a leaf ("layer/kernel") to the name of its block.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [block(jax.tree_util.keystr(path, simple=True, separator="/")) for path, _ in leaves]
    ids = {name: i for i, name in enumerate(dict.fromkeys(names))}
    parts = zip(names, leaves, strict=True)
    of_entry = jnp.concatenate([jnp.full(leaf.size, ids[name]) for name, (_, leaf) in parts])
    G = jnp.where(of_entry[:, None] == of_entry, matrix(task, params, train), 0.0)
    return _solve_between(task, params, train, queries, G + damping * jnp.eye(len(G)))


def _solve_between(task: Task, params: PyTree, train: PyTree, queries: PyTree, damped: Array) -> Array:
    require_examples(task, params, train, "train")
    require_examples(task, params, queries, "queries")
    of_queries = per_example_gradients(task.loss, params, queries)
    of_train = per_example_gradients(task.loss, params, train)
    return jax.scipy.linalg.solve(damped, of_queries.T, assume_a="pos").T @ of_train.T


def _ravel(tree: PyTree) -> Array:
    return jax.flatten_util.ravel_pytree(tree)[0]
