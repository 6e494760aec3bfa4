"""Stopping by validation keeps the best parameters, run by run, and takes no step after its patience is over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.early_stopping import is_open, stop_by_validation
from core.fit import fit
from core.learner import gradient_learner, replicate_seeds, seed_keys

EVERY, ROUNDS, PATIENCE = 2, 12, 3


def counter():
    """A learner whose parameter is the number of its steps: the loss falls by one per step."""

    def init(key, batch):
        return {"steps": jnp.zeros(())}

    return gradient_learner(init, lambda params, key, batch: (-params["steps"] * batch, {}), optax.sgd(1.0))


def nearness(params, peaks):
    """The score: best at a number of steps."""
    return -jnp.abs(params["steps"] - peaks)


def trained(peaks, rounds=ROUNDS):
    peaks = jnp.asarray(peaks, jnp.float32)
    learner, key = counter(), jax.random.key(0)
    if peaks.ndim:
        learner, key = replicate_seeds(learner, len(peaks)), seed_keys(range(len(peaks)))
    stopping = stop_by_validation(learner, nearness, every=EVERY, rounds=ROUNDS, patience=PATIENCE)
    batch = (jnp.ones(()), peaks)
    state = stopping.init(key, batch)
    update = jax.jit(stopping.update)
    for _ in range(rounds):
        state, metrics = update(state, batch)
    return state, metrics


def test_the_parameters_of_the_best_round_are_kept_and_training_stops_after_the_patience():
    state, metrics = trained(7.0)
    assert float(state.params["steps"]) == 6.0  # 6 and 8 steps are as near; the first counts
    assert int(state.best_round) == 3
    assert float(state.inner.params["steps"]) == (3 + PATIENCE) * EVERY
    assert int(state.rounds) == 3 + PATIENCE
    assert not bool(is_open(state, PATIENCE))
    np.testing.assert_array_equal(state.scores[: int(state.rounds)], [-5, -3, -1, -1, -3, -5])
    assert np.isnan(state.scores[int(state.rounds) :]).all()
    assert float(metrics["validation"]) == -1.0


def test_a_run_that_still_improves_stays_open_to_the_end():
    state, _ = trained(100.0)
    assert float(state.params["steps"]) == ROUNDS * EVERY
    assert bool(is_open(state, PATIENCE))


def test_stacked_runs_stop_each_as_if_it_were_alone():
    peaks = [4.0, 16.0]
    together, _ = trained(peaks)
    for index, peak in enumerate(peaks):
        alone, _ = trained(peak)
        assert float(together.params["steps"][index]) == float(alone.params["steps"])
        assert int(together.best_round[index]) == int(alone.best_round)
        np.testing.assert_array_equal(together.scores[:, index], alone.scores)


def test_a_run_that_stopped_takes_no_later_peak():
    def two_peaks(params, peaks):
        steps = params["steps"]
        return jnp.where(steps > 14, 10.0 + peaks, -jnp.abs(steps - peaks))

    learner = replicate_seeds(counter(), 2)
    stopping = stop_by_validation(learner, two_peaks, every=EVERY, rounds=ROUNDS, patience=PATIENCE)
    batch = (jnp.ones(()), jnp.array([4.0, 14.0]))
    state = stopping.init(seed_keys([0, 1]), batch)
    for _ in range(ROUNDS):
        state, _ = stopping.update(state, batch)
    assert state.best_round.tolist()[0] == 2
    assert state.params["steps"].tolist() == [4.0, 16.0]


def test_fit_resumes_a_run_that_stops_by_validation(tmp_path):
    stopping = stop_by_validation(counter(), nearness, every=EVERY, rounds=8, patience=PATIENCE)
    batch = (jnp.ones(()), jnp.float32(5.0))
    options = {"key": jax.random.key(0), "chunk": 1, "workdir": tmp_path}
    fit(stopping, batch, steps=2, **options)
    resumed = fit(stopping, batch, steps=8, **options).state
    straight, _ = trained(5.0, rounds=8)
    assert float(resumed.params["steps"]) == float(straight.params["steps"])
    np.testing.assert_array_equal(resumed.scores[:8], straight.scores[:8])
