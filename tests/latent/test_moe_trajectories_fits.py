"""Fits of growth mixtures: optimiser, standard errors, EM, tables of users and what they get wrong, forests."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
from jax.flatten_util import ravel_pytree

import latent.moe_trajectories as moe
from core.datasets import growth
from core.errors import ConfigError, DataError
from latent.moe_trajectories.natural import natural
from latent.moe_trajectories.optimise import minimise

Y, T = [f"Y{j}" for j in range(1, 6)], [f"T{j}" for j in range(1, 6)]


@pytest.fixture(scope="module")
def drawn():
    with jax.enable_x64(True):
        data, labels = moe.simulate(jax.random.key(3), moe.example_truth(), 250, 8)
        return jax.tree.map(np.asarray, data), np.asarray(labels)


@pytest.fixture(scope="module")
def fitted(drawn):
    data = drawn[0].without("expert", "gating")
    found = moe.fit(moe.Mixture(2), data, jax.random.key(0), starts=8)
    return found, data, moe.standard_errors(found, data)


def test_lanes_solve_every_problem_as_scipy_does():
    with jax.enable_x64(True):
        centres = jnp.linspace(-1.0, 2.0, 7)

        def rosenbrock(x, i):
            x = x - centres[i]
            return 10 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

        starts = jnp.zeros((7, 2))
        eye = jnp.broadcast_to(jnp.eye(2), (7, 2, 2))
        found = jax.jit(lambda: minimise(rosenbrock, starts, eye, lanes=3, tolerance=1e-16))()
        np.testing.assert_allclose(found.x, 1 + np.broadcast_to(np.asarray(centres)[:, None], (7, 2)), atol=1e-5)
        single = scipy.optimize.minimize(lambda x: float(rosenbrock(jnp.asarray(x), 0)), np.zeros(2), method="BFGS")
        assert float(found.value[0]) <= single.fun + 1e-8


@pytest.mark.slow
def test_standard_errors_equal_those_of_finite_differences(fitted, record_property):
    """Of the table that users get: in the data's units, of all parameters, the knots and their covariances among them.

    Between two observed times -log L is smooth, so that differences in a knot have a step that meets none.
    """
    found, data, errors = fitted
    with jax.enable_x64(True):
        arranged = moe.arrange(moe.standard_data(found.units, data))
        x, unravel = ravel_pytree(jax.tree.map(jnp.asarray, found.standard))
        slope = jax.jit(jax.grad(lambda x: -moe.log_likelihood(found.mixture, unravel(x), arranged)))
        reported = jax.jit(lambda x: ravel_pytree(natural(found.mixture, unravel(x), arranged.xg, found.units))[0])
        steps = np.full(x.size, 1e-4)
        steps[_knots(found)] = 1e-7
        hessian, jacobian = (
            np.stack(
                [np.asarray(f(x + h * e) - f(x - h * e)) / (2 * h) for h, e in zip(steps, np.eye(x.size), strict=True)]
            )
            for f in (slope, reported)
        )
        total = np.abs(np.asarray(moe.scores(found.mixture, unravel(x), arranged)).sum(0)).max()
    covariance = np.linalg.inv((hessian + hessian.T) / 2)
    by_differences = np.sqrt(np.diag(jacobian.T @ covariance @ jacobian))
    exact = np.asarray(ravel_pytree(errors.model)[0])
    moved = exact > 0
    off = float(np.abs(by_differences[moved] / exact[moved] - 1).max())
    record_property("value", f"furthest apart {off:.1e} of {moved.sum()}; scores sum to at most {total:.1e}")
    assert moved.sum() >= x.size
    assert off < 1e-3
    assert total < 1e-3


def _knots(found):
    """Places of the knots among all parameters."""
    marked = jax.tree.map(np.zeros_like, found.params)
    marked.experts.gamma[:] = 1
    return np.flatnonzero(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(marked)]))


@pytest.mark.slow
def test_fits_agree_are_sound_and_classify(fitted, drawn):
    found, data, errors = fitted
    assert found.agreeing >= 3
    assert found.gradient < 1e-4
    assert (np.diff(found.params.experts.gamma[:, 0]) > 0).all()
    posterior = moe.classify(found, data)
    assert moe.accuracy(posterior, drawn[1]) > 0.8
    assert 0.3 < moe.entropy(posterior) < 1
    assert moe.warnings_of(found, data, errors) == []


@pytest.mark.slow
def test_results_read_in_the_terms_of_the_field(fitted):
    found, _, errors = fitted
    table = moe.estimates(found, errors)
    assert {"intercept", "slope 1", "slope 2", "knot", "residual variance", "proportion"} <= set(table["parameter"])
    assert (table["low"].to_numpy() < table["estimate"].to_numpy()).all()
    assert table.loc[table["parameter"] == "proportion", "estimate"].sum() == pytest.approx(1)
    knots = table.loc[table["parameter"] == "knot"]
    assert ((knots["low"] - 0.2 < [3.5, 5.5]) & (knots["high"] + 0.2 > [3.5, 5.5])).all()
    band = moe.trajectories(found, np.linspace(0, 7, 5))
    first = band.loc[(band["class"] == 1) & (band["time"] == 0), "mean"].item()
    assert first == pytest.approx(errors.estimate.total_means[0, 0])
    assert (band["low"].to_numpy() < band["high"].to_numpy()).all()


@pytest.mark.slow
def test_em_raises_the_likelihood_to_the_same_maximum(fitted):
    found, data, _ = fitted
    with jax.enable_x64(True):
        batch = jax.tree.map(jnp.asarray, data)
        e = found.params.experts
        away = found.params._replace(experts=e._replace(alpha=e.alpha + 0.3, gamma=e.gamma + 0.2))
        learner = moe.em_learner(found.mixture, jax.tree.map(jnp.asarray, away))
        state = learner.init(jax.random.key(0), batch)
        _, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, _: learner.update(s, batch), s, length=1000))(state)
    losses = np.asarray(metrics["loss"])
    assert (np.diff(losses) < 1e-9).all()
    assert losses[-1] == pytest.approx(-found.log_likelihood / len(data.y), abs=1e-5)


@pytest.mark.slow
def test_classes_of_another_curve_are_found_from_random_starts():
    rng, n = np.random.default_rng(0), 120
    t = np.arange(6) + rng.uniform(0, 0.3, (n, 6))
    fast = rng.random(n) < 0.5
    eta = np.where(fast[:, None], [3.0, -4.0], [0.0, 5.0]) + 0.5 * rng.normal(size=(n, 2))
    y = eta[:, :1] - eta[:, 1:] * np.expm1(-np.where(fast, 0.8, 0.4)[:, None] * t) + 0.2 * rng.normal(size=t.shape)
    none = np.zeros((n, 0))
    data = moe.GrowthData(t, y, np.ones_like(y), none, none, none, none)
    found = moe.fit(moe.Mixture(2, moe.EXPONENTIAL), data, jax.random.key(0), starts=12)
    assert found.agreeing >= 6
    assert found.params.experts.gamma[:, 0] == pytest.approx([0.4, 0.8], abs=0.05)
    assert moe.accuracy(moe.classify(found, data), fast.astype(int)) == 1


def test_criteria_and_entropy_are_their_formulas():
    found = moe.criteria(-100.0, 5, 50)
    assert found == pytest.approx((210, 200 + 5 * np.log(50), 200 + 5 * np.log(52 / 24)))
    assert moe.entropy(np.eye(2)) == pytest.approx(1)
    assert moe.entropy(np.full((4, 2), 0.5)) == pytest.approx(0)
    assert moe.entropy(np.ones((3, 1))) == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_the_two_step_logit_is_the_maximum_of_its_likelihood(classes):
    rng = np.random.default_rng(0)
    xg = rng.normal(size=(300, 2))
    labels = rng.integers(0, classes, 300)
    b = moe.two_step_gating(np.eye(classes)[labels], xg)
    design = np.column_stack([np.ones(300), xg])
    share = scipy.special.softmax(np.column_stack([np.zeros(300), design @ b.T]), axis=1)
    assert b.shape == (classes - 1, 3)
    np.testing.assert_allclose(design.T @ (np.eye(classes)[labels] - share), 0, atol=1e-2)


@pytest.mark.slow
def test_a_collapsed_class_is_an_error(fitted):
    found, data, _ = fitted
    gating = np.array([[-12.0]])
    with jax.enable_x64(True):
        shares = np.asarray(
            moe.posterior(
                found.mixture, jax.tree.map(jnp.asarray, found.params._replace(gating=gating)),
                moe.arrange(jax.tree.map(jnp.asarray, data)),
            ).sum(1)
        )  # fmt: skip
    from latent.moe_trajectories.fitting import _require_no_collapse

    with pytest.raises(ConfigError, match="class 2 of 2 collapsed: it holds"):
        _require_no_collapse(found.mixture, shares)


def wide(n=20):
    rng = np.random.default_rng(0)
    t = np.arange(5) + rng.uniform(0, 0.2, (n, 5))
    table = pd.DataFrame(np.concatenate([t + rng.normal(size=(n, 5)), t], 1), columns=[*Y, *T])
    return table.assign(a=rng.normal(size=n), b=rng.normal(size=n))


def long(table):
    rows = [
        {"child": i, "age": row[t], "score": row[y], "a": row["a"], "b": row["b"]}
        for i, row in table.iterrows()
        for y, t in zip(Y, T, strict=True)
    ]
    return pd.DataFrame(rows)


def test_long_and_wide_tables_give_the_same_data():
    table = wide()
    table.loc[3, "Y2"] = np.nan
    a = moe.from_wide(table, Y, T, expert=["a"], gating=["b"])
    b = moe.from_long(long(table), person="child", time="age", outcome="score", expert=["a"], gating=["b"])
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y)
    assert a.observed[3].tolist() == [1, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(T2="grade 2"), r"column 'T2', row 0: 'grade 2' is not a finite number"),
        (lambda f: f.assign(T2=pd.Timestamp("2020-01-01")), r"dates; give times as numbers"),
        (lambda f: f.assign(T2=np.where(np.arange(20) == 4, np.nan, f.T2)), "row 4: Y2 was measured but its time T2"),
        (lambda f: f.assign(a=1.0), "expert covariate 'a' is constant"),
        (lambda f: f.assign(b=np.where(np.arange(20) == 2, np.nan, f.b)), "row 2: gating covariate 'b' is empty"),
        (lambda f: f.assign(**dict.fromkeys(Y[1:], np.nan)), "every person has one measurement"),
        (lambda f: f.assign(**dict.fromkeys(Y[2:], np.nan)), "0 persons have four measurements"),
        (lambda f: f.drop(columns="Y3"), "column 'Y3' is missing; the table has Y1, Y2"),
        (lambda f: f.assign(**dict.fromkeys(T, 1.0)), "all measurements have the same time"),
        (lambda f: f.iloc[:0], "the table has no rows"),
        (lambda f: f.assign(Y1=np.where(np.arange(20) == 1, np.inf, f.Y1)), "column 'Y1', row 1: inf is not a finite"),
    ],
)
def test_faults_of_wide_tables_are_named(change, message):
    with pytest.raises(DataError, match=message):
        moe.from_wide(change(wide()), Y, T, expert=["a"], gating=["b"])


def test_faults_of_long_tables_are_named():
    names = {"person": "child", "time": "age", "outcome": "score"}
    table = long(wide())
    with pytest.raises(DataError, match="has two rows at age"):
        moe.from_long(pd.concat([table, table.iloc[:1]]), **names)
    with pytest.raises(DataError, match="covariate 'a' changes over the rows of person 0"):
        moe.from_long(table.assign(a=np.arange(len(table))), **names, expert=["a"])
    with pytest.raises(DataError, match="linearly dependent"):
        moe.from_long(table.assign(b=2 * table["a"] + 1), **names, gating=["a", "b"])


@pytest.mark.slow
def test_a_forest_finds_the_one_covariate_that_matters():
    rng = np.random.default_rng(1)
    n, t = 200, np.arange(5.0)
    group = rng.normal(size=n)
    eta = rng.normal(size=(n, 3)) + np.where(group > 0, 3.0, 0.0)[:, None]
    y = eta[:, :1] + eta[:, 1:2] * np.minimum(t, 2) + eta[:, 2:] * np.maximum(t - 2, 0) + 0.5 * rng.normal(size=(n, 5))
    ones, none = np.ones((n, 5)), np.zeros((n, 0))
    data = moe.GrowthData(np.tile(t, (n, 1)), y, ones, none, none, none, none)
    covariates = np.column_stack([rng.normal(size=n), group, rng.normal(size=n)])
    grown = moe.forest.grow(data, covariates, jax.random.key(0), trees=4, tried=3, depth=1, smallest=40)
    assert (grown.covariate[:, 0] == 1).all()
    assert (np.abs(grown.cut[:, 0]) < 0.3).all()
    found = moe.forest.importance(grown, data, covariates).mean(0)
    assert found.argmax() == 1
    assert found[[0, 2]] == pytest.approx(0)


needs_data = pytest.mark.skipif(growth.locate() is None, reason="growth_mixture is not in the data directory")


@needs_data
@pytest.mark.parametrize("name", growth.NAMES)
def test_the_real_tables_are_read_whole(name):
    assert len(growth.load(name)) == 500


def test_a_damaged_table_is_named(tmp_path):
    with pytest.raises(DataError, match="is not in the data directory"):
        growth.load("bls2", tmp_path)
    folder = tmp_path / "growth_mixture"
    folder.mkdir()
    (folder / "bls2.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="truncated or not a gzip file"):
        growth.load("bls2", tmp_path)
    pd.DataFrame({"Y1": [1]}).to_csv(folder / "bls2.csv.gz", index=False)
    with pytest.raises(DataError, match=r"column 'Y2' .* is missing"):
        growth.load("bls2", tmp_path)
