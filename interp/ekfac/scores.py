r"""Influence scores: s(q, m) = grad L_q^T (G + lambda)^{-1} grad L_m.

A positive score says that one more copy of training example m would lower the query's loss L_q, e.g. raise
log p(completion | prompt). Queries are preconditioned once; training examples stream past.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from core.checks import Count, checked
from core.errors import ConfigError
from core.linalg import of_each_matrix
from interp.ekfac import contractions
from interp.ekfac.capture import Capture, Record
from interp.ekfac.curvature import Curvature, precondition, rotate_record
from interp.ekfac.fisher import empirical
from interp.ekfac.stages import records
from interp.likelihoods import Task

Measure = Callable[[PyTree, Any], Float[Array, ""]]
"""``(params, query) -> L_q``: what a training example should lower."""


class LowRank(NamedTuple):
    """Matrices left @ right, one per query."""

    left: Float[Array, "query stack rows rank"]
    right: Float[Array, "query stack rank columns"]


Queries = Mapping[str, Array | LowRank]
"""Preconditioned gradients of all queries by block: [query, stack, rows, columns], or in low rank."""


@checked
def gradient_matrices(capture: Capture, params: PyTree, queries: PyTree, batch_size: Count = 32) -> dict[str, Array]:
    """Gradients of a captured scalar at every query: by block [query, stack, rows, columns].

    Args:
      capture: of a measurement ``(params, query) -> L_q``.
      params: parameters.
      queries: arrays with one query per row.
      batch_size: queries differentiated at a time.

    Raises:
      ConfigError: where the captured function does not return one number.
    """

    def one(query):
        value, pull = capture.run(params, query)
        if jnp.shape(value) != ():
            raise ConfigError(f"a measurement must return one number per query, not an array of shape {value.shape}")
        return {
            name: contractions.gradients(r.inputs[:, None], r.gradients[:, None], capture.blocks[name].rows)[0]
            for name, r in pull(jnp.ones_like(value)).items()
        }

    return jax.lax.map(one, queries, batch_size=batch_size)


def prepare(train: Capture, measured: Capture, damped: Curvature, gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Preconditioned gradients of queries.

    Raises:
      ConfigError: where queries and training examples do not go through the same blocks.
    """
    require_same_blocks(train, measured)
    return precondition(damped, gradients)


def require_same_blocks(train: Capture, measured: Capture) -> None:
    """Refuses two captures whose blocks differ in name or shape."""
    shapes = [{name: (b.stack, b.rows, b.columns) for name, b in c.blocks.items()} for c in (train, measured)]
    wrong = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        name = wrong[0]
        raise ConfigError(
            f"queries and training examples differ in block {name}: {shapes[1].get(name, 'absent')} for queries, "
            f"{shapes[0].get(name, 'absent')} for training (stack, rows, columns); pass the same where=... to "
            "both, and a measurement that uses the same network"
        )


@checked
def low_rank(matrices: Mapping[str, Array], rank: Count) -> dict[str, Array | LowRank]:
    """The best approximations of a given rank; blocks which that would not make smaller stay as they are."""
    return {name: _truncated(matrix, rank) for name, matrix in matrices.items()}


def _truncated(matrix: Array, rank: int) -> Array | LowRank:
    rows, columns = matrix.shape[-2:]
    if rank * (rows + columns) >= rows * columns:
        return matrix
    left, values, right = of_each_matrix(lambda m: tuple(jnp.linalg.svd(m, full_matrices=False)), matrix)
    return LowRank(left[..., :rank] * values[..., None, :rank], right[..., :rank, :])


def loss_records(capture: Capture, task: Task, params: PyTree, examples: PyTree) -> dict[str, Record]:
    """Inputs [stack, N, T, i] and gradients [stack, N, T, o] of the examples' own losses."""
    keys = jnp.zeros(len(jax.tree.leaves(examples)[0]))  # unused: nothing is drawn
    found = records(capture, task, empirical(), params, examples, keys)
    return {name: Record(r.inputs[:, :, 0], r.gradients[:, :, 0]) for name, r in found.items()}


@checked
def layer_scores(
    capture: Capture, task: Task, params: PyTree, queries: Queries, examples: PyTree, order: contractions.Order = "auto"
) -> dict[str, Float[Array, "query example"]]:
    """Scores of a batch of training examples by block; their sum over blocks is the score."""
    return {
        name: _scores(record, queries[name], order)
        for name, record in loss_records(capture, task, params, examples).items()
    }


@checked
def pairwise(
    capture: Capture, task: Task, params: PyTree, queries: Queries, examples: PyTree, order: contractions.Order = "auto"
) -> Float[Array, "query example"]:
    """Scores of a batch of training examples."""
    return sum(layer_scores(capture, task, params, queries, examples, order).values(), start=jnp.zeros(()))


@checked
def token_scores(
    capture: Capture, task: Task, params: PyTree, queries: Mapping[str, Array], examples: PyTree, positions: Count
) -> Float[Array, "query example position"]:
    """Scores by position of the output gradient, summed over all uses of weights at that many positions.

    Weights used at another number of positions (norms, tables shared by all) have no place in the sequence: their
    scores are spread evenly, so that the sum over positions is the score.
    """
    total = jnp.zeros(())
    for name, record in loss_records(capture, task, params, examples).items():
        spans = capture.blocks[name].spans
        if positions not in spans:
            total = total + contractions.scores(*record, queries[name])[..., None] / positions
            continue
        by_position = contractions.token_scores(*record, queries[name])
        for span, part in zip(spans, jnp.split(by_position, np.cumsum(spans[:-1]), axis=-1), strict=True):
            total = total + (part if span == positions else part.sum(axis=-1, keepdims=True) / positions)
    return total


def self_scores(
    capture: Capture, task: Task, params: PyTree, damped: Curvature, examples: PyTree
) -> Float[Array, " example"]:
    """s(m, m) of a batch: squared norms of gradients in the eigenbases, weighted by 1 / (Lambda + lambda)."""
    total = jnp.zeros(())
    for name, record in loss_records(capture, task, params, examples).items():
        total = total + contractions.quadratic(*rotate_record(record, damped[name]), 1 / damped[name].values)
    return total


@checked
def in_batches(fn: Callable[[Any], Any], examples: PyTree, batch_size: Count) -> Any:
    """``fn`` of consecutive batches of examples, its results [..., example] joined along the last axis."""
    rows = len(jax.tree.leaves(examples)[0])
    parts = -(-rows // batch_size)
    place = jnp.minimum(jnp.arange(parts * batch_size), rows - 1).reshape(parts, batch_size)
    found = jax.lax.map(lambda chosen: fn(jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], examples)), place)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)[..., :rows], found)


def _scores(record: Record, queries: Array | LowRank, order: contractions.Order) -> Array:
    if isinstance(queries, LowRank):
        return contractions.low_rank_scores(*record, *queries)
    return contractions.scores(*record, queries, order)
