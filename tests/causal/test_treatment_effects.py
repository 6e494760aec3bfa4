import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal import treatment_effects as te
from core.errors import ConfigError
from core.loop import scan_steps


def plain_rate(priority, scores):
    """AUTOC and Qini coefficient by the definition, in NumPy."""
    order = np.argsort(-priority, kind="stable")
    ranked, g = priority[order], scores[order].astype(float)
    for value in np.unique(ranked):
        g[ranked == value] = g[ranked == value].mean()
    j = np.arange(1, len(g) + 1)
    toc = np.cumsum(g) / j - g.mean()
    return toc.mean(), (j / len(g) * toc).mean()


@pytest.mark.parametrize("levels", [1, 4, 10_000])
def test_autoc_and_qini_equal_a_recomputation_with_ties(levels, record_property):
    rng = np.random.default_rng(levels)
    priority, scores = rng.integers(0, levels, 500) / 7.0, rng.normal(size=500)
    with jax.enable_x64(True):
        found = te.rate(te.ranking(jnp.asarray(priority)), jnp.asarray(scores))
        difference = max(abs(float(a) - b) for a, b in zip(found, plain_rate(priority, scores), strict=True))
    record_property("value", f"largest difference {difference:.0e}")
    assert difference < 1e-10


def test_a_weight_of_zero_leaves_a_unit_out():
    rng = np.random.default_rng(0)
    priority, scores, count = rng.integers(0, 5, 60) / 1.0, rng.normal(size=60), rng.integers(0, 2, 60)
    with jax.enable_x64(True):
        found = te.rate(te.ranking(jnp.asarray(priority)), jnp.asarray(scores), jnp.asarray(count))
    np.testing.assert_allclose(found, plain_rate(np.repeat(priority, count), np.repeat(scores, count)), atol=1e-12)


N, DRAWS = 200, 100
null = jax.jit(lambda key, priority, scores: te.rate_estimate(key, priority, scores, te.Clusters.single(N), DRAWS))


def test_random_priorities_are_found_to_be_worth_nothing(full_compilation, record_property):
    keys = jax.random.split(jax.random.key(0), 100)
    priority, scores = (jax.random.normal(jax.random.key(i), (100, N)) for i in (1, 2))
    autoc = jax.vmap(null)(keys, priority, scores + 1).autoc
    inside = int((jnp.abs(autoc.value) < 3 * autoc.se).sum())
    record_property("value", f"{inside} of 100 within 3 standard errors")
    assert inside >= 95


@pytest.mark.slow
@pytest.mark.parametrize("per_cluster", [1, 4])
def test_standard_errors_of_half_samples_equal_the_spread_over_data_sets(full_compilation, per_cluster):
    """Over 300 data sets with effects that go with the priority, and with errors shared by clusters."""
    cluster = te.Clusters(jnp.arange(N) // per_cluster, N // per_cluster)

    def one(key):
        keys = jax.random.split(key, 4)
        shared = jnp.repeat(jax.random.normal(keys[0], (N // per_cluster,)), per_cluster)
        priority = jnp.repeat(jax.random.normal(keys[1], (N // per_cluster,)), per_cluster)
        scores = 0.3 * priority + shared + jax.random.normal(keys[2], (N,))
        return te.rate_estimate(keys[3], priority, scores, cluster, DRAWS)

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 300))
    for estimate in found:
        assert abs(float(estimate.se.mean() / estimate.value.std(ddof=1)) - 1) < 0.15


def test_half_samples_take_half_of_the_clusters_whole():
    cluster = te.Clusters.of([3, 3, 7, 9, 9, 9, 1, 1])
    weights = te.half_samples(jax.random.key(0), cluster, 50)
    sums = jax.vmap(cluster.total)(weights) / cluster.total(jnp.ones(8))
    assert set(np.unique(sums)) == {0.0, 1.0}
    assert (sums.sum(axis=1) == 2).all()


def test_resamples_draw_as_many_clusters_as_there_are():
    cluster = te.Clusters.of([0, 0, 1, 2, 2])
    counts = jax.vmap(lambda w: jnp.array([w[0], w[2], w[3]]))(te.resamples(jax.random.key(0), cluster, 40))
    assert (counts.sum(axis=1) == 3).all()


def test_clustered_least_squares_equals_the_formula():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 7, 50)
    X, y = np.column_stack([np.ones(50), rng.normal(size=50)]), rng.normal(size=50)
    bread = np.linalg.inv(X.T @ X)
    b = bread @ X.T @ y
    meat = sum(np.outer(s, s) for c in range(7) for s in [(X * (y - X @ b)[:, None])[label == c].sum(0)])
    with jax.enable_x64(True):
        found = te.least_squares(jnp.asarray(X), jnp.asarray(y), te.Clusters.of(label))
    np.testing.assert_allclose(found.coefficients, b, atol=1e-12)
    np.testing.assert_allclose(found.covariance, 7 / 6 * 49 / 48 * bread @ meat @ bread, atol=1e-12)


def test_doubly_robust_scores_are_unbiased_with_wrong_outcome_models(full_compilation):
    key, n = jax.random.key(0), 200_000
    x, u, noise = jax.random.normal(key, (3, n))
    t = (u > 0.5).astype(jnp.float32)
    y = x + t * (1 + x) + noise
    e = float(jax.scipy.stats.norm.sf(0.5))
    scores = te.dr_scores(t, y, jnp.full(n, 3.0), -x, e)
    assert abs(float(scores.mean()) - 1) < 0.05
    slope = te.calibration(1 + x, scores, te.Clusters.single(n)).slope
    assert abs(float(slope.value) - 1) < 4 * float(slope.se)


def test_groups_by_effect_are_equal_and_their_effects_are_means():
    effects, scores = jnp.arange(10.0)[::-1], jnp.arange(10.0)
    group = te.quantile_groups(effects, 5)
    assert np.bincount(np.asarray(group)).tolist() == [2] * 5
    found = te.group_effects(group, scores, te.Clusters.single(10))
    np.testing.assert_allclose(found.value, [8.5, 6.5, 4.5, 2.5, 0.5], rtol=1e-6)


def test_the_budget_buys_the_best_per_cost():
    chosen = te.affordable(jnp.array([1.0, 2.0, -1.0, 3.0]), 0.5)
    assert chosen.tolist() == [False, True, False, True]
    chosen = te.affordable(jnp.array([1.0, 2.0, -1.0, 3.0]), 0.5, jnp.array([0.1, 1.0, 0.1, 4.0]))
    assert chosen.tolist() == [True, True, False, False]
    value = te.policy_value(chosen, jnp.array([1.0, 3.0, 5.0, 7.0]), te.Clusters.single(4), cost=1.0)
    assert float(value.value) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_uniform_band_covers_the_whole_curve(full_compilation):
    """Scores that have nothing to do with the priority: the band holds zero at every share in 95 % of data sets."""
    shares = jnp.linspace(0.1, 1.0, 10)

    def one(key):
        keys = jax.random.split(key, 3)
        band = te.toc_band(keys[0], *jax.random.normal(keys[1], (2, N)), te.Clusters.single(N), shares, DRAWS)
        return (jnp.abs(band.gain.value) <= band.critical * band.gain.se + 1e-6).all()

    covered = float(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 300)).mean())
    assert 0.90 < covered < 0.99


def test_residuals_are_orthogonal_to_the_covariates():
    X, y = jax.random.normal(jax.random.key(0), (50, 3)), jax.random.normal(jax.random.key(1), (50,))
    rest = te.residuals(X, y)
    np.testing.assert_allclose(X.T @ rest, 0, atol=1e-4)
    np.testing.assert_allclose(rest.sum(), 0, atol=1e-4)


def fitted(learner, batch, steps=800):
    state = learner.init(jax.random.key(0), batch)
    return jax.jit(scan_steps(learner, steps).update)(state, batch)[0].params


@pytest.fixture(scope="module")
def trial():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.uniform(keys[0], (2_000, 2), minval=-1.0)
    t = jax.random.bernoulli(keys[1], 0.4, (2_000,)).astype(jnp.float32)
    effect = jnp.where(x[:, 0] > 0, 2.0, 0.0)
    y = x[:, 1] + t * effect + 0.3 * jax.random.normal(keys[2], (2_000,))
    return te.Units(x, t, y, jnp.ones(2_000)), effect


TRUNK = functools.partial(te.Mlp, (32,))


@pytest.mark.slow
@pytest.mark.parametrize("module", [te.TNet(TRUNK), te.SingleNet(TRUNK), te.TarNet(TRUNK), te.TarNet(TRUNK, TRUNK)],
                         ids=["T", "S", "TARNet", "TARNet with heads"])  # fmt: skip
def test_networks_of_both_outcomes_find_a_step_in_the_effect(full_compilation, trial, module):
    units, effect = trial
    params = fitted(te.outcome_learner(module, optax.adam(1e-2)), units)
    found = te.effect_of(module.apply(params, units.x))
    assert float(jnp.sqrt(jnp.mean((found - effect) ** 2))) < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["X", "DR", "R"])
def test_meta_learners_find_it_from_outcomes_that_know_nothing_of_it(full_compilation, trial, kind):
    units, effect = trial
    outcomes = jnp.stack([units.x[:, 1], units.x[:, 1] + 0.8], axis=1)
    targets = {
        "X": lambda: te.x_targets(units, outcomes),
        "DR": lambda: (te.dr_target(units, outcomes, 0.4),),
        "R": lambda: (te.r_target(units, outcomes, 0.4),),
    }[kind]()
    module = te.Scalar(TRUNK)
    params = [fitted(te.regression_learner(module, optax.adam(1e-2)), target) for target in targets]
    found = [module.apply(p, units.x) for p in params]
    if kind == "X":  # the controls' imputed effects hold what the outcome model says, the treated's the truth
        assert float(jnp.sqrt(jnp.mean((found[1] - effect) ** 2))) < 0.35
        found = [te.x_effect(*found, 0.4)]
        effect = 0.4 * 0.8 + 0.6 * effect
    assert float(jnp.sqrt(jnp.mean((found[0] - effect) ** 2))) < 0.35


@pytest.mark.slow
def test_padded_units_do_not_count(trial):
    units, _ = trial
    few = jax.tree.map(lambda leaf: leaf[:6], units)
    padded = few._replace(**{
        name: jnp.stack([getattr(few, name), jnp.full(6, 7.0 if name != "weight" else 0.0)], axis=1)
        for name in ("t", "y", "weight")
    })  # fmt: skip
    learner = te.outcome_learner(te.TarNet(TRUNK), optax.adam(1e-2))
    state = learner.init(jax.random.key(0), few)
    a, b = (learner.update(state, batch)[1]["loss"] for batch in (few, padded))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("level", [95, 0.0, 1.0, -0.5, float("nan")])
def test_a_level_that_is_no_coverage_is_refused(level):
    with pytest.raises(ConfigError, match="level must be"):
        te.Estimate(jnp.zeros(3), jnp.ones(3)).interval(level)
