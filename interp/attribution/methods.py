"""Methods beside each other on one network, by name: scores [query, example], compiled once per network and shape."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, NonNegative
from core.learner import stream
from interp.attribution import gradients
from interp.attribution.gauss_newton import block_influence, exact_influence, per_example_gradients, product
from interp.attribution.iterative import conjugate_gradient, largest_eigenvalue, lissa
from interp.likelihoods import Task

Scores = dict[str, Float[Array, "query example"]]
Margin = tuple[Callable[[PyTree, Any], Array], Callable[[PyTree, Any], Array]]
"""The output that :func:`interp.attribution.trak` looks at, and minus the derivative of the loss in it."""
CG_ITERATIONS = 30
CG, LISSA = f"CG, {CG_ITERATIONS} iterations", "LiSSA"


@functools.partial(jax.jit, static_argnums=0)
def by_exact_curvature(task: Task, params: PyTree, train: PyTree, queries: PyTree, damping: NonNegative) -> Scores:
    """With the whole damped Gauss-Newton matrix, and with its blocks of layers (kernel and bias form one)."""

    def layer_of(leaf: str) -> str:
        return leaf.rsplit("/", 1)[0]

    return {
        "exact": exact_influence(task, params, train, queries, damping),
        "block-exact": block_influence(task, params, train, queries, damping, layer_of),
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def by_iteration(
    task: Task, damping: NonNegative, batch_size: Count, iterations: Count, params: PyTree, train: PyTree,
    queries: PyTree, key: Key[Array, ""],
) -> Scores:  # fmt: skip
    """With solutions of linear systems of the same matrix: conjugate gradients on all examples, LiSSA on batches.

    LiSSA's matrix is divided by four times its largest eigenvalue, plus the damping.
    """
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    vectors = jax.vmap(unflatten)(per_example_gradients(task.loss, params, queries))
    of_train = per_example_gradients(task.loss, params, train)
    start = unflatten(jax.random.normal(stream(key, "power iteration"), flat.shape))
    sigma = 4.0 * largest_eigenvalue(product(task, params, train), start) + damping
    cg = conjugate_gradient(task, params, train, vectors, damping, CG_ITERATIONS)
    approximate = lissa(
        task, params, train, vectors, damping, key=stream(key, LISSA), sigma=sigma, batch_size=batch_size,
        iterations=iterations,
    )  # fmt: skip
    ravelled = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])
    return {CG: ravelled(cg.vectors) @ of_train.T, LISSA: ravelled(approximate.vectors) @ of_train.T}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def by_gradients(
    task: Task, features: Callable[[PyTree, Any], Array], is_regression: bool, params: PyTree,
    checkpoints: tuple[PyTree, ...], train: PyTree, queries: PyTree, key: Key[Array, ""],
) -> Scores:  # fmt: skip
    """Without a curvature. TRAK has the final checkpoint, and margins of labels, or the output in regression."""
    margin: Margin = gradients.label_margin(task), gradients.label_residual(task)
    if is_regression:
        margin = gradients.output_margin(task)
    project = gradients.gaussian_projection(key, 128)
    return {
        "dot product": gradients.dot_product(task, params, train, queries),
        "cosine": gradients.cosine(task, params, train, queries),
        "TracIn": gradients.tracin(task, checkpoints, [1.0] * len(checkpoints), train, queries),
        "TRAK": gradients.trak(*margin, [params], train, queries, project, ridge=1e-3),
        "representation": gradients.representation(features, params, train, queries),
    }
