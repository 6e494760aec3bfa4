import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from causal import treatment_effects as te
from core.batches import epoch_sampler
from core.errors import ConfigError
from core.fit import fit
from core.learner import with_sampler

KINDS = ("S", "T", "TARNet", "X", "DR", "R")
KEY = jax.random.key(0)


class Same(nn.Module):
    """Features that are the inputs: linear regression."""

    @nn.compact
    def __call__(self, x):
        return x


class Nothing(nn.Module):
    """Features that say nothing: a mean."""

    @nn.compact
    def __call__(self, x):
        return jnp.zeros((len(x), 1))


SMALL = functools.partial(te.Mlp, (4,))


def table(n=60, seed=0):
    """A confounded trial, two units to a group, with the effect 1 + 2 x_1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    e = 1 / (1 + np.exp(-x[:, 0]))
    t = (rng.uniform(size=n) < e) * 1.0
    effect = 1 + 2 * x[:, 1]
    y = 2 * x[:, 0] + t * effect + 0.5 * rng.normal(size=n)
    return {"x": x, "t": t, "y": y, "propensity": e, "groups": np.arange(n) // 2}, effect


def fitted(kind="T", trunk=SMALL, steps=2, folds=3, batch=None, learning_rate=3e-3, key=KEY, draws=0, **changed):
    learner = te.MetaLearner(kind, trunk, steps, batch, learning_rate, folds)
    return learner.fit(key, **table()[0] | changed, draws=draws)


@functools.cache
def a_fit():
    return fitted("T", draws=20)


def by_hand(make, module, batch, units, steps=3):
    """The same training from the functional core."""
    learner = make(module, optax.adam(optax.cosine_decay_schedule(3e-3, steps)))
    learner = with_sampler(learner, epoch_sampler(batch)) if batch else learner
    return fit(learner, units, key=KEY, steps=steps).state.params


BATCHES = pytest.param("T", te.TNet, 16, marks=pytest.mark.slow)


@pytest.mark.parametrize(("kind", "network", "batch"), [("TARNet", te.TarNet, None), BATCHES])
def test_a_fit_to_all_units_is_that_of_the_functional_core(kind, network, batch):
    arrays, _ = table()
    x, t = (jnp.asarray(arrays[name], jnp.float32) for name in ("x", "t"))
    y = jnp.asarray((arrays["y"] - arrays["y"].mean()) / arrays["y"].std(), jnp.float32)
    units, module = te.Units(x, t, y, jnp.ones(len(x))), network(SMALL)
    params = by_hand(te.outcome_learner, module, batch, units)
    found = fitted(kind, steps=3, batch=batch, folds=1)
    assert found.out_of_fold is None
    expected = te.effect_of(module.apply(params, x)) * arrays["y"].std()
    np.testing.assert_allclose(found.effect(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_x_learner_is_that_of_the_functional_core():
    arrays, _ = table()
    x, t = (jnp.asarray(arrays[name], jnp.float32) for name in ("x", "t"))
    y = jnp.asarray((arrays["y"] - arrays["y"].mean()) / arrays["y"].std(), jnp.float32)
    units, module, scalar = te.Units(x, t, y, jnp.ones(len(x))), te.TNet(SMALL), te.Scalar(SMALL)
    m = module.apply(by_hand(te.outcome_learner, module, None, units), x)
    both = [scalar.apply(by_hand(te.regression_learner, scalar, None, target), x) for target in te.x_targets(units, m)]
    expected = te.x_effect(*both, arrays["propensity"].mean()) * arrays["y"].std()
    np.testing.assert_allclose(fitted("X", steps=3, folds=1).effect(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["T", "X", "DR", "R"])
def test_a_linear_effect_is_recovered_in_fold_and_out_of_fold(full_compilation, kind):
    """With assignment that depends on a confounder: the raw difference of means is off by about 2."""
    arrays, effect = table(1_000)
    learner = te.MetaLearner(kind, Same, steps=400, learning_rate=0.05)
    found = learner.fit(KEY, **arrays, draws=20)
    for estimate in (found.effect(arrays["x"]), found.out_of_fold.effect):
        assert float(np.sqrt(np.mean((estimate - effect) ** 2))) < 0.25
    low, high = found.interval(arrays["x"], 0.95)
    assert 0.8 < np.mean((low <= effect) & (effect <= high)) <= 1
    evaluated = found.evaluate(jax.random.key(1))
    assert float(evaluated.rate.autoc.value) > 5 * float(evaluated.rate.autoc.se)
    assert abs(float(evaluated.calibration.slope.value) - 1) < 4 * float(evaluated.calibration.slope.se)
    best = np.maximum(effect, 0).mean()
    assert abs(float(evaluated.value.value) - best) < 4 * float(evaluated.value.se)


def test_without_features_the_interval_is_that_of_a_difference_in_means():
    """Errors are shared within groups of four: those of single units would be half as wide."""
    rng = np.random.default_rng(0)
    group = np.arange(240) // 4
    t = (rng.uniform(size=60) < 0.5)[group] * 1.0
    y = t + rng.normal(size=60)[group] + 0.3 * rng.normal(size=240)
    x = np.zeros((240, 1))
    found = te.MetaLearner("T", Nothing, steps=120, learning_rate=0.1, folds=1).fit(
        KEY, x, t, y, propensity=0.5, groups=group, draws=200
    )
    expected = te.difference_in_means(jnp.asarray(t), jnp.asarray(y), te.Clusters.of(group))
    estimate = found.estimate(x[:1])
    assert float(estimate.value[0]) == pytest.approx(float(expected.value), abs=0.02)
    low, high = found.interval(x[:1], 0.9)
    width = np.subtract(*expected.interval(0.9)[::-1])
    assert float((high - low)[0]) == pytest.approx(float(width), rel=0.25)


@pytest.mark.parametrize(
    "kind", ["T", *[pytest.param(kind, marks=pytest.mark.slow) for kind in ("S", "TARNet", "X", "DR", "R")]]
)
def test_out_of_fold_means_without_the_groups_outcomes(kind):
    """Outcomes of one group are exchanged: the fits without it do not see it, all others do."""
    arrays, _ = table()
    groups = np.arange(60) // 6
    where = np.flatnonzero(groups == 4)
    y = arrays["y"].copy()
    y[where] = y[where][::-1]
    before, after = (fitted(kind, groups=groups, y=values) for values in (arrays["y"], y))
    own, other = before.out_of_fold, after.out_of_fold
    same = np.asarray(own.effect == other.effect)
    assert same[where].all()
    assert not same.all()
    np.testing.assert_array_equal(own.group, groups)


@pytest.mark.slow
def test_effects_follow_the_outcomes_scale():
    arrays, _ = table()
    moved = fitted("T", draws=20, y=5 + 3 * arrays["y"])
    for ours, theirs in zip(moved.interval(arrays["x"]), a_fit().interval(arrays["x"]), strict=True):
        np.testing.assert_allclose(ours, 3 * theirs, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved.out_of_fold.scores, 3 * a_fit().out_of_fold.scores, rtol=1e-3, atol=1e-3)


def test_a_fit_is_a_tree_of_arrays():
    found, x = a_fit(), jnp.asarray(table()[0]["x"], jnp.float32)
    doubled = jax.tree.map(lambda leaf: leaf + leaf, found)
    assert float(doubled.sd) == pytest.approx(2 * float(found.sd))
    inside = jax.jit(lambda f, x: (f.effect(x), *f.interval(x)))(found, x)
    for ours, theirs in zip(inside, (found.effect(x), *found.interval(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_out_of_fold_is_judged_in_one_line():
    own, key = a_fit().out_of_fold, jax.random.key(3)
    found = own.evaluate(key)
    expected = te.rate_estimate(key, own.effect, own.scores, own.clusters)
    np.testing.assert_allclose(found.rate.autoc.value, expected.autoc.value, rtol=1e-5)
    np.testing.assert_allclose(
        found.calibration.slope.se, te.calibration(own.effect, own.scores, own.clusters).slope.se, rtol=1e-5
    )
    costly = a_fit().evaluate(key, cost=0.5).value
    np.testing.assert_allclose(
        costly.value, te.policy_value(own.effect > 0.5, own.scores, own.clusters, 0.5).value, rtol=1e-5
    )


@pytest.mark.slow
def test_a_fit_goes_on_in_its_workdir(tmp_path):
    learner = te.MetaLearner("DR", SMALL, steps=2, folds=3)
    first, again = (learner.fit(KEY, **table()[0], workdir=tmp_path) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert {path.name for path in tmp_path.iterdir()} == {"outcomes", "effects"}


def with_value(name, value, at=3):
    changed = np.array(table()[0][name], float)
    changed[at] = value
    return {name: changed}


PEOPLE = pd.DataFrame(np.ones((60, 3)), columns=list("abc"), index=[f"p{i}" for i in range(60)])
BAD = {
    "x has 1 values that are NaN": {"x": np.where(np.arange(180).reshape(60, 3) == 7, np.nan, 1.0)},
    "y has 1 values that are NaN": with_value("y", np.inf),
    r"y holds 'much' at \[0\]; pass numbers": {"y": np.full(60, "much")},
    "t holds text, such as 'treated'; code controls as 0": {"t": np.full(60, "treated")},
    r"t has shape \(60, 2\), but there are 60 units; .* t.argmax\(1\) of one-hot rows": {
        "t": np.eye(2)[np.arange(60) % 2]
    },
    "x holds 'f' in column 'sex', row 'p1'; pass numbers, of categories": {"x": PEOPLE.assign(sex=["1", "f"] * 30)},
    "x has 1 values that are NaN or infinite, the first in column 'a', row 'p2'": {
        "x": PEOPLE.assign(a=np.where(np.arange(60) == 2, np.nan, 1.0))
    },
    "groups has no label for 2 units, the first at .3.": {"groups": np.where(np.arange(60) % 30 == 3, None, "a")},
    "groups holds labels of several types": {"groups": np.array([1, "a"] * 30, object)},
    "y has shape": {"y": np.ones(59)},
    "y is 1 for every unit": {"y": np.ones(60)},
    "t holds 2; code controls as 0": with_value("t", 2.0),
    "t has no treated unit": {"t": np.zeros(60)},
    "t has no control unit": {"t": np.ones(60)},
    "t has a single arm without some fold": {"t": (np.arange(60) // 2 < 1) * 1.0},
    "propensity is 0 for 1 units": with_value("propensity", 0.0),
    "propensity is 1 for 60 units": {"propensity": 1.0},
    "propensity has shape": {"propensity": np.full(3, 0.5)},
    "groups has shape": {"groups": np.arange(5)},
    "groups has 2 groups, fewer than the 3 folds": {"groups": np.arange(60) % 2},
    "batch is 61": {"batch": 61},
    r"x has shape \(60,\).*x\[:, None\]": {"x": np.ones(60)},
    r"x has shape \(60, 0\)": {"x": np.ones((60, 0))},
    "groups has 1 values that are NaN": with_value("groups", np.nan),
    "draws is 2; pass 0": {"draws": 2},
    "steps must be a number of at least 1, not 0": {"steps": 0},
    "steps must be a number of at least 1, not -1": {"steps": -1},
    "key must be": {"key": 0},
    "kind must be one of 'S', 'T', 'TARNet', 'X', 'DR', 'R', not 'Z'": {"kind": "Z"},
    "folds is 2; kind R needs at least 3": {"kind": "R", "folds": 2},
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_used_is_named_before_training(message, monkeypatch):
    monkeypatch.setattr("causal.treatment_effects.stages.fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=message):
        fitted(**BAD[message])


def test_effects_are_asked_of_inputs_like_those_of_the_fit():
    found = a_fit()
    for ask in (found.effect, found.interval):
        with pytest.raises(ConfigError, match=r"x has shape \(4, 2\), but the fit was given \[n, 3\]"):
            ask(np.zeros((4, 2)))
        with pytest.raises(ConfigError, match="x has 12 values that are NaN"):
            ask(np.full((4, 3), np.nan))


def test_what_was_not_asked_for_in_fit_is_named_later():
    found = fitted("T", folds=1)
    with pytest.raises(ConfigError, match="fit with draws=50"):
        found.interval(np.zeros((1, 3)))
    with pytest.raises(ConfigError, match="fit with folds=5"):
        found.evaluate(KEY)
