"""Sums over a data set, as learners: what is accumulated batch by batch, saved, resumed, sharded and merged.

A stage is a :class:`core.learner.Learner` whose state is a running :class:`Sums`; :func:`core.fit.fit` drives it, so
that a killed pass goes on where it stopped and ends in the same bits, and several devices give the sums of one.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from core.batches import common_length
from core.checks import Count, Natural, checked
from core.errors import ConfigError
from core.learner import DATA_AXIS, Layout, Learner, axis_is_bound
from interp.ekfac.capture import Capture, Record
from interp.ekfac.fisher import Fisher
from interp.likelihoods import Task


class Examples(NamedTuple):
    """A batch: the parameters at which to differentiate, and examples with their place in the data set."""

    params: PyTree
    examples: PyTree
    index: Int[Array, " n"]
    weight: Float[Array, " n"]
    """1 for examples, 0 for padding."""


BATCH_AXES = Examples(None, 0, 0, 0)  # type: ignore[arg-type]
"""What of a batch is shared and what holds examples."""


class Sums(NamedTuple):
    """Sums so far."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    sums: Mapping[str, Any]
    """By block."""
    examples: Float[Array, ""]
    positions: Mapping[str, Float[Array, ""]]
    """By block: places where the map was applied and the mask is 1."""


def stage(zeros: Callable[[], Mapping[str, Any]], statistic: Callable[[Key[Array, ""], Examples], Any]) -> Learner:
    """A learner which adds up ``statistic(key, batch) -> (sums, positions)``; its metric is the number of examples."""

    def init(key, batch: Examples) -> Sums:
        empty = zeros()
        return Sums(jnp.zeros((), jnp.int32), key, empty, jnp.zeros(()), {name: jnp.zeros(()) for name in empty})

    def update(state: Sums, batch: Examples):
        sums, positions = statistic(state.key, batch)
        new = (sums, jnp.sum(batch.weight), positions)
        if axis_is_bound():
            new = jax.lax.psum(new, DATA_AXIS)
        added = jax.tree.map(jnp.add, (state.sums, state.examples, state.positions), new)
        return Sums(state.step + 1, state.key, *added), {"examples": new[1]}

    return Learner(init, update, Layout(BATCH_AXES))


def merge(*states: Sums) -> Sums:
    """The sums over the union of disjoint parts of a data set, e.g. of several hosts.

    Raises:
      ConfigError: where the parts are sums of different things.
    """
    shapes = [jax.tree.map(jnp.shape, state.sums) for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ConfigError("these sums are over different blocks or widths: merge passes of one model and stage only")
    first = states[0]
    total = functools.reduce(
        lambda a, b: jax.tree.map(jnp.add, a, b), [(s.sums, s.examples, s.positions) for s in states]
    )
    return Sums(sum((s.step for s in states[1:]), start=first.step), first.key, *total)


@checked
def sweep(batch_size: Count) -> Callable[[Examples, Any, Int[Array, ""]], Examples]:
    """A ``sample(data, key, step)`` for :func:`core.learner.with_sampler`: the data set in order, once.

    The last batch is filled up with examples of weight 0, and so is every batch after the end.
    """

    def sample(data: Examples, key, step) -> Examples:
        rows = data.index.shape[0]
        place = step * batch_size + jnp.arange(batch_size)
        inside = jnp.minimum(place, rows - 1)
        examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[inside], data.examples)
        weight = jnp.where(place < rows, jnp.asarray(data.weight)[inside], 0.0)
        return Examples(data.params, examples, jnp.asarray(data.index)[inside], weight)

    return sample


@checked
def whole(params: PyTree, examples: PyTree, first: Natural = 0) -> Examples:
    """All of a data set that fits on the device.

    Args:
      params: parameters.
      examples: arrays with one example per row.
      first: number of the first example in a larger set.

    Raises:
      ConfigError: where there are no examples, or the arrays differ in length.
    """
    rows = common_length(examples)
    if rows == 0:
        raise ConfigError("the data set has no examples: pass at least one")
    return Examples(params, examples, first + np.arange(rows), np.ones(rows, np.float32))  # type: ignore[arg-type]


@checked
def steps_of(data: Examples, batch_size: Count) -> int:
    """Batches in one pass."""
    return -(-np.shape(data.index)[0] // batch_size)


def records(
    capture: Capture, task: Task, fisher: Fisher, params: PyTree, examples: PyTree, keys: Any
) -> dict[str, Record]:
    """Inputs [stack, N, K or 1, T, i] and output gradients [stack, N, K, T, o] of all blocks of a batch."""
    axes = {name: Record(1 if any(block.flipped) else None, 1) for name, block in capture.blocks.items()}  # type: ignore[arg-type]

    def one(example, key):
        outputs, pull = capture.run(params, example)
        drawn = fisher(task, key, outputs, example)
        cotangents = jax.tree.map(lambda d, o: d.astype(o.dtype), drawn, outputs)
        found = jax.vmap(pull, out_axes=axes)(cotangents)
        return {
            name: Record(inputs if axes[name].inputs == 1 else inputs[:, None], gradients)
            for name, (inputs, gradients) in found.items()
        }

    return jax.vmap(one, out_axes=1)(examples, keys)
