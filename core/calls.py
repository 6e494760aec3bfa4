"""Compiled calls whose time is measured."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from core.checks import Count, checked
from core.learner import LearnerLike
from core.loop import scan_steps


@checked
def steps_call(learner: LearnerLike, batch: Any, steps: Count) -> Callable[[], Any]:
    """A compiled call of some steps of a learner, from the same state each time; for :func:`core.bench.first_call`."""
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    return functools.partial(jax.jit(scan_steps(learner, steps).update).lower(state, batch).compile(), state, batch)
