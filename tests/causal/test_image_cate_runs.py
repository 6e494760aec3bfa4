"""Simulated experiments on the same images, scores of estimates, folds by image, and networks beside the clusters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import image_cate as ic
from causal import treatment_effects as te
from core.learner import seed_keys


@functools.cache
def runs():
    pixels = ic.standardised(ic.textures(30))
    return pixels, ic.simulated("S1", pixels, np.zeros((30, 1), np.float32), (0, 1))


def test_textures_hold_a_spot_that_the_response_finds():
    images = ic.textures(50)
    assert images.shape == (50, 39, 39, 3)
    assert ic.response_map(images[..., 0]).max((1, 2)).min() > 0


def test_units_of_chosen_images_weigh_as_many_as_all():
    _, made = runs()
    kept = np.arange(30) < 18
    found = np.asarray(made.only(kept).weight)
    assert found.sum() == pytest.approx(2 * 30)
    assert not found[:, 18:].any()
    np.testing.assert_array_equal(ic.one_of(made.units, 1).y, made.of(1).y)


def test_the_truth_scores_perfectly_and_a_constant_does_not():
    _, made = runs()
    e = made.experiments[0]
    found = ic.scores(e, ic.Found(e.effect, e.p, e.mu))
    assert found["PEHE"] == 0
    assert found["corr(tau)"] == pytest.approx(1)
    assert found["corr(p)"] == pytest.approx(1)
    assert found["largest |mu error|"] == 0
    constant = ic.scores(e, ic.Found(np.ones(30)))
    assert constant["PEHE"] == pytest.approx(np.sqrt(np.mean((1 - e.effect) ** 2)))
    assert "corr(tau)" not in constant


def test_intervals_of_every_images_effect_are_counted():
    _, made = runs()
    e = made.experiments[0]
    draws = e.effect + np.linspace(-1, 1, 41)[:, None] + np.where(np.arange(30) < 3, 5.0, 0.0)
    found = ic.scores(e, ic.Found(e.effect, draws=draws))
    assert found["coverage of tau(m), 90 %"] == pytest.approx(0.9)


def test_halves_are_halves_of_their_own():
    found = ic.halves(31, (0, 1, 2))
    assert found.sum(1).tolist() == [15] * 3
    assert (found[0] != found[1]).any()


def test_two_clusters_of_effects_are_found_by_kmeans():
    _, made = runs()
    effects = jnp.where(jnp.arange(30) < 10, 1.0, -1.0)
    found = ic.by_kmeans(made, jnp.stack([effects, effects]))[0]
    assert found.mu is not None
    assert found.p is not None
    np.testing.assert_allclose(found.mu, [-made.sd[0], made.sd[0]], rtol=1e-5)
    np.testing.assert_allclose(found.effect, np.asarray(effects) * made.sd[0], rtol=1e-5)
    assert found.p[:10, 1].all()


def test_every_image_is_told_by_the_run_that_lacks_it():
    rng = np.random.default_rng(0)
    fold = np.stack([rng.permutation(12) % 3 for _ in range(2)])
    units = te.Units(np.zeros((12, 1)), *jnp.ones((3, 12, 2)))
    many = ic.without_folds(units, fold, 3)
    weight = np.asarray(many.weight).reshape(2, 3, 12, 2)
    for s in range(2):
        for k in range(3):
            assert not weight[s, k][fold[s] == k].any()
            assert weight[s, k].sum() == pytest.approx(24)
    told = np.broadcast_to(np.arange(6)[:, None, None], (6, 12, 2))
    np.testing.assert_array_equal(ic.of_own_fold(told, fold)[..., 0], fold + np.array([[0], [3]]))


def test_ridge_outcomes_are_those_of_other_folds():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(300, 2)), (rng.uniform(size=300) < 0.5) * 1.0
    y = x @ np.array([1.0, -1.0]) + t * (2 + x[:, 0])
    fold = np.arange(300) % 3
    m = ic.ridge_outcomes(x, t, y, fold, 1e-6)
    np.testing.assert_allclose(m[1] - m[0], 2 + x[:, 0], atol=1e-4)
    spoilt = np.where(fold == 0, 100.0, y)
    changed = ic.ridge_outcomes(x, t, spoilt, fold, 1e-6)
    np.testing.assert_allclose(changed[:, fold == 0], m[:, fold == 0])
    assert not np.allclose(changed[:, fold == 1], m[:, fold == 1])


def test_band_components_are_uncorrelated():
    pixels, _ = runs()
    found = ic.band_components(np.asarray(pixels, float), 5)
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(5), atol=1e-6)


@pytest.mark.slow
def test_networks_of_all_runs_regress_units_and_targets():
    x = jax.random.normal(jax.random.key(0), (64, 3))
    t = jnp.asarray(np.tile([[0.0, 1.0]], (64, 1)))
    y = x[:, :1] + t * jnp.array([1.0])
    units = te.Units(x, *(jnp.stack([v, v]) for v in (t, y, jnp.ones_like(t))))
    way, trunk = ic.ImageNetworks(400, 32, 1e-2), functools.partial(te.Mlp, (16,))
    outcomes = way.fit(te.TNet(trunk), units, seed_keys((0, 1)))
    assert outcomes.shape == (2, 64, 2)
    np.testing.assert_allclose(te.effect_of(outcomes), 1.0, atol=0.3)
    value = jnp.stack([x[:, :1], -x[:, :1]])
    target = te.Target(x, value, jnp.ones_like(value))
    effects = way.fit(te.Scalar(trunk), target, seed_keys((0, 1)))
    assert np.corrcoef(effects[0], effects[1])[0, 1] < -0.9


@pytest.mark.slow
def test_every_meta_learner_finds_a_constant_effect(tmp_path):
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(200, 3)), (rng.uniform(size=200) < 0.5) * 1.0
    y = x[:, 0] + 2 * t
    units = te.Units(*(jnp.asarray(v, jnp.float32) for v in (x, t, y, np.ones(200))))
    found = te.plain_effects(
        jax.random.key(0), units, units.x[:20], functools.partial(te.Mlp, (16,)), 0.5, 300, workdir=tmp_path
    )
    assert set(found) == {"T-learner", "S-learner", "TARNet", "X-learner", "DR-learner", "R-learner"}
    for name, effect in found.items():
        assert np.mean(np.asarray(effect)) == pytest.approx(2, abs=0.4), name
