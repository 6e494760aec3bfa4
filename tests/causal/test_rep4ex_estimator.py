import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import rep4ex as rep
from core.errors import CheckpointError, ConfigError

METHOD = rep.Rep4Ex(
    rep.Autoencoder(2, 10, (8,)), restarts=2, steps=20, batch=64, held_out=0.2, second=rep.Ridge(20, ridge=1e-3)
)
ACTIONS = rep.outside(0, 12, 2, 1.0, 2.0)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def world():
    _, sample, y = rep.gen2(50, 400, rep.Design())
    return sample.x, sample.a, y


@pytest.fixture(scope="module")
def fitted(world):
    return METHOD.fit(KEY, *world)


def test_effects_are_those_of_the_parts(world, fitted):

    @jax.jit
    def by_parts(w, a, y):
        basis = rep.random_fourier(jax.random.key(0), 2, 20, 2.5)
        stage = rep.first_stage(w, a)
        outcome = rep.additive_ridge(stage, w, y, basis, basis, 1e-3)
        return rep.interventional(stage, outcome, ACTIONS), rep.conditional(stage, outcome, w[:5], a[:5])

    with jax.enable_x64(True):
        expected, given = by_parts(
            *(jnp.asarray(part, jnp.float64) for part in (fitted.step.w, fitted.step.a, fitted.step.y))
        )
    np.testing.assert_allclose(fitted.effect(ACTIONS), expected, rtol=1e-8)
    order = np.array([np.flatnonzero((world[1] == row).all(axis=1))[0] for row in fitted.step.a[:5]])
    np.testing.assert_allclose(fitted.codes(world[0][order], fitted.step.a[:5]), fitted.step.w[:5], atol=1e-5)
    np.testing.assert_allclose(fitted.effect_given(world[0][order], fitted.step.a[:5]), given, atol=1e-3)


def test_a_fit_is_a_tree_of_arrays(fitted):
    again = jax.tree.unflatten(jax.tree.structure(fitted), jax.tree.leaves(fitted))
    np.testing.assert_array_equal(again.effect(ACTIONS), fitted.effect(ACTIONS))
    assert again.step.strength().least_f > 0


def test_the_unit_of_the_outcome_is_that_of_its_effects(fitted):
    other = dataclasses.replace(fitted.step, y=3 * fitted.step.y + 1)
    np.testing.assert_allclose(other.effect(ACTIONS), 3 * fitted.effect(ACTIONS) + 1, rtol=1e-6, atol=1e-6)


def test_far_actions_lead_outside(fitted):
    near, far = fitted.step.outside(np.array([[0.0, 0.0], [30.0, 30.0]]))
    assert near < 0.2
    assert far > 0.9


def test_refits_draw_rows_that_train_apart_from_rows_that_choose(world):
    data = METHOD.prepared(KEY, *world)
    fits = METHOD.refit(KEY, *world, draws=2)
    assert [len(each.step.y) for each in fits] == [400, 400]
    for each in fits:
        assert set(each.step.y[:320]) <= set(world[2][data.train])
        assert set(each.step.y[320:]) <= set(world[2][data.held])
        assert len(set(each.step.y)) < 300
    low, high = rep.refit_interval(fits[0].effect(ACTIONS), fits, ACTIONS)
    half = 1.959964 * np.abs(fits[0].effect(ACTIONS) - fits[1].effect(ACTIONS)) / np.sqrt(2)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-4)
    np.testing.assert_allclose((high + low) / 2, fits[0].effect(ACTIONS), rtol=1e-4)


def test_folds_share_no_row_and_their_mean_is_the_estimate(world):
    fits = METHOD.cross_fit(KEY, *world, folds=2)
    assert not set(fits[0].step.y) & set(fits[1].step.y)
    both = np.mean([each.effect(ACTIONS) for each in fits], axis=0)
    np.testing.assert_allclose(rep.cross_fitted(fits, ACTIONS), both)


def test_intervals_of_the_second_step_are_about_the_estimate(fitted):
    low, high = fitted.step.interval(KEY, ACTIONS, draws=5)
    np.testing.assert_allclose((low + high) / 2, fitted.effect(ACTIONS), rtol=1e-5)
    assert (high > low).all()


def test_settings_are_those_that_predict_outer_actions_best():
    """A smooth outcome of true latents: a ridge that shrinks everything away loses to one that does not."""
    _, sample, y = rep.gen2(1, 400, rep.Design())
    step = rep.SecondStep(sample.z, sample.a, y)
    heavy, light = rep.Ridge(20, 3.0, 10.0), rep.Ridge(20, 3.0, 1e-3)
    chosen = rep.best_at_outer_actions(step, [heavy, light])
    assert chosen.settings == light
    turned = rep.SecondStep(sample.z, sample.a @ np.array([[1.0, 2.0], [0.0, 3.0]]), y)
    assert rep.best_at_outer_actions(turned, [heavy, light]).settings == light
    with pytest.raises(ConfigError, match="do not suffice"):
        rep.best_at_outer_actions(step, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, a, y: (x, a, y[:-1]), r"y must have shape \[n\].*n is 399 here and 400 in x"),
        (lambda x, a, y: (x, a, np.where(y > 0, np.nan, y)), "finite"),
        (lambda x, a, y: (x[:-1], a, y), "n is 400 here and 399 in x"),
        (lambda x, a, y: (x[:60], a[:60], y[:60]), "give more rows, or change batch or held_out"),
        (lambda x, a, y: (x, np.ones_like(a), y), "linearly dependent"),
    ],
)
def test_bad_rows_are_refused_before_training(world, change, message):
    with pytest.raises(ConfigError, match=message):
        METHOD.fit(KEY, *change(*world))


@pytest.mark.parametrize("folds", [1, 9])
def test_folds_must_hold_enough_rows(world, folds):
    with pytest.raises(ConfigError, match="folds of"):
        METHOD.cross_fit(KEY, *world, folds=folds)


def more_actions(seed: int, direct: float, n: int = 500):
    """Latents, four actions and a linear outcome."""
    world, sample = rep.gen1(seed, n, rep.Design(more=2))
    return sample.z, sample.a, rep.Outcomes(bent=0.0, direct=direct).draw(world, sample, seed)


@partial(jax.jit, static_argnums=3)
def overidentification(w, a, y, degree):
    return rep.overidentification(rep.first_stage(w, a), w, a, y, degree)


def overidentified(w, a, y, degree: int = 1) -> rep.Overidentification:
    with jax.enable_x64(True):
        return jax.tree.map(float, overidentification(*(jnp.asarray(part, jnp.float64) for part in (w, a, y)), degree))


def hansen(w, a, y) -> float:
    """J from the textbook's formulas, instruments as they are."""
    X, Z, n = np.c_[np.ones(len(y)), w], np.c_[np.ones(len(y)), a], len(y)

    def solved(weight):
        return np.linalg.solve(X.T @ Z @ weight @ Z.T @ X, X.T @ Z @ weight @ Z.T @ y)

    first = y - X @ solved(np.linalg.inv(Z.T @ Z))
    weight = np.linalg.inv((Z * first[:, None] ** 2).T @ Z / n)
    g = Z.T @ (y - X @ solved(weight)) / n
    return n * g @ weight @ g


def test_overidentification_is_hansens_j_and_knows_no_linear_map():
    w, a, y = more_actions(3, 0.0)
    found = overidentified(w, a, y)
    np.testing.assert_allclose(found.statistic, hansen(w, a, y), rtol=1e-8)
    assert (found.degrees, overidentified(w, a, y, 2).degrees) == (2, 9)
    rng = np.random.default_rng(0)
    moved = overidentified(w @ rng.normal(size=(2, 2)) + 1, a @ rng.normal(size=(4, 4)), y)
    np.testing.assert_allclose(moved.statistic, found.statistic, rtol=1e-6)


def test_it_equals_that_of_statsmodels():
    gmm = pytest.importorskip("statsmodels.sandbox.regression.gmm")
    w, a, y = more_actions(4, 0.1)
    X, Z = np.c_[np.ones(len(y)), w], np.c_[np.ones(len(y)), a]
    model = gmm.IVGMM(y, X, Z).fit(
        maxiter=2, inv_weights=Z.T @ Z / len(y), optim_args={"disp": 0}, wargs={"centered": False}
    )
    statistic, p, degrees = model.jtest()
    found = overidentified(w, a, y)
    np.testing.assert_allclose([found.statistic, found.p, found.degrees], [statistic, p, degrees], rtol=1e-6)


@pytest.mark.slow
def test_it_has_its_size_and_sees_direct_effects():
    rejected = {direct: sum(overidentified(*more_actions(s, direct)).p < 0.05 for s in range(300))
                for direct in (0.0, 0.5)}  # fmt: skip
    assert 6 <= rejected[0.0] <= 26  # 99 % of binomials of 300 at 5 %
    assert rejected[0.5] > 240


def test_as_many_actions_as_codes_leave_nothing_to_test():
    _, sample, y = rep.gen2(0, 50, rep.Design())
    with pytest.raises(ConfigError, match="more actions than codes"):
        overidentified(sample.z, sample.a, y)
    with pytest.raises(ConfigError, match=r"raise Design\.more"):
        rep.Outcomes(direct=1.0).draw(*rep.gen1(0, 5, rep.Design()), 0)


def test_more_actions_leave_the_stream_of_the_others_as_it_was():
    world, sample = rep.gen1(2, 5, rep.Design(more=1))
    assert (world.M0.shape, sample.a.shape, world.design.k) == ((2, 3), (5, 3), 3)
    np.testing.assert_allclose(world.M0 @ world.idle(), 0, atol=1e-12)
    np.testing.assert_allclose(sample.z, 2 * sample.a @ world.M0.T + sample.v)


@pytest.mark.slow
def test_a_workdir_gives_the_same_fit_again_and_is_refused_for_other_rows(world, fitted, tmp_path):
    for _ in range(2):
        found = METHOD.fit(KEY, *world, workdir=tmp_path)
        np.testing.assert_array_equal(found.effect(ACTIONS), fitted.effect(ACTIONS))
    x, a, y = world
    with pytest.raises(CheckpointError, match="belongs to another run: its data"):
        METHOD.fit(KEY, x + a[:, :1], a, y, workdir=tmp_path)
