import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from core.errors import ConfigError
from core.learner import (
    DATA_AXIS,
    accumulate,
    axis_is_bound,
    gradient_learner,
    map_examples,
    replicate_seeds,
    seed_keys,
    with_ema,
    with_sampler,
)
from core.loop import scan_steps


def noisy_loss(params, key, batch):
    """Least squares on inputs with fresh noise, so that a wrong key shows."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    residual = x @ params["w"] - batch["y"]
    return jnp.mean(residual**2), {"bias": jnp.mean(residual)}


def plain_loss(params, key, batch):
    residual = batch["x"] @ params["w"] - batch["y"]
    return jnp.mean(residual**2), {}


def init_params(key, batch):
    return {"w": jax.random.normal(key, (batch["x"].shape[1],))}


NOISY = gradient_learner(init_params, noisy_loss, optax.adam(0.05))
PLAIN = gradient_learner(init_params, plain_loss, optax.adam(0.05), batch_axes=0)
BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32), "y": jnp.arange(12.0)}


@functools.cache
def noisy_trajectory(steps):
    """Parameters after each step, one dispatch per step."""
    state, seen = NOISY.init(jax.random.key(4), BATCH), []
    update = jax.jit(NOISY.update)
    for _ in range(steps):
        state, _ = update(state, BATCH)
        seen.append(np.asarray(state.params["w"]))
    return np.stack(seen)


@settings(deadline=None, max_examples=6)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_grouping_of_steps_does_not_change_what_they_draw(groups):
    state = NOISY.init(jax.random.key(4), BATCH)
    for k in groups:
        state, _ = jax.jit(scan_steps(NOISY, k).update)(state, BATCH)
    np.testing.assert_allclose(state.params["w"], noisy_trajectory(9)[sum(groups) - 1], rtol=1e-5)


def test_stacked_batches_are_consumed_one_per_step():
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), BATCH)
    state, metrics = jax.jit(scan_steps(PLAIN, 2, stacked=True).update)(PLAIN.init(jax.random.key(0), BATCH), batches)
    expected = PLAIN.init(jax.random.key(0), BATCH)
    for i in range(2):
        expected, _ = PLAIN.update(expected, jax.tree.map(lambda leaf, i=i: leaf[i], batches))
    np.testing.assert_allclose(state.params["w"], expected.params["w"], rtol=1e-6)
    assert metrics["loss"].shape == (2,)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_accumulated_gradient_is_the_gradient_of_the_whole_batch(n):
    state = PLAIN.init(jax.random.key(0), BATCH)
    whole, metrics = PLAIN.gradients(state, BATCH)
    parts, part_metrics = jax.jit(accumulate(PLAIN, n).gradients)(state, BATCH)
    np.testing.assert_allclose(parts["w"], whole["w"], rtol=1e-5)
    np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-6)


def test_accumulation_leaves_shared_leaves_whole():
    batch = {**BATCH, "shift": jnp.arange(3.0)}
    axes = {"x": 0, "y": 0, "shift": None}

    def loss(params, key, batch):
        return plain_loss(params, key, {"x": batch["x"] + batch["shift"], "y": batch["y"]})

    learner = gradient_learner(init_params, loss, optax.sgd(0.1))
    state = learner.init(jax.random.key(0), batch)
    np.testing.assert_allclose(
        accumulate(learner, 4, axes).gradients(state, batch)[0]["w"], learner.gradients(state, batch)[0]["w"], rtol=1e-5
    )


def test_every_microbatch_draws_its_own_noise():
    def loss(params, key, batch):
        noise = jax.random.normal(key)
        return jnp.sum(params["w"]) * 0.0, {"square": noise**2, "noise": noise}

    learner = accumulate(gradient_learner(init_params, loss, optax.sgd(0.1)), 4)
    _, metrics = learner.update(learner.init(jax.random.key(0), BATCH), BATCH)
    assert metrics["square"] > metrics["noise"] ** 2 + 1e-3


def test_ema_is_the_debiased_weighted_mean_of_the_parameters():
    decay, learner = 0.7, with_ema(NOISY, 0.7)
    state = learner.init(jax.random.key(4), BATCH)
    for _ in range(5):
        state, _ = learner.update(state, BATCH)
    weights = (1 - decay) * decay ** np.arange(5)[::-1] / (1 - decay**5)
    np.testing.assert_allclose(state.ema["w"], weights @ noisy_trajectory(5), rtol=1e-5)
    np.testing.assert_allclose(state.params["w"], noisy_trajectory(5)[-1], rtol=1e-6)
    assert int(state.step) == 5


def draw(data, key, step):
    index = jax.random.randint(jax.random.fold_in(key, step), (4,), 0, 12)
    return jax.tree.map(lambda leaf: leaf[index], data)


def test_vmapped_seeds_with_their_own_samplers_equal_single_runs():
    learner = scan_steps(with_sampler(NOISY, draw), 3)
    many = replicate_seeds(learner, 3)
    state, metrics = jax.jit(many.update)(many.init(seed_keys([5, 6, 7]), BATCH), BATCH)
    for i, seed in enumerate([5, 6, 7]):
        single, single_metrics = jax.jit(learner.update)(learner.init(jax.random.key(seed), BATCH), BATCH)
        np.testing.assert_allclose(state.params["w"][i], single.params["w"], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"][i], single_metrics["loss"], rtol=1e-5)


def test_one_key_gives_replicas_distinct_runs():
    many = replicate_seeds(NOISY, 3)
    w = many.init(jax.random.key(0), BATCH).params["w"]
    assert len(np.unique(w[:, 0])) == 3


def test_replicas_of_a_bound_axis_share_the_drawn_batch_and_average_gradients():
    learner = with_sampler(PLAIN, draw)
    state = learner.init(jax.random.key(0), BATCH)
    expected, metrics = learner.update(state, BATCH)
    replicas, replica_metrics = jax.vmap(learner.update, in_axes=(None, None), axis_name=DATA_AXIS, axis_size=2)(
        state, BATCH
    )
    np.testing.assert_allclose(replicas.params["w"][1], expected.params["w"], rtol=1e-5)
    np.testing.assert_allclose(replica_metrics["loss"], [metrics["loss"]] * 2, rtol=1e-6)


def test_a_batch_that_replicas_cannot_share_equally_is_refused():
    learner = with_sampler(PLAIN, draw)
    state = learner.init(jax.random.key(0), BATCH)
    with pytest.raises(ConfigError, match="multiple of 3"):
        jax.vmap(learner.update, in_axes=(None, None), axis_name=DATA_AXIS, axis_size=3)(state, BATCH)


def test_axis_is_bound_only_inside():
    assert not axis_is_bound()
    assert jax.vmap(lambda x: x + axis_is_bound(), axis_name=DATA_AXIS)(jnp.zeros(2)).all()


def test_map_examples_spares_shared_leaves():
    batch = ({"a": jnp.zeros(2), "b": jnp.zeros(3)}, jnp.zeros(4))
    shapes = map_examples(lambda leaf: leaf[:1], batch, ({"a": None, "b": 0}, 0))
    assert jax.tree.map(jnp.shape, shapes) == ({"a": (2,), "b": (1,)}, (1,))


@pytest.mark.parametrize("at_once", [1, 2])
def test_runs_in_turn_equal_vmapped_runs(at_once):
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 3 * leaf]), BATCH)
    ends = []
    for number in (None, at_once):
        learner = replicate_seeds(NOISY, 3, 0, number)
        ends.append(jax.jit(scan_steps(learner, 2).update)(learner.init(jax.random.key(1), batch), batch)[0].params)
    np.testing.assert_allclose(ends[1]["w"], ends[0]["w"], rtol=1e-5)


def test_passes_over_leaves_without_columns():
    def loss(params, key, batch):
        return jnp.mean((batch["x"] - params) ** 2), {}

    learner = gradient_learner(lambda key, batch: jnp.zeros(()), loss, optax.sgd(0.1), batch_axes=0)
    batch = {"x": jnp.arange(4.0), "none": jnp.zeros((4, 0))}
    state = learner.init(jax.random.key(0), batch)
    plain, passes = (made.update(state, batch)[0].params for made in (learner, accumulate(learner, 2)))
    assert abs(float(plain - passes)) < 1e-6
