"""Stopping by validation: a learner that keeps the parameters which did best on held-out data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from core.checks import Count, checked
from core.learner import Batch, BatchAxes, Layout, Learner, LearnerLike, Metrics, Params, mean_over_devices

Score = Callable[[Params, Batch], Float[Array, " *runs"]]
"""``(params, held-out data) -> score``, the higher the better; one per run where runs are stacked."""


class Stopping(NamedTuple):
    """What :func:`stop_by_validation` carries from round to round."""

    inner: Any
    """The state of the learner itself, at the last step taken."""
    rounds: Int[Array, ""]
    """Rounds trained so far."""
    params: Params
    """The parameters of the best round."""
    best: Float[Array, " *runs"]
    """Their score; minus infinity before the first round."""
    best_round: Int[Array, " *runs"]
    """The best round, counted from 1."""
    scores: Float[Array, " rounds *runs"]
    """The validation curve; NaN where a run had stopped."""
    metrics: Metrics
    """Of the last step taken."""


@checked
def stop_by_validation(
    learner: LearnerLike,
    score: Score,
    *,
    every: Count,
    rounds: Count,
    patience: Count,
    held_out_axes: BatchAxes = None,
) -> Learner:
    """A learner whose update is a round: ``every`` steps, then a measurement on held-out data.

    A run stops once ``patience`` rounds in a row have not beaten its best one. Runs that :func:`replicate_seeds`
    stacked stop each on its own, so that a run's result does not depend on those beside it; when all have stopped, an
    update does nothing. Everything is part of the state, so that an interrupted run resumes exactly.

    Args:
      learner: any learner with ``params`` in its state, stacked runs included.
      score: ``(params, held_out) -> score``, the higher the better: a scalar, or [runs] where ``learner`` stacks runs.
        A mean over the held-out examples, where those are spread over devices.
      every: steps per round.
      rounds: the length of the validation curve that is kept; train for so many updates.
      patience: rounds without a new best after which a run stops.
      held_out_axes: prefix of the held-out data which marks the leaves that hold examples, to be spread over devices.

    Returns:
      A learner of batches ``(data, held_out)`` with state :class:`Stopping`: ``params`` are those of the best round.
      Its metrics are those of the round's last step, and "validation", the best score so far.
    """

    def init(key, batch) -> Stopping:
        data, held_out = batch
        inner = learner.init(key, data)
        shape = jax.eval_shape(score, inner.params, held_out)
        metrics = jax.eval_shape(learner.update, inner, data)[1]
        return Stopping(
            inner=inner,
            rounds=jnp.zeros((), jnp.int32),
            params=jax.tree.map(jnp.array, inner.params),
            best=jnp.full(shape.shape, -jnp.inf, shape.dtype),
            best_round=jnp.zeros(shape.shape, jnp.int32),
            scores=jnp.full((rounds, *shape.shape), jnp.nan, shape.dtype),
            metrics=jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics),
        )

    def train(state: Stopping, batch: Batch) -> Stopping:
        data, held_out = batch
        inner, metrics = jax.lax.scan(lambda inner, _: learner.update(inner, data), state.inner, length=every)
        open_, now = is_open(state, patience), state.rounds + 1
        found = mean_over_devices(score(inner.params, held_out))
        better = open_ & (found > state.best)
        return Stopping(
            inner=inner,
            rounds=now,
            params=jax.tree.map(lambda new, old: _where(better, new, old), inner.params, state.params),
            best=jnp.where(better, found, state.best),
            best_round=jnp.where(better, now, state.best_round),
            scores=state.scores.at[state.rounds].set(jnp.where(open_, found, jnp.nan)),
            metrics=jax.tree.map(lambda m: m[-1], metrics),
        )

    def update(state: Stopping, batch: Batch) -> tuple[Stopping, Metrics]:
        # Under a vmap of this learner both branches are computed; outside, a stopped run costs nothing.
        state = jax.lax.cond(is_open(state, patience).any(), train, lambda state, batch: state, state, batch)
        return state, {**state.metrics, "validation": state.best}

    inner = learner.layout
    examples = None if inner.runs else (inner.examples, held_out_axes)
    return Learner(init, update, Layout(examples, inner.draws, placed=inner.placed, mesh=inner.mesh))


@checked
def is_open(state: Stopping, patience: Count) -> Array:
    """Which runs have not stopped: bool, of the shape of their scores."""
    return state.rounds - state.best_round < patience


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jnp.where(jnp.reshape(condition, condition.shape + (1,) * (new.ndim - condition.ndim)), new, old)
