"""Recommenders that count: popularity, item neighbours and a Markov chain of the first order.

Weights from item to item are sparse; all give a ``score`` for :class:`rec.sequential.NextItemRanking`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int

from core.checks import Count, NonNegative, checked
from core.sparse import Graph, spmm
from rec.baselines import cosines
from rec.sequential.histories import PAD, Items


class ItemWeights(NamedTuple):
    """W [target item, given item], sparse, and what is added to the scores of all users."""

    pattern: Graph
    weights: Float[Array, " edges"]
    prior: Float[Array, " items"]


@checked
def popularity(rows: Sequence[np.ndarray], num_items: Count) -> Float[np.ndarray, " items"]:
    """How often each item occurs."""
    return np.bincount(np.concatenate(rows), minlength=num_items).astype(np.float32)


@checked
def item_neighbours(
    rows: Sequence[np.ndarray], num_items: Count, *, neighbours: Count = 100, shrink: NonNegative = 0.0
) -> ItemWeights:
    """For each given item the cosines of its nearest neighbours, see :func:`rec.baselines.cosines`; the lower number
    first where they tie.
    """
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    matrix = scipy.sparse.csr_matrix((np.ones(len(users)), (users, np.concatenate(rows))), (len(rows), num_items))
    matrix.data[:] = 1.0
    i, j, values = cosines(matrix.T @ matrix, shrink)
    kept = _largest_per_column(i, j, values, neighbours)
    return _weights(i[kept], j[kept], values[kept], num_items, np.zeros(num_items))


def _largest_per_column(rows: np.ndarray, cols: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The entries among the ``count`` largest of their column, the lower row first where they tie."""
    order = np.lexsort((rows, -values, cols))
    starts = np.searchsorted(cols[order], np.arange(cols.max(initial=0) + 1))
    return order[np.arange(len(order)) - starts[cols[order]] < count]


@checked
def transitions(rows: Sequence[np.ndarray], num_items: Count, *, smoothing: NonNegative = 1e-3) -> ItemWeights:
    """P(next | last) by counting neighbours in time, with a prior of ``smoothing`` times the share of each item."""
    after = np.concatenate([row[1:] for row in rows])
    before = np.concatenate([row[:-1] for row in rows])
    counts = scipy.sparse.csr_matrix((np.ones(len(after)), (after, before)), (num_items, num_items)).tocoo()
    totals, share = np.bincount(before, minlength=num_items), popularity(rows, num_items)
    prior = smoothing * share / share.sum()
    return _weights(counts.row, counts.col, counts.data / totals[counts.col], num_items, prior)


def _weights(targets, given, values, num_items: Count, prior) -> ItemWeights:
    order = np.lexsort((given, targets))
    pattern = Graph.from_edges(targets, given, (num_items, num_items))
    return ItemWeights(pattern, jnp.asarray(values[order], jnp.float32), jnp.asarray(prior, jnp.float32))


@checked
def neighbour_score(model: ItemWeights, histories: Items) -> Float[Array, "b items"]:
    """The sum of the weights from all items of a history."""
    return _spread(model, histories)


@checked
def transition_score(model: ItemWeights, histories: Items) -> Float[Array, "b items"]:
    """The weights from the last item of a history."""
    return _spread(model, histories[:, -1:])


def _spread(model: ItemWeights, histories: Int[Array, "b length"]) -> Float[Array, "b items"]:
    items = jnp.where(histories == PAD, model.prior.shape[0], histories)
    given = jnp.zeros((model.prior.shape[0], histories.shape[0]))
    given = given.at[items, jnp.arange(histories.shape[0])[:, None]].set(1.0, mode="drop")
    return spmm(model.pattern, given, model.weights).T + model.prior
