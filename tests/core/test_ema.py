"""The moving average of parameters, beside its definition in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import ConfigError
from core.learner import Learner, State, ema_weight, replicate_seeds, seed_keys, with_ema

DECAYS = (0.0, 1e-9, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999)
LENGTH = 100_000


@pytest.mark.parametrize("decay", DECAYS)
def test_weights_of_the_average_are_right_for_any_decay_and_step(decay):
    steps = np.unique(np.concatenate([np.arange(1, 2000), np.geomspace(1, 1e6, 2000), np.geomspace(1e6, 2e9, 50)]))
    steps = steps.astype(np.int64)
    found = jax.jit(lambda step: ema_weight(decay, step))(jnp.asarray(steps, jnp.int32))
    expected = (1 - decay) / -np.expm1(steps * np.log(decay)) if decay else np.ones(len(steps))
    np.testing.assert_allclose(found, expected, rtol=4e-7)
    assert found[0] == 1.0


def path(t, xp):
    """Parameters after step t: one that wanders, one that rises, one that hardly moves beside its size."""
    u = t / LENGTH
    return xp.stack([xp.sin(40 * u) + 0.3, u, 1000 + xp.cos(7 * u)])


def walker():
    """A learner whose parameters follow the path, whatever the batch."""

    def init(key, batch):
        return State(jnp.zeros((), jnp.int32), key, jnp.full(3, 1e6), ())

    def update(state, batch):
        step = state.step + 1
        return state._replace(step=step, params=path(step.astype(jnp.float32), jnp)), {}

    return Learner(init, update)


@pytest.mark.parametrize("decay", [0.9, 0.9999, 0.999999, 0.9999999])
def test_the_average_is_that_of_its_definition_after_many_steps(decay, full_compilation):
    learner = with_ema(walker(), decay)

    def step(state, _):
        state = learner.update(state, None)[0]
        return state, state.ema

    start = learner.init(jax.random.key(0), None)
    _, found = jax.jit(lambda state: jax.lax.scan(step, state, length=LENGTH))(start)
    values = path(np.arange(1, LENGTH + 1, dtype=np.float32).astype(np.float64), np).T
    moment, expected = np.zeros(3), np.empty((LENGTH, 3))
    for t, value in enumerate(values):
        moment = decay * moment + (1 - decay) * value
        expected[t] = moment / -np.expm1((t + 1) * np.log(decay))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=3e-6)  # the path itself is rounded
    np.testing.assert_array_equal(found[0], path(jnp.float32(1), jnp))


def test_pools_of_runs_have_an_average_each():
    def init(key, batch):
        return State(jnp.zeros((), jnp.int32), key, jax.random.normal(key, (2, 3)), ())

    runs = Learner(init, lambda s, b: (s._replace(step=s.step + 1, params=s.params + 1), {}))
    pool = with_ema(replicate_seeds(runs, 2), 0.5)
    state = pool.init(seed_keys([0, 1]), None)
    for _ in range(3):
        state, _ = pool.update(state, None)
    single = with_ema(runs, 0.5)
    alone = single.init(jax.random.key(1), None)
    for _ in range(3):
        alone, _ = single.update(alone, None)
    np.testing.assert_array_equal(state.ema[1], alone.ema)


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, float("nan"), "0.9", None])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ConfigError, match="with_ema: decay must be a number"):
        with_ema(walker(), decay)
