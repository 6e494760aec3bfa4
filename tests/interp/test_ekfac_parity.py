"""Agreement with kronfluence 1.0.1 on golden values, and with an explicit Gauss-Newton matrix."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.datasets.raw import data_dir
from core.learner import with_sampler
from interp import ekfac
from interp.likelihoods import Task, categorical, gaussian

LAYERS = ("0", "2", "4")
STRATEGIES = ("ekfac", "kfac", "diagonal", "identity")


def mlp(params, example):
    h = jnp.tanh(example["x"] @ params["0"]["kernel"] + params["0"]["bias"])
    h = jax.nn.relu(h @ params["2"]["kernel"] + params["2"]["bias"])
    return h @ params["4"]["kernel"] + params["4"]["bias"]


TASK = Task(mlp, categorical(lambda example: example["y"]))


def collect(stage, params, examples, batch_size=20):
    data = ekfac.whole(params, examples)
    learner = with_sampler(stage, ekfac.sweep(batch_size))
    state = jax.jit(learner.init)(jax.random.key(0), data)
    update = jax.jit(learner.update)
    for _ in range(ekfac.steps_of(data, batch_size)):
        state, _ = update(state, data)
    return state


@pytest.fixture(scope="module")
def golden():
    folder = data_dir()
    path = Path(folder or ".") / "ekfac_parity" / "mlp.npz"
    if not path.exists():
        pytest.skip(f"golden values of ekfac_parity are not in the data folder ({folder}): set RELIC_DATA")
    with open(path, "rb") as file:
        return dict(np.load(file))


def as_problem(golden, dtype):
    with_type = {name: jnp.asarray(a, dtype if a.dtype.kind == "f" else None) for name, a in golden.items()}
    params = {k: {"kernel": with_type[f"params/{k}.weight"].T, "bias": with_type[f"params/{k}.bias"]} for k in LAYERS}
    train = {"x": with_type["x"], "y": with_type["y"]}
    queries = {"x": with_type["xq"], "y": with_type["yq"]}
    return params, train, queries


def fitted_to(params, train):
    """Covariances and the four curvatures, from the empirical Fisher and sums per position as kronfluence has them."""
    example = jax.tree.map(lambda a: a[0], train)
    found, fisher = ekfac.capture(mlp, params, example), ekfac.empirical()
    factors = collect(ekfac.covariance(found, TASK, fisher), params, train)
    standard = ekfac.standard_basis(found)
    kfac = ekfac.eigenbasis(found, factors, scale="per_position")
    correction = ekfac.eigenvalue_correction(found, TASK, fisher)
    corrected = {
        name: ekfac.corrected(found, basis, collect(correction, (params, basis), train))
        for name, basis in (("ekfac", kfac), ("diagonal", standard))
    }
    return found, factors, {"kfac": kfac, "identity": standard, **corrected}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-3)])
def test_factors_and_scores_equal_those_of_kronfluence(golden, dtype, tolerance, record_property):
    with jax.enable_x64(dtype == "float64"):
        params, train, queries = as_problem(golden, dtype)
        found, factors, curvatures = fitted_to(params, train)
        worst = 0.0

        def close(ours, reference, relative_to=None):
            nonlocal worst
            scale = np.abs(golden[relative_to or reference]).max()
            worst = max(worst, float(np.abs(np.asarray(ours) - golden[reference]).max() / scale))

        for k in LAYERS:
            close(factors.sums[f"{k}/kernel"].rows[0, 0], f"ekfac/activation_covariance/{k}")
            close(factors.sums[f"{k}/kernel"].columns[0, 0], f"ekfac/gradient_covariance/{k}")
            own = np.sort(np.asarray(curvatures["ekfac"][f"{k}/kernel"].values[0]).ravel()) * len(train["y"])
            reference = golden[f"ekfac/lambda_matrix/{k}"]
            worst = max(worst, float(np.abs(own.sum() - reference.sum()) / reference.sum()))
        measured = ekfac.capture(TASK.loss, params, jax.tree.map(lambda a: a[0], queries))
        gradients = jax.jit(lambda p, q: ekfac.gradient_matrices(measured, p, q))(params, queries)

        @jax.jit
        def scored(damped):
            prepared = ekfac.prepare(found, measured, damped, gradients)
            layers = ekfac.layer_scores(found, TASK, params, prepared, train)
            return layers, ekfac.self_scores(found, TASK, params, damped, train)

        for strategy in STRATEGIES:
            for suffix, damping in (("heuristic_damping", ekfac.heuristic()), ("damping_1e-3", ekfac.absolute(1e-3))):
                curvature = curvatures[strategy]
                damped = curvature if strategy == "identity" else ekfac.damp(curvature, damping)
                layers, own = scored(damped)
                close(sum(layers.values()), f"{strategy}/scores_{suffix}")
                if suffix == "heuristic_damping":
                    close(own, f"{strategy}/self_scores_{suffix}")
                    for k in LAYERS:
                        close(layers[f"{k}/kernel"], f"{strategy}/scores_per_layer/{k}")
    record_property("value", f"{dtype}: largest relative difference {worst:.1e}")
    assert worst < tolerance


def test_eigenvalues_equal_those_of_kronfluence_where_the_basis_is_unique(golden):
    with jax.enable_x64():
        params, train, _ = as_problem(golden, "float64")
        _, _, curvatures = fitted_to(params, train)
        for k in ("0", "2"):
            ours, theirs = (
                curvatures["ekfac"][f"{k}/kernel"].values[0].T * len(train["y"]),
                golden[f"ekfac/lambda_matrix/{k}"],
            )
            positive = golden[f"ekfac/gradient_eigenvalues/{k}"] > 1e-10
            np.testing.assert_allclose(ours[positive], theirs[positive], rtol=1e-6, atol=1e-9)


def linear_task():
    return Task(lambda params, example: example["x"] @ params["w"], gaussian(lambda example: example["y"]))


def gauss_newton(task, params, examples):
    """Mean over examples of J^T H J, materialised."""
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    def one(example):
        jacobian = jax.jacobian(lambda p: task.outputs(unflatten(p), example).ravel())(flat)
        columns = task.likelihood.root(task.outputs(params, example), example)
        half = columns.reshape(columns.shape[0], -1) @ jacobian
        return half.T @ half

    return jnp.mean(jax.vmap(one)(examples), axis=0)


def exact_influence(task, params, train, queries, damping):
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    matrix = gauss_newton(task, params, train) + damping * jnp.eye(flat.size)
    gradient = jax.vmap(lambda example: jax.grad(lambda p: task.loss(unflatten(p), example))(flat))
    return gradient(queries) @ jnp.linalg.solve(matrix, gradient(train).T)


def influence_of(task, params, train, queries, kind, damping):
    fitted = ekfac.fit_curvature(task, params, train, key=jax.random.key(0), kind=kind, fisher=ekfac.exact())
    return ekfac.influence(fitted, queries, train, damping=ekfac.absolute(damping))


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_kfac_and_ekfac_equal_exact_gauss_newton_in_linear_regression(kind, record_property):
    """Every output's gradient has the same distribution whatever the input: A and S are independent."""
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        train = {"x": jnp.asarray(rng.normal(size=(40, 5))), "y": jnp.asarray(rng.normal(size=(40, 3)))}
        queries = {"x": jnp.asarray(rng.normal(size=(4, 5))), "y": jnp.asarray(rng.normal(size=(4, 3)))}
        params = {"w": jnp.asarray(rng.normal(size=(5, 3)))}
        task = linear_task()
        expected = exact_influence(task, params, train, queries, 0.1)
        found = influence_of(task, params, train, queries, kind, 0.1)
        worst = float(jnp.max(jnp.abs(found - expected)) / jnp.max(jnp.abs(expected)))
    record_property("value", f"{kind}: relative difference {worst:.1e}")
    assert worst < 1e-8


def test_ekfac_equals_exact_gauss_newton_where_that_is_diagonal_in_the_kronecker_basis(record_property):
    """A softmax layer fed with unit vectors, each with its own class probabilities that share their eigenbasis."""
    with jax.enable_x64():
        inputs = jnp.eye(4)
        params = {"w": jnp.zeros((4, 3))}  # equal probabilities: every S_n has one basis
        train = {"x": jnp.repeat(inputs, jnp.array([1, 2, 3, 4]), axis=0), "y": jnp.arange(10) % 3}
        task = Task(lambda p, e: e["x"] @ p["w"], categorical(lambda e: e["y"]))
        expected = exact_influence(task, params, train, train, 0.05)
        found = influence_of(task, params, train, train, "ekfac", 0.05)
        worst = float(jnp.max(jnp.abs(found - expected)))
    record_property("value", f"difference {worst:.1e}")
    assert worst < 1e-8


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_kfac_and_ekfac_equal_exact_gauss_newton_of_a_softmax_with_constant_probabilities(kind, record_property):
    """Zero weights and a free bias: S is the same at every input, and singular along equal logits."""
    with jax.enable_x64():
        rng = np.random.default_rng(2)
        train = {"x": jnp.asarray(rng.normal(size=(40, 5))), "y": jnp.asarray(rng.integers(0, 4, 40))}
        params = {"w": jnp.zeros((5, 4)), "b": jnp.asarray(rng.normal(size=4))}
        task = Task(lambda p, e: e["x"] @ p["w"] + p["b"], categorical(lambda e: e["y"]))
        expected = exact_influence(task, params, train, train, 0.01)
        found = influence_of(task, params, train, train, kind, 0.01)
        worst = float(jnp.max(jnp.abs(found - expected)))
    record_property("value", f"{kind}: difference {worst:.1e}")
    assert worst < 1e-8


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_kfac_and_ekfac_equal_every_exact_block_of_a_deep_linear_network(kind, record_property):
    """Inputs are correlated, not whitened; the blocks beside the diagonal are not small, so the full matrix differs."""
    with jax.enable_x64():
        rng = np.random.default_rng(1)
        mixed = jnp.asarray(rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)))
        train = {"x": mixed, "y": jnp.asarray(rng.normal(size=(30, 3)))}
        params = {"a": jnp.asarray(rng.normal(size=(4, 6))), "b": jnp.asarray(rng.normal(size=(6, 3)))}
        task = Task(lambda p, e: e["x"] @ p["a"] @ p["b"], gaussian(lambda e: e["y"]))
        worst, total = 0.0, 0.0
        for leaf in params:
            alone = Task(lambda p, e: task.outputs({**params, **p}, e), task.likelihood)
            part = {leaf: params[leaf]}
            expected = exact_influence(alone, part, train, train, 0.01)
            found = influence_of(alone, part, train, train, kind, 0.01)
            total += found
            worst = max(worst, float(jnp.max(jnp.abs(found - expected)) / jnp.max(jnp.abs(expected))))
        full = exact_influence(task, params, train, train, 0.01)
        beside = float(jnp.max(jnp.abs(total - full)) / jnp.max(jnp.abs(full)))
    record_property("value", f"{kind}: relative difference {worst:.1e}")
    assert worst < 1e-8
    assert beside > 1e-3
