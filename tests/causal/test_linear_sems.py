"""Linear SEMs: moments against sempler and direct sampling, and what each family of interventions changes."""

import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from causal.linear_sems import (
    draw_moments,
    environments,
    from_pairs,
    hard,
    linear_sem,
    moments_of,
    noise,
    observational,
    population,
    rademacher,
    random_sem,
    sample,
    sample_moments,
    shift,
    soft,
    total_effects,
)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def small_sem():
    """Four nodes, of which one has unusual noise and one a mean."""
    B = jnp.array([[0, 0, 0, 0], [1.2, 0, 0, 0], [-0.7, 0.5, 0, 0], [0, 0.9, -1.1, 0]], float)
    return linear_sem(B, jnp.array([1.0, 0.5, 0.8, 0.3]))._replace(mean=jnp.array([0.0, 0.4, 0.0, 0.0]))


def test_population_moments_and_regressions_agree_with_sempler(record_property):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sempler = pytest.importorskip("sempler")
    worst = 0.0
    for seed in range(5):
        sem = random_sem(jax.random.key(seed), 8)
        sem = sem._replace(mean=jax.random.normal(jax.random.key(100 + seed), (8,)))
        theirs = sempler.LGANM(np.asarray(sem.B).T, np.asarray(sem.mean), np.diagonal(sem.scale) ** 2)
        law = theirs.sample(population=True)
        ours = population(sem)
        worst = max(worst, np.abs(ours.second - law.covariance - np.outer(law.mean, law.mean)).max())
        worst = max(worst, np.abs(np.asarray(ours.mean) - law.mean).max())
        features = [0, 2, 5]
        b, _ = law.regress(7, features)
        mine = np.linalg.solve(ours.covariance[np.ix_(features, features)], ours.covariance[features, 7])
        np.testing.assert_allclose(mine, b[features], atol=1e-10)
    assert worst < 1e-12 * max(1.0, float(jnp.abs(ours.second).max()))
    record_property("value", f"largest difference {worst:.0e}")


@given(st.integers(0, 1000), st.integers(2, 12))
@settings(max_examples=10, deadline=None)
def test_total_effects_invert_one_less_weights(seed, d):
    with jax.enable_x64(True):
        B = jnp.asarray(np.tril(np.random.default_rng(seed).normal(size=(d, d)), -1))
        np.testing.assert_allclose(total_effects(B) @ (jnp.eye(d) - B), np.eye(d), atol=1e-8)


def test_drawn_moments_have_the_law_of_sampled_ones(record_property):
    draws = 20_000
    sem = hard(small_sem(), jnp.arange(4) == 1)(jax.random.key(5))
    upper = np.triu_indices(4)

    @jax.jit
    def run(key):
        keys = jax.random.split(key, (2, draws))
        drawn = jax.vmap(lambda k: sample_moments(k, sem, 50.0))(keys[0])
        sampled = jax.lax.map(lambda k: moments_of(sample(k, sem, 50)), keys[1], batch_size=2000)
        return [jnp.concatenate([m.second[:, upper[0], upper[1]], m.mean], axis=1) for m in (drawn, sampled)]

    a, b = map(np.asarray, run(jax.random.key(3)))
    spread = a.std(axis=0)
    free = spread > 1e-9
    np.testing.assert_allclose(a[:, ~free], b[:, ~free], atol=1e-9)
    a, b = a[:, free] / spread[free], b[:, free] / spread[free]
    worst = 0.0
    for x, y in ((a, b), (_products(a), _products(b))):
        error = np.sqrt(x.var(axis=0) / draws + y.var(axis=0) / draws)
        worst = max(worst, (np.abs(x.mean(axis=0) - y.mean(axis=0)) / error).max())
    assert worst < 4, f"{worst} standard errors, over {a.shape[1]} means and their covariances"
    assert free.sum() >= 10
    record_property("value", f"means and covariances within {worst:.1f} standard errors of those of direct samples")


def _products(x):
    x = x - x.mean(axis=0)
    i, j = np.triu_indices(x.shape[1])
    return x[:, i] * x[:, j]


def test_drawn_moments_converge_to_the_population():
    sem = small_sem()
    drawn = jax.jit(sample_moments)(jax.random.key(0), sem, 1e12)
    np.testing.assert_allclose(drawn.second, population(sem).second, rtol=1e-4, atol=1e-5)


def test_families_change_what_they_say_and_nothing_else():
    sem, sites = small_sem(), jnp.array([False, False, True, False])
    at = np.asarray(sites)
    made = {
        name: jax.device_get(environments(family, jax.random.key(0), 200))
        for name, family in {
            "hard": hard(sem, sites, 2.0),
            "soft": soft(sem, sites),
            "shift": shift(sem, sites),
            "noise": noise(sem, sites, 0.5, 2.0),
            "rademacher": rademacher(sem, 3),
            "observational": observational(sem),
        }.items()
    }
    for name in ("hard", "soft", "shift", "noise"):
        np.testing.assert_array_equal(made[name].B[:, ~at], np.broadcast_to(sem.B, (200, 4, 4))[:, ~at])
    assert np.all(made["hard"].B[:, at] == 0)
    assert np.all(made["hard"].scale[:, at] == 0)
    assert made["hard"].mean[:, 2].std() == pytest.approx(2.0, rel=0.2)
    np.testing.assert_array_equal(made["soft"].B[:, 2] == 0, np.broadcast_to(sem.B[2] == 0, (200, 4)))
    assert made["shift"].mean[:, 2].std() == pytest.approx(1.0, rel=0.2)
    ratio = (made["noise"].scale[:, 2, 2] / sem.scale[2, 2]) ** 2
    assert 0.5 <= ratio.min() < 0.7 < 1.8 < ratio.max() <= 2.0
    np.testing.assert_array_equal(np.abs(made["rademacher"].B), np.broadcast_to(np.abs(sem.B), (200, 4, 4)))
    assert np.all(made["rademacher"].B[:, 3] >= 0)
    assert 0.35 < (made["rademacher"].B[:, 1, 0] > 0).mean() < 0.65
    np.testing.assert_array_equal(made["observational"].B[7], sem.B)


def test_a_family_may_be_a_function_of_a_key_to_weights_and_noise():
    sem = small_sem()._replace(mean=jnp.zeros(4))

    def mine(key):
        return sem.B, sem.W * jnp.exp(jax.random.normal(key))

    drawn = environments(from_pairs(mine), jax.random.key(1), 3)
    for i, key in enumerate(jax.random.split(jax.random.key(1), 3)):
        np.testing.assert_allclose(jax.tree.map(lambda leaf, i=i: leaf[i], drawn).W, mine(key)[1], atol=1e-12)
    assert draw_moments(from_pairs(mine), jax.random.key(1), 3, 100.0).second.shape == (3, 4, 4)


def test_random_sems_are_acyclic_with_weights_and_degree_as_asked():
    sems = jax.jit(jax.vmap(lambda k: random_sem(k, 10)))(jax.random.split(jax.random.key(0), 200))
    B = np.asarray(sems.B)
    assert np.all(np.linalg.matrix_power(B, 10) == 0) or np.abs(np.linalg.matrix_power(B, 10)).max() < 1e-9
    size = np.abs(B[B != 0])
    assert 0.5 <= size.min() < size.max() <= 1.5
    assert (B != 0).sum() * 2 / (200 * 10) == pytest.approx(2.0, abs=0.2)


def test_weights_tell_padding_from_data():
    x = np.random.default_rng(0).normal(size=(30, 4))
    padded = moments_of(jnp.asarray(np.vstack([x, np.full((5, 4), 9.0)])), jnp.asarray([1.0] * 30 + [0.0] * 5))
    plain = moments_of(jnp.asarray(x))
    np.testing.assert_allclose(padded.second, plain.second, atol=1e-12)
    np.testing.assert_allclose(plain.covariance, np.cov(x.T, bias=True), atol=1e-12)
    assert padded.n == 30
