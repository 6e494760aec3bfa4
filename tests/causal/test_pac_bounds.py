"""The bounds: their arithmetic, what their proofs rest on, and what they do not depend on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import pac_invariance as pac
from causal.linear_sems import linear_sem, population, sample_moments


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_environments_of_a_finite_class():
    assert pac.environments_finite(63, 0.1, 0.05) == 72
    assert pac.finite_class(63, 72, 0.1) == pytest.approx(0.032, abs=5e-4)
    for z in (0.05, 0.1, 0.5):
        assert pac.finite_class(63, pac.environments_finite(63, z, 0.05), z) <= 0.05


def test_vc_dimensions_of_the_figure():
    assert pac.vc_soft([1, 2, 2]) == 1125
    assert pac.vc_hard(3) == 35
    assert pac.vc_any(2, 6) == pytest.approx(2 * 14 * math.log2(48 * math.e))
    assert pac.environments_vc(35, 0.1, 0.05) == math.ceil(8 * 35 / 0.1 * math.log2(130))


def grad_squared(k: int):
    """theta -> squared gradient gauge on the figure's SEM, for a random representation and predictor."""
    rng = np.random.default_rng(k)
    sem = pac.figure_sem(1.0)
    Phi = jnp.asarray(np.insert(rng.normal(size=(k, 6)), pac.TARGET, 0.0, axis=1))
    w = jnp.asarray(rng.normal(size=k))

    def value(theta):
        M = population(sem._replace(B=sem.B * theta)).second
        return pac.grad(w, pac.on_representation(M, pac.TARGET, Phi)) ** 2

    return jax.jit(jax.vmap(value)), rng


@pytest.mark.parametrize("sites", [(2,), (5,), (2, 3, 5)])
def test_the_squared_gradient_gauge_is_a_polynomial_of_degree_four_per_site(sites, record_property):
    value, rng = grad_squared(3)
    degree, worst = 4 * len(sites), 0.0
    at = np.isin(np.arange(7), sites)[:, None]
    for _ in range(5):
        start, step = (np.where(at, rng.normal(size=(7, 7)), fill) for fill in (1.0, 0.0))
        nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
        new = rng.uniform(-1, 1, 10)
        fitted = np.polynomial.chebyshev.Chebyshev.fit(nodes, _along(value, start, step, nodes), degree, domain=[-1, 1])
        truth = _along(value, start, step, new)
        worst = max(worst, np.abs(fitted(new) / truth - 1).max())
    assert worst < 1e-6
    record_property("value", f"sites {sites}: degree {degree} predicts new points within {worst:.0e}")


def _along(value, start, step, t):
    return np.asarray(value(jnp.asarray(start + step * t[:, None, None])))


def test_a_lower_degree_does_not_suffice():
    value, rng = grad_squared(3)
    at = np.arange(7)[:, None] == 3
    start, step = (np.where(at, rng.normal(size=(7, 7)), fill) for fill in (1.0, 0.0))
    nodes, new = np.linspace(-1, 1, 4), np.array([-0.77, 0.21, 0.5])
    fitted = np.polynomial.Polynomial.fit(nodes, _along(value, start, step, nodes), 3)
    assert np.abs(fitted(new) / _along(value, start, step, new) - 1).max() > 1e-6


def test_the_expected_error_of_least_squares_is_exact(record_property):
    sem, mask = pac.figure_sem(1.0), jnp.isin(jnp.arange(7), jnp.array([1, 3, 6]))
    at = pac.on_subset(population(sem).second, pac.TARGET, mask)
    w, chosen = np.asarray(at.best()), np.flatnonzero(mask)
    draw = jax.jit(jax.vmap(lambda k: pac.on_subset(sample_moments(k, sem, 40.0).second, pac.TARGET, mask).best()))
    errors = ((np.asarray(draw(jax.random.split(jax.random.key(0), 200_000))) - w) ** 2).sum(axis=1)
    H = np.asarray(at.H)[np.ix_(chosen, chosen)]
    exact = pac.expected_error(float(at.error(at.best())), H, 40)
    z = (errors.mean() - exact) / (errors.std() / math.sqrt(errors.size))
    assert abs(z) < 3
    assert abs(errors.mean() / pac.expected_error(float(at.error(at.best())), H, 44) - 1) > 0.05
    record_property("value", f"{errors.mean():.5f} against {exact:.5f}, {z:+.1f} standard errors")


def test_required_samples_invert_the_radius_and_hold():
    sem, mask = pac.figure_sem(1.0), jnp.isin(jnp.arange(7), jnp.array([1, 3]))
    at = pac.on_subset(population(sem).second, pac.TARGET, mask)
    H = np.asarray(at.H)[np.ix_([1, 3], [1, 3])]
    variance = float(at.error(at.best()))
    n = pac.required_samples(variance, H, 0.05, 0.05)
    assert pac.sample_radius(variance, H, n, 0.05) <= 0.05 < pac.sample_radius(variance, H, n - 1, 0.05)
    draw = jax.jit(jax.vmap(lambda k: pac.on_subset(sample_moments(k, sem, float(n)).second, 4, mask).best()))
    away = np.linalg.norm(np.asarray(draw(jax.random.split(jax.random.key(1), 4000)) - at.best()), axis=1)
    assert (away > 0.05).mean() < 0.06
    assert pac.required_samples(variance, H, 0.05, 0.05, 1000) > n


def test_end_to_end_takes_the_better_bound_and_adds_both_radii():
    H = np.eye(2)
    plan = pac.end_to_end(63, 1.0, H, eps=0.1, xi=0.02, z=0.1, delta=0.05)
    assert plan.tolerance == pytest.approx(0.14)
    assert plan.environments == pac.environments_finite(63, 0.1, 0.025)
    assert plan.samples == pac.required_samples(1.0, H, 0.02, 0.025, 63 * (plan.environments + 1))
    few = pac.end_to_end(10**300, 1.0, H, eps=0.1, xi=0.02, z=0.1, delta=0.05, vc=1)
    assert few.environments == pac.environments_vc(1, 0.1, 0.025) < pac.environments_finite(10**300, 0.1, 0.025)


@pytest.mark.slow
def test_irrelevant_nodes_change_neither_the_bound_nor_the_violations(record_property):
    small = pac.figure_sem()
    B = np.zeros((107, 107))
    B[:7, :7] = small.B
    B[7:, 7:] = np.tril(np.random.default_rng(0).random((100, 100)) < 0.02, -1)
    wide = linear_sem(jnp.asarray(B), 0.02)
    sites = (2, 3, 5)
    assert pac.vc_soft([int((wide.B[i] != 0).sum()) for i in sites]) == 1125
    found = []
    for sem in (small, wide):
        d = sem.B.shape[0]
        mask = jnp.isin(jnp.arange(d), jnp.array([1, 2, 6]))
        drawn = jax.vmap(lambda theta, sem=sem, d=d: sem._replace(B=sem.B * jnp.ones((d, d)).at[:7, :7].set(theta)))
        thetas = np.ones((300, 7, 7))
        thetas[:, list(sites)] = np.random.default_rng(1).normal(size=(300, 3, 7))
        M = jax.vmap(population)(drawn(jnp.asarray(thetas))).second
        w = pac.on_subset(population(sem).second, 4, mask).best()
        found.append(np.asarray(jax.vmap(lambda M, w=w, mask=mask: pac.coef(w, pac.on_subset(M, 4, mask)))(M)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    shares = [(gauge > 0.3).mean() for gauge in found]
    assert shares[0] == shares[1]
    assert 0.1 < shares[0] < 1
    record_property("value", f"Q = 1125 and V = {shares[0]:.3f} with 7 and with 107 nodes")
