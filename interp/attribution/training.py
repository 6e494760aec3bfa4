"""Training for attribution: on all weighted examples as pure functions, once and again on parts; and on batches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from core.batches import epoch_sampler
from core.checks import Count, checked
from core.learner import Learner, gradient_learner, with_sampler
from interp.likelihoods import Task

RATE = 3e-3
"""Of Adam at the start; a cosine brings it down to a tenth."""
Init = Callable[[Array], PyTree]
"""``key -> params``; the same function for the same network, so that training compiles once."""


@checked
def checkpoints(
    task: Task, init: Init, steps: Count, train: PyTree, key: Key[Array, ""], count: Count = 4
) -> tuple[PyTree, ...]:
    """Parameters at so many points along the training on all examples, the last of them at its end."""
    state, found = _start(init, steps, key), []
    weights = jnp.ones(len(jax.tree.leaves(train)[0]))
    for _ in range(count):
        state = _descend(task, steps, steps // count, train, weights, state)
        found.append(state[0])
    return tuple(found)


@checked
def retraining(
    task: Task, init: Init, steps: Count, train: PyTree
) -> Callable[[Array, Float[Array, " example"]], PyTree]:
    """``(key, weights) -> params``: training from scratch on weighted examples, as a pure function."""
    return lambda key, weights: _descend(task, steps, steps, train, weights, _start(init, steps, key))[0]


@checked
def batch_learner(task: Task, init: Init, steps: Count, batch_size: Count) -> Learner:
    """The learner of a task on batches drawn from arrays: AdamW with a warm-up and a cosine schedule."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, max(1, steps // 20), steps)

    def loss(params, key, batch):
        del key
        return jnp.mean(jax.vmap(lambda e: task.loss(params, e))(batch)), {}

    tx = optax.adamw(schedule, weight_decay=1e-2)
    learner = gradient_learner(lambda key, batch: init(key), loss, tx, batch_axes=0)
    return with_sampler(learner, epoch_sampler(batch_size))


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(RATE, steps, alpha=0.1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(init: Init, steps: int, key: Array):
    params = init(key)
    return params, _optimizer(steps).init(params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _descend(task: Task, steps: int, taken: int, train: PyTree, weights: Array, state: Any):
    """So many steps down the weighted loss of all examples."""

    def loss(params):
        each = jax.vmap(lambda e: task.loss(params, e))(train)
        return jnp.sum(weights * each) / jnp.sum(weights)

    def step(_, state):
        params, opt_state = state
        updates, opt_state = _optimizer(steps).update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    return jax.lax.fori_loop(0, taken, step, state)
