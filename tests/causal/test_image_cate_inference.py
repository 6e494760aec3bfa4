import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from causal import image_cate as ic
from causal import treatment_effects as te
from causal.image_cate.intervals import head_log_likelihood


def numpy_box(values, size):
    rows, columns = (n - size + 1 for n in values.shape)
    return np.array([[values[i : i + size, j : j + size].mean() for j in range(columns)] for i in range(rows)])


def test_sensitivity_of_a_linear_logit_is_known(record_property):
    w, image = jax.random.normal(jax.random.key(0), (2, 14, 13, 3)) / 20
    probability = lambda m: jax.nn.sigmoid((w * m).sum())  # noqa: E731
    found = ic.sensitivity(probability, image, smoothing=0.0)
    norm = np.sqrt(np.square(np.asarray(w) + 1e-7).sum(-1))
    difference = np.abs(found.magnitude - numpy_box(norm, 10)).max()
    np.testing.assert_allclose(found.direction, numpy_box(np.asarray(w).mean(-1), 10), atol=1e-6)
    p = float(probability(image))
    pt = 0.99 * p + 0.005
    factor = 0.99 * p * (1 - p) / (pt * (1 - pt))
    smooth = ic.sensitivity(probability, image)
    difference = max(difference, np.abs(smooth.magnitude - factor * numpy_box(norm, 10)).max())
    record_property("value", f"largest difference {difference:.0e} of {norm.mean():.2f}")
    assert difference < 1e-6
    assert smooth.magnitude.shape == (5, 4)


def test_the_log_odds_are_finite_at_both_ends():
    for clusters in (2, 3):
        values = ic.smoothed_log_odds(jnp.array([0.0, 1 / clusters, 1.0]), clusters)
        assert np.isfinite(values).all()
        assert float(values[1]) == pytest.approx(np.log(1 / (clusters - 1)), abs=1e-5)


def test_segments_are_averaged():
    found = ic.by_segment(jnp.arange(6.0).reshape(2, 3), jnp.array([[0, 0, 2], [1, 1, 1]]), 4)
    np.testing.assert_allclose(found, [0.5, 4.0, 2.0, 0.0])


def test_quantiles_of_mixtures_invert_their_distribution(record_property):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        mixture = ic.Mixture(
            jax.nn.softmax(jax.random.normal(keys[0], (50, 3))), 4 * jax.random.normal(keys[1], (50, 3)),
            jax.random.uniform(keys[2], (50, 3), minval=0.05, maxval=2.0),
        )  # fmt: skip
        worst = max(
            float(jnp.abs(mixture.cdf(ic.quantile(mixture, u)) - u).max()) for u in (0.01, 0.05, 0.5, 0.9, 0.999)
        )
        single = ic.Mixture(jnp.ones(1), jnp.full(1, 0.3), jnp.full(1, 2.0))
        assert float(ic.quantile(single, 0.9)) == pytest.approx(scipy.stats.norm.ppf(0.9, 0.3, 2.0), abs=1e-9)
    record_property("value", f"largest difference {worst:.0e}")
    assert worst < 1e-6


def test_moments_of_mixtures_are_those_of_draws():
    weight, mean, sd = np.array([0.3, 0.7]), np.array([-1.0, 2.0]), np.array([0.5, 1.5])
    rng = np.random.default_rng(0)
    z = (rng.uniform(size=200_000) < 0.7) * 1
    x = mean[z] + sd[z] * rng.normal(size=len(z))
    found = ic.Mixture(*map(jnp.asarray, (weight, mean, sd))).moments()
    np.testing.assert_allclose(found, (x.mean(), x.std()), rtol=0.02)


def posterior(**changed):
    two = {"mu": [0.0, 2.0], "mu_sd": [0.1, 0.2], "sigma0": [0.5, 0.5], "sigma1": [0.6, 0.7]} | changed
    return ic.Posterior(jnp.arange(2), *(jnp.asarray(v) for v in two.values()))


@pytest.mark.slow
def test_transport_does_not_depend_on_the_chunk():
    p = jax.nn.softmax(jax.random.normal(jax.random.key(0), (4, 10, 2)))
    found, other = (ic.transport(p, posterior(), chunk=chunk) for chunk in (3, 10))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, other)
    np.testing.assert_allclose(found.mean, 2 * p.mean(0)[:, 1], rtol=1e-5)
    certain = jnp.tile(jnp.array([1.0, 0.0]), (4, 10, 1))
    mean_effect = ic.transport(certain, posterior(), individual=False)
    np.testing.assert_allclose(mean_effect.sd, 0.1, rtol=1e-4)
    np.testing.assert_allclose(mean_effect.quantiles[0], scipy.stats.norm.ppf([0.05, 0.5, 0.95], 0, 0.1), atol=1e-4)
    assert (ic.transport(certain, posterior()).sd > 0.7).all()


def test_temporary_memory_of_transport_does_not_grow_with_images():
    def spare(n):
        p = jax.ShapeDtypeStruct((4, n, 2), jnp.float32)
        compiled = jax.jit(lambda p: ic.transport(p, posterior(), chunk=256)).lower(p).compile()
        return compiled.memory_analysis().temp_size_in_bytes - 4 * 4 * n * 2  # the input with images first

    assert spare(8_192) <= 1.05 * spare(1_024)


@functools.cache
def fitted_model():
    x = jax.random.normal(jax.random.key(1), (12, 9, 9, 2))
    trunk = functools.partial(ic.ConvTrunk, 3, 3, 2, channels=2)
    model = ic.ClusterModel(ic.EffectNetwork(2, trunk))
    units = te.Units(x, jnp.arange(24.0).reshape(12, 2) % 2, *jnp.ones((2, 12, 2)))
    params = model.init(jax.random.key(0), units)
    return model, params, x


@pytest.mark.slow
def test_predictions_of_new_images_use_the_training_images_moments():
    model, params, x = fitted_model()
    whole = ic.predict(model, params, x, jax.random.key(3), 2)
    again = ic.predict(model, params, x, jax.random.key(3), 2, x=x[:5], chunk=2)
    np.testing.assert_allclose(again.effect, whole.effect[:, :5], rtol=1e-4, atol=1e-5)
    assert whole.p.shape == (2, 12, 2)
    mu = np.sort(params["params"]["clusters"]["mu"]["mean"])
    point = ic.predict(model, params, x)
    np.testing.assert_allclose(point.effect[0], point.p[0] @ mu, rtol=1e-4)


@pytest.mark.slow
def test_clusters_are_sorted_by_effect():
    model, params, x = fitted_model()
    before = ic.predict(model, params, x)
    flipped = jax.tree.map(jnp.array, params)
    flipped["params"]["clusters"]["mu"]["mean"] = params["params"]["clusters"]["mu"]["mean"][::-1]
    after = ic.predict(model, flipped, x)
    np.testing.assert_allclose(after.p, before.p[..., ::-1], rtol=1e-6)
    assert (jnp.diff(ic.cluster_posterior(flipped).mu) > 0).all()


@pytest.mark.slow
def test_last_layers_say_what_the_model_says():
    model, params, x = fitted_model()
    heads, features = ic.last_layers(model, params, x)
    t, y = jnp.arange(24.0).reshape(12, 2) % 2, jax.random.normal(jax.random.key(4), (12, 2))
    units = te.Units(x, t, y, jnp.ones((12, 2)))
    expected = ic.held_out_log_likelihood(model, params, x, units)
    np.testing.assert_allclose(head_log_likelihood(heads, features, units).sum() / 24, expected, rtol=1e-4)


def known_features(key, n=500):
    keys = jax.random.split(key, 6)
    h = jax.random.normal(keys[0], (n, 2))
    t = jax.random.bernoulli(keys[1], 0.5, (n, 2)).astype(jnp.float32)
    z = (jax.random.uniform(keys[2], (n, 2)) < jax.nn.sigmoid(3 * h[:, :1])).astype(jnp.float32)
    y = 0.5 * h[:, 1:] + 2 * z * t + 0.5 * jax.random.normal(keys[3], (n, 2))
    heads = ic.Heads(jnp.array([[2.0], [0.0], [0.0]]), jnp.array([0.0, 0.4, 0.0]), jnp.array([0.2, 1.7]),
                     jnp.log(jnp.full(2, 0.6)), jnp.log(jnp.full(2, 0.6)))  # fmt: skip
    return heads, ic.Features(h, h), te.Units(None, t, y, jnp.ones((n, 2)))


@pytest.mark.slow
def test_the_sandwichs_interval_covers_where_features_are_known(full_compilation):
    """90 % intervals of both effects in 60 data sets of 500 images."""
    found = jax.jit(jax.vmap(lambda key: ic.sandwich(*known_features(key))))(jax.random.split(jax.random.key(0), 60))
    low, high = found.interval(0.9)
    held = ((low <= jnp.array([0.0, 2.0])) & (jnp.array([0.0, 2.0]) <= high)).mean(0)
    assert (held >= 0.8).all()
    np.testing.assert_allclose(found.se.mean(0), found.value.std(0, ddof=1), rtol=0.3)
