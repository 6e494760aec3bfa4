import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from causal import image_cate as ic
from causal import treatment_effects as te
from core.errors import CheckpointError, ConfigError
from core.fit import fit
from core.learner import seed_keys

KEY = jax.random.key(0)


def arrays(images=24, seed=0):
    """Two units per image, whose effect is 2 where the image is bright in the first band."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=images)
    x = (rng.normal(size=(images, 9, 9, 2)) + level[:, None, None, None] * [1, 0]).astype(np.float32)
    image = np.repeat(np.arange(images), 2)
    t = (rng.uniform(size=2 * images) < 0.5) * 1.0
    y = 0.3 * rng.normal(size=2 * images) + t * 2 * (level[image] > 0)
    return {"x": x, "image": image, "t": t, "y": y}


def estimator(steps=3, two_stages=False, estimate="reparam", **settings):
    trunk = functools.partial(ic.ConvTrunk, 3, 3, 2, estimator=estimate, channels=2)
    model = ic.ClusterModel(ic.EffectNetwork(2, trunk, estimate))
    return ic.EffectClusters(model, steps, 8, two_stages=two_stages, **settings)


@functools.cache
def a_fit():
    return estimator().fit(KEY, **arrays())


@pytest.mark.slow
def test_a_fit_is_that_of_the_functional_core():
    given = arrays()
    y = (given["y"] - given["y"].mean()) / given["y"].std()
    one = ic.by_image(jnp.asarray(given["x"]), given["image"], given["t"], y)
    units = te.Units(one.x, *(leaf[None] for leaf in one[1:]))
    own = a_fit().estimator
    learner = ic.together(
        own.model.learner(ic.optimiser(1e-2, 3.0, own.steps)), ic.of_units(ic.sample_images(8)), 1,
        ic.Training(ic.SHARED_X, None, None),
    )  # fmt: skip
    data = ic.Training(units, None, jnp.float32(48))
    params = fit(learner, data, key=seed_keys([0]), steps=own.steps).state.params
    jax.tree.map(np.testing.assert_array_equal, a_fit().params, jax.tree.map(lambda leaf: leaf[0], params))
    expected = ic.predict(own.model, a_fit().params, one.x)
    np.testing.assert_allclose(a_fit().effect(), expected.effect[0] * given["y"].std(), rtol=1e-5)
    np.testing.assert_allclose(a_fit().clusters(), expected.p[0], rtol=1e-5)


@pytest.mark.slow
def test_two_stages_are_those_of_the_functional_core(tmp_path):
    given, own = arrays(), estimator(two_stages=True)
    found = own.fit(KEY, **given, workdir=tmp_path)
    y = (given["y"] - given["y"].mean()) / given["y"].std()
    one = ic.by_image(jnp.asarray(given["x"]), given["image"], given["t"], y)
    units = te.Units(one.x, *(leaf[None] for leaf in one[1:]))
    first = own.train(KEY[None], units)
    prior = jax.vmap(ic.empirical_prior)(first) | own.prior(units)
    second = jax.tree.map(lambda leaf: leaf[0], own.train(KEY[None], units, prior))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found.params, second)
    assert {path.name for path in tmp_path.iterdir()} == {"stage 1", "stage 2"}


@pytest.mark.slow
def test_effects_follow_the_outcomes_scale():
    given = arrays()
    moved = estimator().fit(KEY, **given | {"y": 3 * given["y"] + 5})
    np.testing.assert_allclose(moved.effect(), 3 * a_fit().effect(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved.mu().value, 3 * a_fit().mu().value, rtol=1e-3)
    np.testing.assert_allclose(moved.clusters(), a_fit().clusters(), atol=1e-4)


@pytest.mark.slow
def test_a_fit_is_a_tree_of_arrays_and_says_what_the_functions_say():
    found, x = a_fit(), jnp.asarray(arrays(6, 1)["x"])
    assert float(jax.tree.map(lambda leaf: 2 * leaf, found).sd) == pytest.approx(2 * float(found.sd))
    inside = jax.jit(lambda f, x: f.effect(x))(found, x)
    np.testing.assert_allclose(inside, found.effect(x), rtol=1e-4, atol=1e-5)
    moved = found.transport(x, (0.1, 0.9), key=KEY, draws=3)
    p = ic.predict(found.estimator.model, found.params, found.reference, KEY, 3, x).p
    expected = ic.transport(p, ic.cluster_posterior(found.params), (0.1, 0.9))
    for name, scale in (("p", 1), ("mean", found.sd), ("sd", found.sd), ("quantiles", found.sd)):
        np.testing.assert_allclose(getattr(moved, name), scale * getattr(expected, name), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_sandwich_of_other_units_uses_the_trainings_moments():
    """Asked of the training's own units it is the functional one; other images do not move each other's features."""
    found, given = a_fit(), arrays()
    y = (given["y"] - given["y"].mean()) / given["y"].std()
    units = ic.by_image(jnp.asarray(given["x"]), given["image"], given["t"], y)
    heads, features = ic.last_layers(found.estimator.model, found.params, units.x)
    expected = ic.sandwich(heads, features, units)
    own = found.sandwich(**given)
    np.testing.assert_allclose(own.value, expected.value * found.sd, rtol=0.02, atol=0.02)
    other = jnp.asarray(arrays(6, 1)["x"])
    whole, few = (ic.last_layers(found.estimator.model, found.params, units.x, x)[1] for x in (other, other[:2]))
    np.testing.assert_allclose(whole.clusters[:2], few.clusters, rtol=1e-4, atol=1e-5)


def test_members_have_halves_of_the_images_with_the_weight_of_all():
    given = arrays()
    one = ic.by_image(given["x"], given["image"], given["t"], given["y"])
    units = te.Units(one.x, *(jnp.stack([leaf, leaf]) for leaf in one[1:]))
    halves = ic.half_sampled(KEY, units, 5)
    assert halves.y.shape == (10, 24, 2)
    weight = np.asarray(halves.weight)
    np.testing.assert_allclose(weight.sum((1, 2)), one.weight.sum(), rtol=1e-6)
    assert ((weight > 0).all(2).sum(1) == 12).all()
    assert len(np.unique(weight[..., 0], axis=0)) == 10


def test_an_ensembles_interval_is_students_and_as_wide_as_the_standard_error_of_all_data():
    """A mean by half-samples: coverage of eight members over many data sets, at the width that theory gives."""

    def one(key):
        data_key, half_key = jax.random.split(key)
        x = jax.random.normal(data_key, (100,))
        weight = ic.half_sampled(half_key, te.Units(None, *jnp.ones((3, 1, 100, 1))), 8).weight[..., 0]
        return ic.Ensemble((weight @ x / weight.sum(1))[:, None])

    found = jax.vmap(one)(jax.random.split(KEY, 2_000)).mu
    ensembles = [ic.Ensemble(mu) for mu in np.asarray(found)]
    held = np.mean([low <= 0 <= high for low, high in (e.interval(0.9) for e in ensembles)])
    assert 0.88 < held < 0.92
    se = np.sqrt(np.mean([float(e.se[0]) ** 2 for e in ensembles]))
    assert se == pytest.approx(0.1 * np.sqrt(1 + 1 / 8), rel=0.03)
    low, high = ic.Ensemble(jnp.array([[0.0], [2.0]])).interval(0.9)
    half = scipy.stats.t.ppf(0.95, 1) * np.sqrt(2) * np.sqrt(1.5)
    np.testing.assert_allclose([low[0], high[0]], [1 - half, 1 + half], rtol=1e-5)


@pytest.mark.slow
def test_an_ensemble_is_of_whole_refits_sorted_by_effect():
    found = estimator().ensemble(KEY, **arrays(), members=3)
    assert found.mu.shape == (3, 2)
    assert (jnp.diff(found.mu) > 0).all()
    assert (found.se > 0).all()
    assert len(np.unique(np.asarray(found.mu))) == 6


@pytest.mark.slow
def test_a_planted_effect_is_found(full_compilation):
    """Clusters at 0 and 2, by the brightness of the first band."""
    given = arrays(300)
    found = estimator(300, estimate="point").fit(KEY, **given)
    np.testing.assert_allclose(found.mu().value, [0, 2], atol=0.35)


BAD = {
    "x has 1 values": {"x": np.where(np.arange(24 * 162).reshape(24, 9, 9, 2) == 5, np.nan, 1)},
    r"x has shape \(24, 9, 9\), but images are .*; give grey images a channel": {"x": np.ones((24, 9, 9))},
    r"x has shape \(24, 2, 9, 9, 1\), but images are": {"x": np.ones((24, 2, 9, 9, 1))},
    r"as if its 3 channels came first; .*: x.transpose\(0, 2, 3, 1\)": {"x": np.ones((24, 3, 9, 9))},
    "x has rows of different shapes; make them alike": {"x": [np.ones((9, 9, 2))] * 23 + [np.ones((8, 9, 2))]},
    "number names by names, image = np.unique": {"image": np.array(["a", "b"] * 24)},
    "image must hold the place in x, 0 to 23": {"image": np.arange(48)},
    "t holds 3": {"t": np.arange(48) % 2 * 3.0},
    "y has shape": {"y": np.ones(3)},
    "y is 1 for every unit": {"y": np.ones(48)},
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_used_is_named_before_training(message):
    with pytest.raises(ConfigError, match=message):
        estimator().fit(KEY, **arrays() | BAD[message])


def test_an_ensemble_needs_two_members():
    with pytest.raises(ConfigError, match="members is 1"):
        estimator().ensemble(KEY, **arrays(), members=1)


@pytest.mark.slow
def test_a_workdir_is_refused_for_other_units(tmp_path):
    estimator().fit(KEY, **arrays(), workdir=tmp_path)
    with pytest.raises(CheckpointError, match="belongs to another run: its data"):
        estimator().fit(KEY, **arrays(seed=1), workdir=tmp_path)


def test_effects_are_asked_of_images_like_those_of_the_fit():
    with pytest.raises(ConfigError, match=r"x has shape \(3, 5, 5, 2\), but the fit was given \[images, 9, 9, 2\]"):
        a_fit().effect(np.zeros((3, 5, 5, 2)))
    with pytest.raises(ConfigError, match="x has 324 values that are NaN"):
        a_fit().clusters(np.full((2, 9, 9, 2), np.nan))
    with pytest.raises(ConfigError, match="levels at place 0 must be"):
        a_fit().transport(np.zeros((3, 9, 9, 2)), (5.0,), key=KEY)
