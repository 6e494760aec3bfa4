import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from causal import image_cate as ic
from causal import treatment_effects as te
from core.learner import seed_keys
from core.patches import patches

B, U, K = 5, 3, 3


class Nothing(nn.Module):
    """A trunk that sees nothing."""

    @nn.compact
    def __call__(self, x):
        return jnp.zeros((len(x), 1))


def case(dtype=float):
    rng = np.random.default_rng(0)
    outputs = ic.Outputs(rng.normal(size=(B, K)), rng.normal(size=B), None)
    effects = ic.Effects(rng.normal(size=K), rng.uniform(0.3, 2, K), rng.uniform(0.3, 2, K))
    t, y = rng.integers(0, 2, (B, U)).astype(dtype), rng.normal(size=(B, U))
    return jax.tree.map(jnp.asarray, (outputs, effects, t, y))


def test_the_mixture_likelihood_equals_scipys_and_so_do_its_gradients(record_property):
    with jax.enable_x64(True):
        outputs, effects, t, y = case()
        found = ic.mixture_log_density(outputs, effects, t, y)
        prior = scipy.special.log_softmax(outputs.logits, axis=1)
        mean = np.asarray(outputs.baseline)[:, None, None] + np.asarray(t)[..., None] * effects.mu
        sd = np.where(np.asarray(t)[..., None] > 0, effects.sigma1, effects.sigma0)
        each = prior[:, None] + scipy.stats.norm.logpdf(np.asarray(y)[..., None], mean, sd)
        expected = scipy.special.logsumexp(each, axis=-1)
        difference = float(np.abs(found - expected).max())
        flat, unravel = jax.flatten_util.ravel_pytree((outputs, effects))
        total = lambda v: ic.mixture_log_density(*unravel(v), t, y).sum()  # noqa: E731
        gradient = jax.grad(total)(flat)
        numeric = [(total(flat.at[i].add(1e-6)) - total(flat.at[i].add(-1e-6))) / 2e-6 for i in range(flat.size)]
        slopes = float(np.abs(gradient - np.array(numeric)).max())
        by_logit = jax.grad(lambda a: ic.mixture_log_density(outputs._replace(logits=a), effects, t, y).sum())
        responsibility = scipy.special.softmax(each, axis=-1).sum(1)
        np.testing.assert_allclose(by_logit(outputs.logits), responsibility - U * np.exp(prior), atol=1e-12)
    record_property("value", f"largest difference {difference:.0e}, of gradients {slopes:.0e}")
    assert difference < 1e-10
    assert slopes < 1e-6


def test_the_relaxed_likelihood_is_the_mixtures_where_the_cluster_is_certain():
    outputs, effects, t, y = case(np.float32)
    certain = outputs._replace(logits=1e3 * jax.nn.one_hot(jnp.arange(B) % K, K))
    blended = ic.blended_log_density(certain, effects, jax.nn.softmax(certain.logits), t, y)
    np.testing.assert_allclose(blended, ic.mixture_log_density(certain, effects, t, y), rtol=1e-4, atol=1e-5)


def test_one_cluster_without_a_trunk_is_the_difference_in_means(record_property):
    rng = np.random.default_rng(0)
    t, y = (rng.uniform(size=(400, 1)) < 0.3) * 1.0, rng.normal(size=(400, 1))
    y = np.where(t > 0, 1 + 2 * y, 0.5 * y)
    with jax.enable_x64(True):
        units = te.Units(jnp.zeros((400, 1)), *map(jnp.asarray, (t, y, np.ones_like(t))))
        model = ic.ClusterModel(ic.EffectNetwork(1, Nothing, "point"))
        params = jax.tree.map(lambda leaf: leaf.astype(float), model.init(jax.random.key(0), units))
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        loss = jax.jit(jax.value_and_grad(lambda v: -model.log_likelihood(unravel(v), jax.random.key(0), units)))
        best = scipy.optimize.minimize(lambda v: jax.tree.map(np.asarray, loss(v)), flat, jac=True, tol=1e-12)
        found = ic.draw_effects(unravel(jnp.asarray(best.x)))
    expected = (y[t > 0].mean() - y[t == 0].mean(), y[t == 0].std(), y[t > 0].std())
    difference = max(abs(float(a[0]) - b) for a, b in zip(found, expected, strict=True))
    record_property("value", f"largest difference {difference:.0e}")
    assert difference < 1e-4


def test_divergences_equal_the_closed_form_and_monte_carlo(record_property):
    q, p = ic.Normal(jnp.float32(0.3), jnp.float32(0.7)), ic.Normal(jnp.float32(-0.2), jnp.float32(1.1))
    kl = float(ic.normal_kl(q, p))
    assert kl == pytest.approx(np.log(1.1 / 0.7) + (0.7**2 + 0.5**2) / (2 * 1.1**2) - 0.5, rel=1e-5)
    x = 0.3 + 0.7 * np.random.default_rng(0).normal(size=100_000)
    ratio = scipy.stats.norm.logpdf(x, 0.3, 0.7) - scipy.stats.norm.logpdf(x, -0.2, 1.1)
    distance = abs(ratio.mean() - kl) / (ratio.std() / np.sqrt(len(x)))
    record_property("value", f"{distance:.2f} standard errors from Monte Carlo")
    assert distance < 3
    params = {"a": {"mean": jnp.full(2, 0.3), "rho": jnp.full(2, np.log(np.expm1(0.7)))}, "b": jnp.ones(3)}
    prior = {("a",): ic.Normal(jnp.full(2, -0.2), jnp.full(2, 1.1))}
    assert float(ic.total_kl(params, prior)) == pytest.approx(2 * kl, rel=1e-5)


def images(count=24, side=9, channels=2):
    return jax.random.normal(jax.random.key(1), (count, side, side, channels))


def small(estimator="reparam", clusters=2, **settings):
    trunk = functools.partial(ic.ConvTrunk, 3, 3, 2, estimator=estimator, channels=2)
    return ic.ClusterModel(ic.EffectNetwork(clusters, trunk, estimator, **settings))


def experiment(count=24):
    rng = np.random.default_rng(0)
    x, image = images(count), np.repeat(np.arange(count), 2)
    t = (rng.uniform(size=2 * count) < 0.5) * 1.0
    return x, image, t, rng.normal(size=2 * count) + t * np.asarray(x[image, 4, 4, 0])


def fitted(scale=1.0, shift=0.0):
    """Effects and probabilities of a fit to an outcome as it is, scaled and moved, by the class that users call."""
    x, image, t, y = experiment()
    found = ic.EffectClusters(small(), steps=10, batch_images=8).fit(jax.random.key(0), x, image, t, scale * y + shift)
    return np.asarray(found.effect()), np.asarray(found.clusters()), np.asarray(found.mu().value)


@pytest.mark.slow
def test_effects_follow_the_outcomes_scale_and_clusters_have_no_order(record_property):
    (effect, p, mu), (scaled, same, wider) = fitted(), fitted(3.0, 5.0)
    difference = max(np.abs(scaled / 3 - effect).max(), np.abs(same - p).max(), np.abs(wider / 3 - mu).max())
    record_property("value", f"largest difference {difference:.0e}")
    assert effect.std() > 0
    assert difference < 1e-4
    with jax.enable_x64(True):
        outputs, effects, t, y = case()
        swapped = outputs._replace(logits=outputs.logits[:, ::-1]), ic.Effects(*(v[::-1] for v in effects))
        found, expected = ic.mixture_log_density(*swapped, t, y), ic.mixture_log_density(outputs, effects, t, y)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@functools.cache
def drawn(estimator, conv=False, draws=20_000):
    """Outputs [draws, examples, features] of a layer with wide posteriors, and their exact mean and variance."""
    layer = ic.BayesConv(2, 3, 2, estimator, 2) if conv else ic.BayesDense(2, estimator)
    x = images(3, 5) if conv else jax.random.normal(jax.random.key(2), (3, 4))
    params = layer.init(jax.random.key(0), x)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full_like(leaf, -0.5) if path[-1].key == "rho" else leaf, params
    )
    one = lambda key: layer.apply(params, x, rngs={"weights": key})  # noqa: E731
    found = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(jax.random.split(jax.random.key(3), draws))
    inputs, kernel = (patches(x, 3, 2), params["params"]["kernel"]) if conv else (x, params["params"])
    variance = inputs**2 @ jnp.full_like(kernel["mean"], np.log1p(np.exp(-0.5)) ** 2)
    return np.asarray(found).reshape(draws, 3, -1), *(
        np.asarray(v).reshape(3, -1) for v in (inputs @ kernel["mean"], variance)
    )


@pytest.mark.slow
@pytest.mark.parametrize("conv", [False, True])
def test_estimators_agree_in_mean_and_variance(full_compilation, conv, record_property):
    """Each with the exact mean and variance of x W, sum_i x_i^2 sd_i^2, so that none is compared with itself."""
    worst, ratios = 0.0, []
    for estimator in ("reparam", "flipout", "local"):
        values, mean, variance = drawn(estimator, conv)
        se = values.std(0) / np.sqrt(len(values))
        worst = max(worst, float(np.abs((values.mean(0) - mean) / se).max()))
        ratios.append(values.var(0) / variance)
    ratio = np.stack(ratios)
    record_property("value", f"means within {worst:.1f} SE; variance over exact {ratio.min():.3f} to {ratio.max():.3f}")
    assert worst < 4
    assert np.abs(ratio - 1).max() < 0.05


@pytest.mark.slow
def test_flipout_and_local_are_independent_between_examples_and_reparam_is_not(full_compilation):
    for estimator, most in (("flipout", 0.05), ("local", 0.05), ("reparam", 1.0)):
        values = drawn(estimator)[0][:, :2, 0]
        correlation = abs(np.corrcoef(values.T)[0, 1])
        assert correlation < most
        assert (correlation > 0.2) == (estimator == "reparam")


def test_patches_make_a_convolution():
    layer, x = ic.BayesConv(4, 3, 2, channels=2), images(2)
    params = layer.init(jax.random.key(0), x)
    kernel = params["params"]["kernel"]["mean"].reshape(3, 3, 2, 4)
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-5)
    np.testing.assert_allclose(layer.apply(params, patches(x, 3, 2)), expected, atol=1e-5)


@pytest.mark.parametrize("settings", [{"shared": True}, {"image_effects": True}, {"clusters": 1}])
@pytest.mark.slow
def test_networks_have_the_outputs_of_their_kind(settings):
    model, x = small(**settings), images(6)
    units = te.Units(x, *jnp.ones((3, 6, 2)))
    found = model.outputs(model.init(jax.random.key(0), units), jax.random.key(1), x)
    clusters = settings.get("clusters", 2)
    assert found.logits.shape == (6, clusters)
    assert not found.logits[:, 0].any()
    assert found.baseline.shape == (6,)
    assert (found.effects is None) == ("image_effects" not in settings)


@pytest.mark.slow
def test_deep_trunks_pool_and_project_between_convolutions():
    trunk = ic.ConvTrunk(4, 3, 1, layers=2, dense=2, width=5, channels=2)
    params = trunk.init(jax.random.key(0), images(3, 12))
    assert trunk.apply(params, images(3, 12), mutable=["population"])[0].shape == (3, 5)
    assert params["params"]["BayesDense_0"]["mean"].shape == (4, 3)


def test_units_lie_by_image_and_weigh_alike():
    units = ic.by_image(np.zeros((3, 1)), np.array([2, 0, 2, 2]), np.array([1, 0, 1, 0]), np.array([5.0, 6, 7, 8]))
    np.testing.assert_allclose(units.weight, [[0.75, 0, 0], [0, 0, 0], [0.75, 0.75, 0.75]])
    np.testing.assert_array_equal(units.y[2], [5, 7, 8])
    np.testing.assert_array_equal(units.t[2], [1, 1, 0])


def test_balanced_keys_draw_each_image_once_for_each_arm():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(12), 3)
    units = ic.by_image(np.arange(12.0)[:, None], image, (rng.uniform(size=36) < 0.5) * 1.0, np.arange(36.0))
    for step in range(5):
        batch = ic.sample_balanced_keys(8)(units, jax.random.key(0), step)
        assert batch.t[:, 0].tolist() == [0.0] * 4 + [1.0] * 4
        for arm in (slice(0, 4), slice(4, 8)):
            assert len(set(batch.x[arm, 0].tolist())) == 4
        np.testing.assert_array_equal(batch.y[:, 0] // 3, batch.x[:, 0])  # a unit of its own image


@pytest.mark.slow
def test_runs_together_equal_runs_apart(full_compilation):
    x, image, t, y = experiment()
    units = ic.by_image(x, image, t, y)
    model, sample = small(), ic.sample_images(8)
    one = ic.Training(units)
    learner = model.learner(optax.nadam(1e-2))
    both = ic.Training(te.Units(x, *(jnp.stack([leaf, -leaf if i == 1 else leaf]) for i, leaf in enumerate(units[1:]))))
    draw = lambda data, key, step: data._replace(units=sample(data.units, key, step))  # noqa: E731
    together = ic.together(learner, draw, 2, ic.Training(te.Units(None, 0, 0, 0), None, None))
    state = jax.jit(together.init)(seed_keys([0, 1]), both)
    metrics = jax.jit(together.update)(state, both)[1]
    alone = jax.tree.map(lambda leaf: leaf[0], state)
    expected = jax.jit(learner.update)(alone, draw(one, alone.key, 0))[1]
    np.testing.assert_allclose(metrics["nll"][0], expected["nll"], rtol=1e-4)


def test_priors_are_those_of_the_data():
    rng = np.random.default_rng(0)
    t = (np.arange(400) % 2)[:, None] * 1.0
    y = rng.normal(size=(400, 1)) * (1 + t) + t
    prior = ic.cluster_prior(jax.random.key(0), te.Units(None, *map(jnp.asarray, (t, y, 0 * t + 1))), 50, 2_000)
    mu, rho1 = prior[("clusters", "mu")], prior[("clusters", "rho1")]
    assert float(mu.mean) == pytest.approx(y[t > 0].mean() - y[t == 0].mean(), abs=0.05)
    assert float(mu.sd) == pytest.approx(2 * np.sqrt(y[t > 0].var() / 25 + y[t == 0].var() / 25), rel=0.1)
    assert float(jax.nn.softplus(rho1.mean)) == pytest.approx(y[t > 0].std(), rel=0.1)


@pytest.mark.slow
def test_common_noise_is_one_number_and_makes_controls_silent_on_clusters():
    model, x = dataclasses.replace(small(), common_noise=True), images(6)
    units = te.Units(x, jnp.arange(12.0).reshape(6, 2) % 2, *jax.random.uniform(jax.random.key(5), (2, 6, 2)))
    params = model.init(jax.random.key(0), units)
    assert params["params"]["clusters"]["rho0"]["mean"].shape == (1,)
    assert ic.draw_effects(params).sigma0.shape == (2,)
    prior = ic.cluster_prior(jax.random.key(0), units, 4, 50)
    assert np.isfinite(ic.total_kl(params["params"], prior))
    controls = units._replace(weight=units.weight * (1 - units.t))
    slope = jax.grad(lambda p: model.log_likelihood(p, jax.random.key(0), controls))(params)["params"]["heads_0"]
    np.testing.assert_allclose(slope["mean"], 0, atol=1e-6)


def test_the_second_stages_prior_is_the_first_stages_posterior():
    model, x = small(), images(6)
    params = model.init(jax.random.key(0), te.Units(x, *jnp.ones((3, 6, 2))))
    prior, single = ic.empirical_prior(params), ic.kernel_prior(params)
    assert prior.keys() == single.keys()
    for path, q in ic.posteriors(params["params"]).items():
        if path[0] != "clusters":
            np.testing.assert_array_equal(prior[path].mean, q.mean)
            spread = np.asarray(q.mean).reshape(-1, *q.mean.shape[-2:])[0].std()
            np.testing.assert_allclose(prior[path].sd.ravel()[0], max(1e-3, 0.1 * spread), rtol=1e-4)
            assert not single[path].mean.any()


@pytest.mark.slow
def test_more_draws_of_the_weights_average_more():
    model, x = small(), images(6)
    units = te.Units(x, jnp.arange(12.0).reshape(6, 2) % 2, *jnp.ones((2, 6, 2)))
    params, keys = model.init(jax.random.key(0), units), jax.random.split(jax.random.key(1), 4)
    learner = dataclasses.replace(model, draws=4).learner(optax.sgd(0.1))
    state = jax.jit(learner.init)(jax.random.key(0), ic.Training(units))._replace(params=params)
    found = jax.jit(learner.update)(state, ic.Training(units))[1]["nll"]
    single = jax.vmap(lambda key: model.log_likelihood(params, key, units))(keys)
    np.testing.assert_allclose(found, -single.mean(), rtol=1e-2)


@pytest.mark.parametrize("design", ["S1", "S2", "S3"])
def test_designs_have_the_law_they_promise(design):
    x = ic.standardised(np.random.default_rng(0).integers(0, 255, (300, 11, 11, 3)).astype(np.uint8))
    made = [ic.simulate(design, x, seed) for seed in range(20)]
    assert made[0].image[:4].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(made[0].p.sum(1), 1)
    effects = [e.y[e.t == 1].mean() - e.y[e.t == 0].mean() for e in made]
    se = np.std(effects, ddof=1) / np.sqrt(len(effects))
    assert abs(np.mean(effects) - made[0].effect.mean()) < 4 * se
    if design == "S2":
        assert made[0].effect.std() == 0


def test_draws_are_made_in_the_published_order():
    x = ic.standardised(np.random.default_rng(0).integers(0, 255, (50, 11, 11, 3)).astype(np.uint8))
    e, rng = ic.simulate("S1", x, 7), np.random.default_rng(7)
    z = rng.uniform(size=100) < e.p[e.image, 1]
    tau = 2 * z + 0.3 * rng.normal(size=100)
    band = x[..., 1].mean((1, 2))
    y0 = 0.5 * ((band - band.mean()) / band.std())[e.image] + 0.5 * rng.normal(size=100)
    t = rng.uniform(size=100) < 0.5
    np.testing.assert_array_equal(e.t, t)
    np.testing.assert_allclose(e.y, y0 + t * tau)
