"""EK-FAC as an optax transform."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from interp import ekfac
from interp.likelihoods import Task, categorical, gaussian


def regression(rows=40):
    """Least squares: its Hessian is E[x x^T] (x) I, a Kronecker product."""
    rng = np.random.default_rng(0)
    data = {"x": jnp.asarray(rng.normal(size=(rows, 4))), "y": jnp.asarray(rng.normal(size=(rows, 3)))}
    task = Task(lambda p, e: e["x"] @ p["w"] + p["b"], gaussian(lambda e: e["y"]))
    return task, {"w": jnp.asarray(rng.normal(size=(4, 3))), "b": jnp.zeros(3)}, data


def mean_loss(task, params, data):
    return jnp.mean(jax.vmap(task.loss, (None, 0))(params, data))


def transform(task, params, data, fisher, damping, **options):
    found = ekfac.capture(task.outputs, params, jax.tree.map(lambda leaf: leaf[0], data))
    return ekfac.ekfac_precondition(found, task, fisher, damping, **options)


def test_one_step_reaches_the_optimum_of_a_quadratic_with_kronecker_hessian(record_property):
    with jax.enable_x64():
        task, params, data = regression()
        tx = optax.chain(transform(task, params, data, ekfac.exact(), ekfac.absolute(1e-12)), optax.scale(-1.0))

        @jax.jit
        def step(params, state):
            gradient = jax.grad(lambda p: mean_loss(task, p, data))(params)
            updates, state = tx.update(gradient, state, params, examples=data, key=jax.random.key(0))
            return optax.apply_updates(params, updates), state

        reached, _ = step(params, tx.init(params))
        inputs = np.concatenate([np.asarray(data["x"]), np.ones((40, 1))], axis=1)
        optimum = np.linalg.lstsq(inputs, np.asarray(data["y"]), rcond=None)[0]
        worst = float(np.abs(np.concatenate([reached["w"], reached["b"][None]]) - optimum).max())
    record_property("value", f"distance from the optimum {worst:.0e}")
    assert worst < 1e-8


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(1)
    scales = jnp.asarray([1.0, 10.0, 0.1, 3.0])
    x = jnp.asarray(rng.normal(size=(64, 4)), jnp.float32) * scales
    data = {"x": x, "y": jnp.argmax(x @ jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) / scales.sum(), axis=1)}
    params = {
        "a": jnp.asarray(0.5 * rng.normal(size=(4, 8)), jnp.float32),
        "scale": jnp.ones(8),
        "b": jnp.asarray(0.5 * rng.normal(size=(8, 3)), jnp.float32),
    }
    task = Task(lambda p, e: (p["scale"] * jnp.tanh(e["x"] @ p["a"])) @ p["b"], categorical(lambda e: e["y"]))
    return task, params, data


def losses(classifier, tx, steps, seed=0, **extra):
    task, params, data = classifier

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(lambda p: mean_loss(task, p, data))(params)
        also = {"examples": data, "key": key} if extra.get("informed") else {}
        updates, state = tx.update(gradient, state, params, **also)
        return (optax.apply_updates(params, updates), state), value

    def run(key):
        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, steps))[1]

    return np.asarray(jax.jit(run)(jax.random.key(seed)))


def test_it_trains_an_ill_conditioned_net_inside_scan_faster_than_gradient_descent_at_any_stable_rate(classifier):
    """Stable: the loss falls at every step. At a rate of 3 it leaps, and where it lands hangs on rounding."""
    task, params, data = classifier
    ours = transform(task, params, data, ekfac.exact(), ekfac.absolute(0.1), update_every=5)
    found = losses(classifier, optax.chain(ours, optax.scale(-0.3)), 40, informed=True)
    paths = {rate: losses(classifier, optax.sgd(rate), 40) for rate in (0.1, 0.3, 1.0, 3.0)}
    stable = {rate: path for rate, path in paths.items() if (np.diff(path) < 0).all()}
    assert 3.0 not in stable
    assert 1.0 in stable
    assert found[-1] < min(path[-1] for path in stable.values())


def test_with_one_draw_per_example_it_needs_more_damping_and_is_faster_at_equal_rate(classifier):
    """With lambda .1 its eigenvalues' noise makes some runs leap; .3 was chosen on seeds 0 to 3."""
    task, params, data = classifier
    ours = transform(task, params, data, ekfac.sampled(), ekfac.absolute(0.3), update_every=5)
    found = [
        losses(classifier, optax.chain(ours, optax.scale(-0.3)), 40, seed, informed=True) for seed in range(10, 14)
    ]
    assert max(path[-1] for path in found) < losses(classifier, optax.sgd(0.3), 40)[-1] / 2


def test_between_refreshes_the_curvature_stays(classifier):
    task, params, data = classifier
    tx = transform(task, params, data, ekfac.sampled(), ekfac.heuristic(), update_every=3)
    update, state, kept = jax.jit(tx.update), tx.init(params), []
    for step in range(4):
        _, state = update(params, state, params, examples=data, key=jax.random.key(step))
        kept.append(state.curvature["a"].values)
    assert bool(jnp.all(kept[0] == kept[1]))
    assert bool(jnp.all(kept[1] == kept[2]))
    assert bool(jnp.any(kept[2] != kept[3]))
    assert int(state.count) == 4


def test_without_memory_the_factors_are_those_of_the_last_batch(classifier):
    task, params, data = classifier
    tx = transform(task, params, data, ekfac.empirical(), ekfac.heuristic(), decay=0.0)
    other = jax.tree.map(lambda leaf: leaf[:32], data)
    update = jax.jit(tx.update)
    _, after_two = update(params, update(params, tx.init(params), params, examples=data, key=jax.random.key(0))[1],
                          params, examples=other, key=jax.random.key(1))  # fmt: skip
    _, after_one = update(params, tx.init(params), params, examples=other, key=jax.random.key(1))
    for name, factors in after_two.factors.sums.items():
        np.testing.assert_allclose(factors.rows, after_one.factors.sums[name].rows, rtol=1e-5)
    assert float(after_two.factors.examples) == 32
