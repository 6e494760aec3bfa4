"""Triples (user, positive, negative) drawn on the device, the batches of pairwise ranking losses."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from core.checks import Count, Natural, checked
from core.errors import ConfigError
from core.learner import Stream, stream
from core.sparse import Graph
from rec.graph import RecData, RecGraph


class Triples(NamedTuple):
    """A batch of comparisons: each user preferred the positive item to the negative one."""

    users: Int[Array, " B"]
    positives: Int[Array, " B"]
    negatives: Int[Array, " B"]


class Batch(NamedTuple):
    """What the loss of a graph recommender sees: the whole graph and some triples."""

    graph: RecGraph
    triples: Triples


BATCH_AXES = Batch(None, 0)  # type: ignore[arg-type]
"""The graph is shared by all replicas, the triples are examples."""


@checked
def sample_triples(data: RecData, key: Key[Array, ""], batch_size: Count) -> Triples:
    """``batch_size`` independent triples: a uniform active user, a uniform item of theirs, a uniform other item.

    The negative has the distribution of "draw items until one is not a training item" without the loop: with r
    uniform among the user's I - deg_u other items, the r-th of them is found in the sorted row by bisection.

    Raises:
      ConfigError: where there is no user to draw.
    """
    if not data.active_users.shape[0]:
        raise ConfigError(
            "sample_triples: no user has both a training item and an item that is not one, so that there is nothing to "
            "compare; add items or users"
        )
    pattern = data.graph.user_item
    user_key, positive_key, negative_key = jax.random.split(key, 3)
    index = jax.random.randint(user_key, (batch_size,), 0, data.active_users.shape[0])
    users = data.active_users[index]
    start, degree = pattern.indptr[users], pattern.indptr[users + 1] - pattern.indptr[users]
    positives = pattern.cols[start + jax.random.randint(positive_key, (batch_size,), 0, degree)]
    rank = jax.random.randint(negative_key, (batch_size,), 0, pattern.shape[1] - degree)
    return Triples(users, positives, nth_absent(pattern, users, rank))


@checked
def nth_absent(pattern: Graph, rows: Int[Array, " B"], rank: Int[Array, " B"]) -> Int[Array, " B"]:
    """The column of rank ``rank`` (from 0) among those where the pattern's row is empty.

    The p-th column c_p of a row has c_p - p empty columns before it, a non-decreasing sequence: if exactly p of the
    row's columns have c_p - p <= rank, the answer is rank + p.
    """
    start, stop = pattern.indptr[rows], pattern.indptr[rows + 1]

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        before = pattern.cols[jnp.minimum(middle, pattern.num_edges - 1)] - (middle - start) <= rank
        open_ = low < high
        return jnp.where(open_ & before, middle + 1, low), jnp.where(open_ & ~before, middle, high)

    low, _ = jax.lax.fori_loop(0, min(pattern.shape[1], pattern.num_edges).bit_length(), halve, (start, stop))
    return rank + low - start


@checked
def triple_sampler(batch_size: Count) -> Callable[[RecData, Key[Array, ""], Int[Array, ""]], Batch]:
    """A ``sample(data, key, step)`` for :func:`core.learner.with_sampler`."""

    def sample(data: RecData, key: Key[Array, ""], step: Int[Array, ""]) -> Batch:
        key = stream(key, Stream.TRIPLES, step)
        return Batch(data.graph, sample_triples(data, key, batch_size))

    return sample


@checked
def steps_per_epoch(num_interactions: Natural, batch_size: Count) -> int:
    """Steps in which as many triples are drawn as there are training interactions, the last batch a full one."""
    return -(-num_interactions // batch_size)
