"""Regressions of Y on arrays, trained in one call: networks in the place of step 2's ridge, and what needs no codes."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from causal.rep4ex.baselines import (
    Rows,
    engression_learner,
    engression_mean,
    linear,
    network,
    regression_learner,
)
from causal.rep4ex.control import (
    Additive,
    additive_ridge,
    first_stage,
    interventional,
    kernel_ridge,
    network_outcome,
    networks_learner,
    polynomial,
)
from causal.rep4ex.instruments import overidentification, two_stage
from causal.rep4ex.second_step import Answers, Ridge, SecondStep, wide
from core.batches import epoch_sampler
from core.checks import Count, Positive, checked
from core.learner import GradientLearner, Params, with_sampler
from core.loop import scan_steps

Inputs = Float[np.ndarray, "n p"]
Outcome = Float[np.ndarray, " n"]
Predict = Callable[[Float[np.ndarray, "j p"]], Answers]


@checked
@dataclasses.dataclass(frozen=True)
class Descent:
    """How a network that regresses Y is trained: Adam, its rate falling along a cosine, on epochs of batches."""

    steps: Count = 2_000
    batch: Count = 512
    learning_rate: Positive = 1e-3

    def train(self, learner: Callable[[optax.GradientTransformation], GradientLearner], rows: Any) -> Params:
        """The parameters after all steps on rows that have a field ``y``."""
        tx = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        sampled = with_sampler(learner(tx), epoch_sampler(min(self.batch, len(rows.y))))
        state = sampled.init(jax.random.key(0), rows)
        return jax.jit(scan_steps(sampled, self.steps).update)(state, rows)[0].params


def _standardiser(inputs: Inputs) -> Callable[[np.ndarray], jax.Array]:
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    return lambda x: jnp.asarray((x - centre) / scale, jnp.float32)


def fit_linear(inputs: Inputs, y: Outcome) -> Predict:
    """Least squares of y on (1, inputs): a function of other inputs."""
    standard = _standardiser(inputs)
    rows = Rows(standard(inputs), jnp.asarray(y - y.mean(), jnp.float32))
    return lambda new: np.asarray(linear(rows, standard(new))) + y.mean()


def fit_network(inputs: Inputs, y: Outcome, descent: Descent) -> Predict:
    """A network that regresses y on the inputs: a function of other inputs."""
    standard = _standardiser(inputs)
    params = descent.train(regression_learner, Rows(standard(inputs), jnp.asarray(y - y.mean(), jnp.float32)))
    return lambda new: np.asarray(network(params, standard(new))) + y.mean()


def fit_engression(inputs: Inputs, y: Outcome, descent: Descent) -> Predict:
    """The mean of y by engression: a function of other inputs."""
    standard, mean, sd = _standardiser(inputs), y.mean(), y.std()
    params = descent.train(engression_learner, Rows(standard(inputs), jnp.asarray((y - mean) / sd, jnp.float32)))
    return lambda new: np.asarray(engression_mean(params, jax.random.key(1), standard(new))) * sd + mean


def networks_effect(step: SecondStep, actions: Float[np.ndarray, "j k"], descent: Descent) -> Answers:
    """E[Y | do(A = a)] with nu and psi as two networks that are trained together."""
    w, a, y = (jnp.asarray(part, jnp.float32) for part in (step.w, step.a, step.y))
    stage = first_stage(w, a)
    params = descent.train(networks_learner, Additive(stage.codes(w), stage.noise(), y - y.mean()))
    outcome = network_outcome(params, stage, w, y)
    return np.asarray(interventional(stage, outcome, jnp.asarray(actions, jnp.float32)))


def other_effects(step: SecondStep, actions: Float[np.ndarray, "j k"]) -> dict[str, Answers]:
    """E[Y | do(A = a)] from the same codes by other regressions in closed form, in float64, by their names.

    Cubic polynomials, a kernel ridge on the first 1,000 rows with the step's length-scale and ridge, and two-stage
    least squares on linear and on cubic terms.
    """
    rows = step.w, step.a, step.y
    few = (part[:1_000] for part in rows)
    with jax.enable_x64(True):
        found = _other_effects(step.settings, *wide(*rows, *few, actions))
        return {name: np.asarray(value) for name, value in found.items()}


@partial(jax.jit, static_argnums=0)
def _other_effects(settings: Ridge, w, a, y, few_w, few_a, few_y, actions):
    stage, few, cubic = first_stage(w, a), first_stage(few_w, few_a), polynomial(3)
    fitted = {
        "polynomial ridge": (stage, additive_ridge(stage, w, y, cubic, cubic, settings.ridge)),
        "kernel ridge, 1,000 rows": (few, kernel_ridge(few, few_w, few_y, settings.length, settings.ridge)),
        "2SLS on phi(X), linear": (stage, two_stage(stage, w, a, y, 1)),
        "2SLS on phi(X), cubic": (stage, two_stage(stage, w, a, y, 3)),
    }
    return {name: interventional(*each, actions) for name, each in fitted.items()}


def overidentification_p(w: Float[np.ndarray, "n d"], a: Inputs, y: Outcome) -> float:
    """The p-value of :func:`overidentification` with linear l, in float64."""
    with jax.enable_x64(True):
        return float(_overidentification_p(*wide(w, a, y)))


@jax.jit
def _overidentification_p(w, a, y):
    return overidentification(first_stage(w, a), w, a, y).p
