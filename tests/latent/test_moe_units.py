"""Growth mixtures do not depend on where times, outcomes and covariates begin, nor on their units."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, assume, given, settings

import latent.moe_trajectories as moe
from core.errors import ConfigError
from latent.moe_trajectories.units import log_unit_volumes, moved_shapes
from tests.latent.test_moe_trajectories import CASES, MIX, parameters, persons

origins = st.sampled_from([0.0, -40.0, 2000.0])
scales = st.sampled_from([0.25, 1.0, 365.0])
units = st.builds(moe.Unit, origins, scales)
of_everything = st.builds(moe.Units, units, units, units, units, units)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def likelihood(mixture):
    return jax.jit(lambda params, data: moe.person_log_likelihoods(mixture, params, moe.arrange(data)))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8, deadline=None)
@given(own=st.builds(moe.Units, *5 * (st.builds(moe.Unit, st.floats(-3, 3), st.floats(0.2, 5)),)))
def test_parameters_in_other_units_give_the_same_density_but_for_the_units_volume(case, own):
    of_mixture, of_data, of_params = CASES[case]
    rng = np.random.default_rng(0)
    mixture, data, params = MIX(2, **of_mixture), persons(rng, n=6, **of_data), parameters(rng, **of_params)
    if case == "Jenss-Bayley":
        params = params._replace(experts=params.experts._replace(gamma=-0.1 * params.experts.gamma))
    _, factors = moved_shapes(mixture.curve, params.experts.gamma, own)
    assume(np.linalg.cond(factors).max() < 1e4)  # factors of 1e5 that all but cancel: float64 itself has no more digits
    standard = moe.standard_data(own, data)
    there = moe.own_params(mixture, params, own)
    volumes = log_unit_volumes(mixture, own, data)
    np.testing.assert_allclose(
        likelihood(mixture)(there, data), likelihood(mixture)(params, standard) - volumes, rtol=1e-7, atol=1e-7
    )
    back = moe.standard_params(mixture, there, own)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), back, params)


def growing(curve, n=40, noise=0.2):
    """Persons of two kinds far apart; times are measured to 1/1024, so that calendar years are exact."""
    rng = np.random.default_rng(0)
    t = np.round(1024 * (np.arange(6) + rng.uniform(-0.2, 0.2, (n, 6)))) / 1024
    loadings = np.stack(np.broadcast_arrays(*curve.loadings(t, np.array(SHAPES[curve.name]))), -1)
    middle = np.where(np.arange(n) % 2 == 0, 5.0, -5.0)[:, None] * np.array([1.0, -1.0, 1.0])
    eta = (middle + rng.normal(size=(n, 3)))[:, : loadings.shape[-1]]
    y = (loadings * eta[:, None]).sum(-1) + noise * rng.normal(size=t.shape)
    ones, none = np.ones_like(y), np.zeros((n, 0))
    return moe.GrowthData(t, y, ones, none, none, rng.normal(size=(n, 1)), none)


SHAPES = {"bilinear": [2.5], "quadratic": [], "negative exponential": [0.5], "Jenss-Bayley": [-0.7]}


def elsewhere(data, own):
    """The same persons, written in other units."""
    return moe.standard_data(own.inverse(), data)


@functools.cache
def fitted(mixture):
    return moe.fit(mixture, growing(mixture.curve), jax.random.key(0), starts=2, check=False)


def check_same(mixture, own):
    data, here, times = growing(mixture.curve), fitted(mixture), np.linspace(0.0, 4.0, 5)
    there = elsewhere(data, own)
    found = moe.fit(mixture, there, jax.random.key(0), starts=2, check=False)
    volume = data.y.size * np.log(own.outcome.unit)
    np.testing.assert_allclose(found.log_likelihood, here.log_likelihood - volume, rtol=1e-6)
    np.testing.assert_allclose(moe.classify(found, there), moe.classify(here, data), atol=1e-5)
    before, after = moe.trajectories(here, times), moe.trajectories(found, own.time.origin + own.time.unit * times)
    for column in ("mean", "low", "high"):
        there_again = own.outcome.standard(after[column].to_numpy())
        np.testing.assert_allclose(there_again, before[column], rtol=1e-5, atol=1e-4)
    return found


@settings(max_examples=4, deadline=None, phases=[Phase.generate])
@given(own=of_everything)
def test_fits_do_not_depend_on_origins_and_units(own):
    found = check_same(moe.Mixture(2, moe.QUADRATIC), own)
    expected = moe.own_params(found.mixture, fitted(found.mixture).params, own)
    for name in ("alpha", "log_theta"):
        there, here = getattr(found.params.experts, name), getattr(expected.experts, name)
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.params.gating, expected.gating, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_nor_do_those_whose_factors_at_time_0_are_beyond_float64():
    years = moe.Units(moe.Unit(2000.0), *4 * (moe.Unit(),))
    found = check_same(moe.Mixture(2, moe.EXPONENTIAL), years)
    assert not np.isfinite(found.params.experts.alpha).all()
    with pytest.raises(ConfigError, match="give times since a nearer origin"):
        moe.standard_errors(found, elsewhere(growing(moe.EXPONENTIAL), years))


@pytest.mark.parametrize("kind", ["em", "direct"])
def test_learners_do_not_depend_on_origins_and_units_in_single_precision(kind):
    data = growing(moe.BILINEAR, noise=1.0)
    own = moe.Units(moe.Unit(2000.0, 1.0), moe.Unit(500.0, 4.0), *3 * (moe.Unit(),))
    mixture = moe.Mixture(2)
    start = fitted_start(mixture, data)
    cases = (start, data), (moe.own_params(mixture, start, own), elsewhere(data, own))
    with jax.enable_x64(False):
        results = []
        for first, table in jax.tree.map(np.asarray, cases):
            first, table = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (first, table))
            learner = (
                moe.em_learner(mixture, first) if kind == "em" else moe.direct_learner(mixture, first, optax.sgd(1e-2))
            )
            state, step = learner.init(jax.random.key(0), table), jax.jit(learner.update)
            for _ in range(5):
                state, metrics = step(state, table)
            results.append((float(metrics["loss"]), moe.params_of(mixture, state).experts.gamma))
    (loss, knots), (loss_there, knots_there) = results
    np.testing.assert_allclose(loss_there, loss + data.y.shape[1] * np.log(4.0), rtol=3e-5)
    np.testing.assert_allclose(knots_there - 2000, knots, atol=1e-3)


def fitted_start(mixture, data):
    shares = np.stack([np.arange(40) % 2 == 0, np.arange(40) % 2 == 1]).astype(float)
    return moe.start_from(mixture, jnp.array([[1.5], [2.5]]), jnp.asarray(shares), moe.arrange(data))
