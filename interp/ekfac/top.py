"""The best training examples per query out of a stream: memory does not grow with the number of examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, checked
from core.learner import DATA_AXIS, Layout, Learner, axis_is_bound
from interp.ekfac.stages import BATCH_AXES, Examples

NOBODY = -1
"""The id that stands where fewer than k examples have been seen."""


class Top(NamedTuple):
    """The k highest and k lowest scores of every query so far, best first."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    highest: Float[Array, "query k"]
    highest_ids: Int[Array, "query k"]
    lowest: Float[Array, "query k"]
    lowest_ids: Int[Array, "query k"]


@checked
def top(k: Count, queries: Count, scores: Callable[[Any, Any], Float[Array, "query example"]]) -> Learner:
    """A learner which keeps the k highest and lowest scores per query; equal scores by lower id.

    Args:
      k: how many.
      queries: number of queries.
      scores: ``(batch.params, batch.examples) -> scores`` of a batch.
    """

    def init(key, batch: Examples) -> Top:
        nobody = jnp.full((queries, k), NOBODY, jnp.int32)
        worst = jnp.full((queries, k), jnp.inf, jnp.float32)
        return Top(jnp.zeros((), jnp.int32), key, -worst, nobody, worst, nobody)

    def update(state: Top, batch: Examples):
        values = scores(batch.params, batch.examples)
        ids, is_real = batch.index.astype(jnp.int32), batch.weight > 0
        if axis_is_bound():
            values = jax.lax.all_gather(values, DATA_AXIS, axis=1, tiled=True)
            ids, is_real = (jax.lax.all_gather(x, DATA_AXIS, tiled=True) for x in (ids, is_real))
        ids = jnp.where(is_real, ids, NOBODY)
        high = _best(state.highest, state.highest_ids, jnp.where(is_real, values, -jnp.inf), ids, k)
        low = _best(-state.lowest, state.lowest_ids, jnp.where(is_real, -values, -jnp.inf), ids, k)
        count = jnp.sum(is_real).astype(jnp.float32)
        return Top(state.step + 1, state.key, *high, -low[0], low[1]), {"examples": count}

    return Learner(init, update, Layout(BATCH_AXES))


def merge_tops(a: Top, b: Top) -> Top:
    """The best of two disjoint parts of a data set."""
    k = a.highest.shape[1]
    high = _best(a.highest, a.highest_ids, b.highest, b.highest_ids, k)
    low = _best(-a.lowest, a.lowest_ids, -b.lowest, b.lowest_ids, k)
    return Top(a.step + b.step, a.key, *high, -low[0], low[1])


def _best(values: Array, ids: Array, new: Array, new_ids: Array, k: int) -> tuple[Array, Array]:
    values = jnp.concatenate([values, new], axis=1)
    ids = jnp.concatenate([ids, jnp.broadcast_to(new_ids, new.shape)], axis=1)
    order = jnp.lexsort((ids, -values), axis=1)[:, :k]
    return jnp.take_along_axis(values, order, axis=1), jnp.take_along_axis(ids, order, axis=1)
