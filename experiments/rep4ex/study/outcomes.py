"""Step 2 of ``rep4ex`` on given codes, and the regressions that do without a representation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import rep4ex as rep
from core.batches import epoch_sampler
from core.learner import with_sampler
from core.loop import scan_steps
from experiments.rep4ex.config import Config


def second_step(config: Config, w: np.ndarray, a: np.ndarray, y: np.ndarray) -> rep.SecondStep:
    """Step 2 as it is done where nothing else is said."""
    step = rep.SecondStep(w, a, y, rep.Ridge(config.features, config.length, config.ridge))
    step.check()
    return step


def uncontrolled(step: rep.SecondStep) -> rep.SecondStep:
    """Without the control function."""
    return dataclasses.replace(step, settings=dataclasses.replace(step.settings, control=False))


@jax.jit
def _overidentified(w, a, y):
    return rep.overidentification(rep.first_stage(w, a), w, a, y).p


def overidentified(w: np.ndarray, a: np.ndarray, y: np.ndarray) -> float:
    """The p-value of more actions than codes."""
    with jax.enable_x64(True):
        return float(_overidentified(*rep.wide(w, a, y)))


def alternatives(config: Config, step: rep.SecondStep, actions: np.ndarray) -> dict[str, np.ndarray]:
    """E[Y | do(A = a)] from the same codes by the other regressions of step 2."""
    rows = step.w, step.a, step.y
    few = (part[:1_000] for part in rows)
    with jax.enable_x64(True):
        found = _alternatives(config, *rep.wide(*rows, *few, actions))
        by_name = {name: np.asarray(value) for name, value in found.items()}
    return by_name | {"two networks": networks(config, step, actions)}


@functools.partial(jax.jit, static_argnums=0)
def _alternatives(config: Config, w, a, y, few_w, few_a, few_y, actions):
    stage, few = rep.first_stage(w, a), rep.first_stage(few_w, few_a)
    cubic = rep.polynomial(3)
    fitted = {
        "polynomial ridge": (stage, rep.additive_ridge(stage, w, y, cubic, cubic, config.ridge)),
        "kernel ridge, 1,000 rows": (few, rep.kernel_ridge(few, few_w, few_y, config.length, config.ridge)),
        "2SLS on phi(X), linear": (stage, rep.two_stage(stage, w, a, y, 1)),
        "2SLS on phi(X), cubic": (stage, rep.two_stage(stage, w, a, y, 3)),
    }
    return {name: rep.interventional(*each, actions) for name, each in fitted.items()}


def networks(config: Config, step: rep.SecondStep, actions: np.ndarray) -> np.ndarray:
    """Nu and psi as two networks."""
    w, a, y = (jnp.asarray(part, jnp.float32) for part in (step.w, step.a, step.y))
    stage = rep.first_stage(w, a)
    batch = rep.Additive(stage.codes(w), stage.noise(), y - y.mean())
    params = fitted(rep.networks_learner(optimiser(config)), batch, config)
    outcome = rep.network_outcome(params, stage, w, y)
    return np.asarray(rep.interventional(stage, outcome, jnp.asarray(actions, jnp.float32)))


def optimiser(config: Config) -> optax.GradientTransformation:
    """Of the regressions of Y."""
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.network_steps))


def fitted(learner: Any, rows: Any, config: Config) -> Any:
    """Parameters after the regressions' steps."""
    sampled = with_sampler(learner, epoch_sampler(min(config.batch, len(rows.y))))
    state = sampled.init(jax.random.key(0), rows)
    return jax.jit(scan_steps(sampled, config.network_steps).update)(state, rows)[0].params


def direct(config: Config, inputs: np.ndarray, y: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Regressions of Y on inputs, by name: functions of other inputs."""
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    rows = rep.Rows(standard(inputs, centre, scale), jnp.asarray(y - y.mean(), jnp.float32))
    net = fitted(rep.regression_learner(optimiser(config)), rows, config)
    return {
        "OLS": lambda new: np.asarray(rep.linear(rows, standard(new, centre, scale))) + y.mean(),
        "MLP": lambda new: np.asarray(rep.network(net, standard(new, centre, scale))) + y.mean(),
    }


def engression(config: Config, a: np.ndarray, y: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The mean that engression predicts."""
    centre, scale = a.mean(axis=0), a.std(axis=0)
    rows = rep.Rows(standard(a, centre, scale), jnp.asarray((y - y.mean()) / y.std(), jnp.float32))
    params = fitted(rep.engression_learner(optimiser(config)), rows, config)
    found = rep.engression_mean(params, jax.random.key(1), standard(actions, centre, scale))
    return np.asarray(found) * y.std() + y.mean()


def standard(x: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> jax.Array:
    """In deviations of the training rows."""
    return jnp.asarray((x - centre) / scale, jnp.float32)
