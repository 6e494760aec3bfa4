r"""Which output gradients make up the Fisher matrix: drawn from the model, exact, or those of the data's targets.

A :data:`Fisher` gives, for the outputs h of one example, K cotangents d_k whose average outer product is, in
expectation, the metric: E[1/K sum_k d_k d_k^T] = H(h). Gradients J^T d_k then average to the Gauss-Newton matrix.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from core.checks import Count, checked
from interp.likelihoods import Task

Fisher = Callable[[Task, Any, Any, Any], Any]
"""``(task, key, outputs, example) -> cotangents`` along a new leading axis."""


@checked
def sampled(draws: Count = 1) -> Fisher:
    """Targets drawn from the model: unbiased, at the cost of ``draws`` backward passes."""

    def cotangents(task: Task, key, outputs, example):
        return jax.vmap(lambda key: task.likelihood.sample(key, outputs, example))(jax.random.split(key, draws))

    return cotangents


def exact() -> Fisher:
    """Columns of the metric's root, one per class or output: no noise; for examples of a single position."""

    def cotangents(task: Task, key, outputs, example):
        columns = task.likelihood.root(outputs, example)
        return jax.tree.map(lambda leaf: leaf * leaf.shape[0] ** 0.5, columns)

    return cotangents


def empirical() -> Fisher:
    """The gradient at the data's own targets: not the Fisher matrix, but what some libraries call so."""

    def cotangents(task: Task, key, outputs, example):
        gradient = jax.grad(task.likelihood.loss)(outputs, example)
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), gradient)

    return cotangents
