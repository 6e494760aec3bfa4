"""Bad input: one clear error each, before the expensive part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import CheckpointError, ConfigError, RelicError
from interp import ekfac
from interp.likelihoods import Likelihood, Task, categorical, gaussian


def net(params, example):
    return jnp.tanh(example["x"] @ params["a"]) @ params["b"]


TASK = Task(net, categorical(lambda example: example["y"]))


def problem(rows=12, hidden=4):
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, hidden)), "b": rng.normal(size=(hidden, 3))}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    data = {"x": jnp.asarray(rng.normal(size=(rows, 3)), jnp.float32), "y": jnp.asarray(np.arange(rows) % 3)}
    return params, data


def fit(task=TASK, params=None, data=None, **options):
    ours = problem()
    return ekfac.fit_curvature(task, params or ours[0], data or ours[1], key=jax.random.key(0), **options)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_nan_in_parameters_is_found_before_a_pass():
    params, _ = problem()
    with pytest.raises(ConfigError, match=r"params\['a'\] has nan at \[0, 0\]"):
        fit(params={**params, "a": params["a"].at[0, 0].set(jnp.nan)})


def hinge() -> Likelihood:
    """A margin loss in place of a log-likelihood, with the other parts of a softmax."""
    softmax = categorical(lambda example: example["y"])
    return softmax._replace(loss=lambda h, e: jnp.sum(jax.nn.relu(1 + h - h[e["y"]])))


def test_a_loss_that_is_no_log_likelihood_is_refused():
    with pytest.raises(ConfigError, match="likelihood"):
        fit(Task(net, hinge()))


def test_a_smoothed_loss_whose_curvature_is_right_but_whose_draws_are_not_is_refused():
    softmax = categorical(lambda example: example["y"])
    wrong = softmax._replace(sample=lambda key, h, e: softmax.sample(key, h, e) + jnp.arange(3.0))
    with pytest.raises(ConfigError, match="likelihood"):
        fit(Task(net, wrong))


def test_no_training_examples_and_no_queries_are_refused(fitted):
    _, data = problem()
    none = jax.tree.map(lambda leaf: leaf[:0], data)
    with pytest.raises(ConfigError, match="no examples"):
        fit(data=none)
    with pytest.raises(ConfigError, match="no examples"):
        ekfac.influence(fitted, none, data)
    with pytest.raises(ConfigError, match="no examples"):
        ekfac.influence(fitted, data, none)


def test_arrays_of_different_lengths_are_refused(fitted):
    _, data = problem()
    with pytest.raises(RelicError, match="5"):
        ekfac.influence(fitted, {**data, "y": data["y"][:5]}, data)


def test_a_measurement_through_another_network_names_the_block_that_differs(fitted):
    _, data = problem()
    with pytest.raises(ConfigError, match=r"block b: absent for queries, \(1, 4, 3\) for training"):
        ekfac.influence(fitted, data, data, measure=lambda p, q: jnp.sum(jnp.tanh(q["x"] @ p["a"])))


def test_a_measurement_that_is_not_one_number_is_refused(fitted):
    _, data = problem()
    with pytest.raises(ConfigError, match="one number per query"):
        ekfac.influence(fitted, data, data, measure=net)


def test_sums_of_another_model_are_refused():
    params, data = problem()
    found = ekfac.capture(net, params, jax.tree.map(lambda leaf: leaf[0], data))
    only = ekfac.capture(net, params, jax.tree.map(lambda leaf: leaf[0], data), "a")
    cover = ekfac.covariance(only, TASK, ekfac.empirical())
    sums = cover.init(jax.random.key(0), ekfac.whole(params, data))
    with pytest.raises(ConfigError, match=r"another model.*lack \['b'\]"):
        ekfac.eigenbasis(found, sums)
    with pytest.raises(ConfigError, match="no examples"):
        ekfac.eigenbasis(only, sums)


def test_factors_kept_for_another_model_are_refused_by_name(tmp_path):
    fit(workdir=tmp_path)
    wider, _ = problem(hidden=5)
    with pytest.raises(CheckpointError, match="belongs to another run: its data"):
        fit(params=wider, workdir=tmp_path)


def test_sums_of_different_blocks_do_not_merge():
    params, data = problem()
    example = jax.tree.map(lambda leaf: leaf[0], data)
    both, one = (
        ekfac.covariance(ekfac.capture(net, params, example, where), TASK, ekfac.empirical()).init(
            jax.random.key(0), ekfac.whole(params, data)
        )
        for where in (None, "a")
    )
    with pytest.raises(ConfigError, match="different blocks"):
        ekfac.merge(both, one)


def test_a_curvature_with_a_zero_eigenvalue_is_refused_without_damping(fitted):
    """The softmax has a direction without curvature: adding the same to all logits."""
    params, data = problem()
    flat = ekfac.fit_curvature(TASK, params, data, key=jax.random.key(0), kind="kfac", fisher=ekfac.exact())
    with pytest.raises(ConfigError, match="eigenvalues that are not positive"):
        ekfac.influence(flat, data, data, damping=ekfac.absolute(0.0))
    assert bool(jnp.isfinite(ekfac.influence(flat, data, data, damping=ekfac.absolute(1e-3))).all())


def test_a_layer_without_any_gradient_is_named():
    params, data = problem()
    dead = {**params, "b": jnp.zeros_like(params["b"])}
    with pytest.raises(ConfigError, match=r"the curvature of a has eigenvalues"):
        ekfac.influence(fit(params=dead), data, data)


def test_the_exact_fisher_of_many_positions_is_refused():
    rng = np.random.default_rng(0)
    params, _ = problem()
    data = {"x": jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32), "y": jnp.zeros((4, 2), jnp.int32)}
    with pytest.raises(ValueError, match=r"use sampled\(\) or empirical\(\)"):
        fit(params=params, data=data, fisher=ekfac.exact())


def test_a_wrong_variance_is_told_apart_from_a_right_one():
    params, data = problem()
    data = {**data, "y": jax.nn.one_hot(data["y"], 3)}
    right = gaussian(lambda example: example["y"], 0.25)
    fit(Task(net, right), data=data)
    with pytest.raises(ConfigError, match="likelihood"):
        fit(Task(net, right._replace(loss=gaussian(lambda example: example["y"]).loss)), params, data)
