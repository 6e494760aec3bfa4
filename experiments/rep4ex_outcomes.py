"""Step 2 of ``rep4ex`` on given codes, and the regressions that do without a representation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import rep4ex as rep
from core.batches import epoch_sampler
from core.learner import with_sampler
from core.loop import scan_steps
from experiments.rep4ex_settings import Config


class Data(NamedTuple):
    """Codes (or latents), actions and outcomes of the training rows."""

    w: np.ndarray
    a: np.ndarray
    y: np.ndarray


def basis(config: Config, d: int) -> rep.Basis:
    """The default features of nu and psi."""
    return rep.random_fourier(jax.random.key(0), d, config.features, config.length)


def ridge_outcome(config: Config, stage: rep.Stage, w, y, control: bool = True) -> rep.Outcome:
    """The default regression; without the control function where that is asked for."""
    made = basis(config, w.shape[1])
    return rep.additive_ridge(stage, w, y, made, made if control else rep.NOTHING, config.ridge)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _interventional(config: Config, control: bool, w, a, y, actions):
    stage = rep.first_stage(w, a)
    return rep.interventional(stage, ridge_outcome(config, stage, w, y, control), actions)


def interventional(config: Config, data: Data, actions: np.ndarray, control: bool = True) -> np.ndarray:
    """E[Y | do(A = a)] by the random-Fourier ridge, in float64."""
    rep.check_second_stage(*data)
    with jax.enable_x64(True):
        found = _interventional(config, control, *wide(*data), *wide(padded(actions, config.actions)))
        return np.asarray(found)[: len(actions)]


def padded(actions: np.ndarray, count: int) -> np.ndarray:
    """With rows of 0 up to a count, so that one program serves any number of actions."""
    return np.pad(actions, ((0, max(0, count - len(actions))), (0, 0)))


def wide(*parts: Any):
    """In float64, under ``jax.enable_x64``."""
    return tuple(jnp.asarray(part, jnp.float64) for part in parts)


@functools.partial(jax.jit, static_argnums=0)
def _conditional(config: Config, w, a, y, codes, actions):
    stage = rep.first_stage(w, a)
    return rep.conditional(stage, ridge_outcome(config, stage, w, y), codes, actions)


def conditional(config: Config, data: Data, codes: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """E[Y | X, do(A = a)] row by row."""
    with jax.enable_x64(True):
        return np.asarray(_conditional(config, *wide(*data), *wide(codes, actions)))


@functools.partial(jax.jit, static_argnums=0)
def _interval(config: Config, w, a, y, actions):
    def estimate(w, a, y):
        stage = rep.first_stage(w, a)
        return rep.interventional(stage, ridge_outcome(config, stage, w, y), actions)

    return rep.bootstrap(jax.random.key(1), estimate, (w, a, y), config.bootstrap).interval()


def interval(config: Config, data: Data, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of E[Y | do(A = a)] by the bootstrap of step 2."""
    with jax.enable_x64(True):
        low, high = _interval(config, *wide(*data), *wide(actions))
        return np.asarray(low), np.asarray(high)


@jax.jit
def _support(w, a, actions):
    return rep.outside_support(rep.first_stage(w, a), w, actions)


@jax.jit
def _strength(w, a):
    return rep.strength(rep.first_stage(w, a), a)


def support(data: Data, actions: np.ndarray) -> np.ndarray:
    """The share of points outside of the training support, by action."""
    with jax.enable_x64(True):
        return np.asarray(_support(*wide(data.w, data.a, actions)))


def strength(w: np.ndarray, a: np.ndarray) -> rep.Strength:
    """The first stage's report."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _strength(*wide(w, a)))


@jax.jit
def _overidentified(w, a, y):
    return rep.overidentification(rep.first_stage(w, a), w, a, y).p


def overidentified(data: Data) -> float:
    """The p-value of more actions than codes."""
    with jax.enable_x64(True):
        return float(_overidentified(*wide(*data)))


def alternatives(config: Config, data: Data, actions: np.ndarray) -> dict[str, np.ndarray]:
    """E[Y | do(A = a)] from the same codes by the other regressions of step 2."""
    few = Data(*(part[:1_000] for part in data))
    with jax.enable_x64(True):
        found = _alternatives(config, *wide(*data), *wide(*few), *wide(actions))
        by_name = {name: np.asarray(value) for name, value in found.items()}
    return by_name | {"two networks": networks(config, data, actions)}


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


def networks(config: Config, data: Data, actions: np.ndarray) -> np.ndarray:
    """Nu and psi as two networks."""
    w, a, y = (jnp.asarray(part, jnp.float32) for part in data)
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
