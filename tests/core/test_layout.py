"""How learners are laid over devices: which share the work, and that the result is that of one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.early_stopping import stop_by_validation
from core.errors import ConfigError
from core.fit import fit
from core.layout import lay_out
from core.learner import accumulate, example_keys, gradient_learner, replicate_seeds, seed_keys, step_key, with_sampler
from core.parallel import data_mesh, data_parallel
from core.sparse import Graph, spmm

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)


def least_squares(batch_axes=0, loss=None, **options):
    def plain(params, key, batch):
        return jnp.mean((batch @ params - 1) ** 2), {}

    return gradient_learner(
        lambda key, batch: jnp.zeros(3), loss or plain, optax.sgd(0.1), batch_axes=batch_axes, **options
    )


def first_rows(count):
    return lambda data, key, step: jnp.roll(data, step, axis=0)[:count]


def on_one_device(learner, data, steps=3, key=None):
    key = jax.random.key(0) if key is None else key
    state, update = learner.init(key, data), jax.jit(learner.update)
    for _ in range(steps):
        state, _ = update(state, data)
    return state.params


@pytest.mark.parametrize(
    ("learner", "rows", "devices"),
    [
        (least_squares(), 24, 4),
        (least_squares(), 22, 2),
        (least_squares(), 21, 1),
        (least_squares(None), 24, 1),
        (with_sampler(least_squares(), first_rows(8)), 24, 4),
        (with_sampler(least_squares(), first_rows(6)), 24, 2),
        (accumulate(least_squares(), 4), 8, 2),
        (with_sampler(accumulate(least_squares(), 4), first_rows(8)), 24, 2),
        (replicate_seeds(least_squares(), 4), 21, 4),
        (replicate_seeds(least_squares(), 6), 24, 4),
        (replicate_seeds(least_squares(), 3), 21, 1),
        (replicate_seeds(replicate_seeds(least_squares(), 2), 2), 21, 2),
    ],
)
def test_as_many_devices_share_the_work_as_can_do_so_equally(learner, rows, devices):
    data = jnp.asarray(X[:rows])
    key = seed_keys(range(learner.layout.runs)) if learner.layout.runs else jax.random.key(0)
    assert lay_out(learner, learner.init(key, data), data).devices == devices
    found = fit(learner, data, key=key, steps=3).state.params
    np.testing.assert_allclose(found, on_one_device(learner, data, key=key), rtol=1e-5, atol=1e-6)


def test_a_graph_within_each_example_is_not_shared_by_devices():
    graph = Graph.from_edges([0, 0, 1, 2], [1, 2, 0, 2], (3, 3))

    def loss(params, key, batch):
        spread = jax.vmap(lambda x: spmm(batch["g"], x[:, None] * params)[:, 0])(batch["x"])
        return jnp.mean((spread - 1) ** 2), {}

    learner = gradient_learner(lambda key, batch: jnp.ones(()), loss, optax.sgd(0.1), batch_axes={"x": 0, "g": None})
    data = {"x": jnp.asarray(X), "g": graph}
    assert lay_out(learner, learner.init(jax.random.key(0), data), data).devices == 4
    found = fit(learner, data, key=jax.random.key(0), steps=3).state.params
    np.testing.assert_allclose(found, on_one_device(learner, data), rtol=1e-5)


def test_noise_drawn_by_an_examples_place_is_the_same_on_any_number_of_devices():
    def loss(params, key, batch):
        noise = jax.vmap(lambda k: jax.random.normal(k, (3,)))(example_keys(key, len(batch)))
        return jnp.mean(((batch + noise) @ params - 1) ** 2), {}

    learner = least_squares(loss=loss, key_of=step_key)
    found = fit(learner, X, key=jax.random.key(0), steps=3).state.params
    np.testing.assert_allclose(found, on_one_device(learner, jnp.asarray(X)), rtol=1e-5)


def test_a_learner_that_states_no_axes_draws_what_one_device_draws():
    def loss(params, key, batch):
        return jnp.mean(((batch + jax.random.normal(key, batch.shape)) @ params - 1) ** 2), {}

    learner = least_squares(None, loss)
    found = fit(learner, X, key=jax.random.key(0), steps=3).state.params
    np.testing.assert_allclose(found, on_one_device(learner, jnp.asarray(X)), rtol=1e-5)


def test_what_lies_on_a_mesh_already_stays_there():
    plain, on_mesh = (with_sampler(learner, first_rows(8)) for learner in both_ways())
    assert on_mesh.layout.placed
    found = fit(on_mesh, X, key=jax.random.key(0), steps=3).state.params
    np.testing.assert_allclose(found, on_one_device(plain, jnp.asarray(X)), rtol=1e-5, atol=1e-6)


def both_ways():
    return least_squares(), data_parallel(least_squares(), data_mesh())


def test_rounds_of_a_sampler_share_what_they_draw_and_not_what_is_held_out():
    learner = stop_by_validation(
        with_sampler(least_squares(), first_rows(8)), lambda params, held_out: -jnp.mean((held_out @ params - 1) ** 2),
        every=2, rounds=3, patience=3,
    )  # fmt: skip
    data = jnp.asarray(X), jnp.asarray(X[:10])
    assert lay_out(learner, learner.init(jax.random.key(0), data), data).devices == 4
    found = fit(learner, data, key=jax.random.key(0), steps=3, chunk=1).state.params
    np.testing.assert_allclose(found, on_one_device(learner, data), rtol=1e-5, atol=1e-6)


def test_a_mark_on_a_leaf_without_that_axis_is_refused():
    with pytest.raises(ConfigError, match="marked as holding examples along axis 0"):
        fit(least_squares(), {"x": X, "scale": np.float32(1)}, key=jax.random.key(0), steps=1)
