"""Invariant subsets, gauges, indirect observation and the predictors compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal import pac_invariance as pac
from causal.d_separation import separated_from_interventions
from causal.linear_sems import (
    draw_moments,
    environments,
    hard,
    moments_of,
    population,
    rademacher,
    random_sem,
    sample,
    shift,
    soft,
)

HARD = [{0}, {1}, {0, 1}, {3}, {0, 3}, {1, 3}, {0, 1, 3}]
SOFT = [{1, 3} | a | b for b in (set(), {5}, {5, 6}) for a in (set(), {0}, {2}, {0, 2})]
RADEMACHER = [{1, 3} | a for a in (set(), {0}, {2}, {5}, {0, 2}, {0, 5}, {2, 5}, {0, 2, 5})]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def masks():
    return pac.feature_masks(7, pac.TARGET)


def as_sets(chosen, of=None):
    return {frozenset(np.flatnonzero(mask).tolist()) for mask in np.asarray(masks() if of is None else of)[chosen]}


@functools.cache
def solve():
    return jax.jit(lambda M: jax.vmap(lambda M: pac.best_on_subsets(M, pac.TARGET, masks()))(M))


def test_subsets_are_counted_in_binary_order_without_the_target():
    found = np.asarray(masks())
    assert found.shape == (63, 7)
    assert not found[:, pac.TARGET].any()
    assert len(as_sets(np.ones(63, bool))) == 63
    assert [np.flatnonzero(m).tolist() for m in found[:4]] == [[0], [1], [0, 1], [2]]


def test_regressions_on_the_figure(record_property):
    b = np.asarray(solve()(population(pac.figure_sem()).second[None]))[0]
    code = {frozenset(np.flatnonzero(m).tolist()): i for i, m in enumerate(np.asarray(masks()))}
    two, three = b[code[frozenset({1, 3})]], b[code[frozenset({1, 3, 6})]]
    np.testing.assert_allclose(two[[1, 3]], [1, 1], atol=1e-9)
    np.testing.assert_allclose(three[[1, 3, 6]], [5 / 6, 5 / 18, 5 / 18], atol=1e-9)
    record_property("value", f"{two[[1, 3]].round(4)}, {three[[1, 3, 6]].round(4)}")


def test_invariant_subsets_of_the_figure(record_property):
    sem, sites = pac.figure_sem(), pac.figure_sites()
    found = {}
    spread = jax.jit(lambda M: pac.relative_spread(M, pac.TARGET, masks()))
    for name, family, expected in (
        ("soft", soft(sem, sites), SOFT),
        ("rademacher", rademacher(sem, pac.TARGET), RADEMACHER),
        ("hard", hard(sem, sites), HARD),
    ):
        chosen = np.asarray(spread(draw_moments(family, jax.random.key(1), 200).second)) < 1e-6
        assert as_sets(chosen) == {frozenset(s) for s in expected}
        found[name] = int(chosen.sum())
    record_property("value", f"spread below 1e-6 over 200 environments: {found}")


@functools.cache
def separated():
    def one(parents, sites, target, given):
        return separated_from_interventions(parents, sites, target, given)

    return jax.jit(jax.vmap(one, in_axes=(None, None, None, 0)))


@pytest.mark.slow
def test_d_separation_and_moments_agree_on_random_dags(record_property):
    sem = pac.figure_sem()
    found = separated()(sem.B != 0, pac.figure_sites(), jnp.arange(7) == pac.TARGET, masks())
    assert as_sets(np.asarray(found)) == {frozenset(s) for s in SOFT}
    disagree, weaker, total = _agreement()
    assert disagree == 0
    assert total == 100 * 127
    record_property(
        "value", f"0 of {total} subsets disagree; coefficients alone are invariant in {weaker} that are not separated"
    )


def _agreement():
    """Subsets on which the routes disagree, with residual variances and by coefficients alone; all subsets."""
    d, of = 8, pac.feature_masks(8, 7)

    def laws(M):
        def law(mask):
            at = pac.on_subset(M, 7, mask)
            b = at.best()
            return jnp.append(b, at.error(b))

        return jax.vmap(law)(of)

    @jax.jit
    @jax.vmap
    def one(key):
        sem_key, site_key, key = jax.random.split(key, 3)
        sem = random_sem(sem_key, d)
        sites = jax.random.bernoulli(site_key, 0.4, (d,)).at[7].set(False) & (sem.B != 0).any(axis=1)
        found = jax.vmap(laws)(draw_moments(soft(sem, sites), key, 12).second)
        varies = jnp.ptp(found, axis=0) > 1e-7
        parents, target = sem.B != 0, jnp.arange(d) == 7
        same = jax.vmap(lambda given: separated_from_interventions(parents, sites, target, given))(of)
        return varies.any(axis=1), varies[:, :-1].any(axis=1), same

    varies, coefficients, same = map(np.asarray, one(jax.random.split(jax.random.key(7), 100)))
    assert 0.1 < same.mean() < 0.9
    assert not (same & coefficients).any()
    return int((varies == same).sum()), int((~coefficients & ~same).sum()), same.size


def test_masked_solutions_equal_least_squares_on_columns(record_property):
    sem, sites = pac.figure_sem(), pac.figure_sites()
    worst = {}
    for name, family in (("full rank", soft(sem, sites)), ("minimum norm", hard(sem, sites))):
        drawn = environments(family, jax.random.key(2), 3)
        x = [np.asarray(sample(k, jax.tree.map(lambda leaf, e=e: leaf[e], drawn), 400))
             for e, k in enumerate(jax.random.split(jax.random.key(3), 3))]  # fmt: skip
        ours = np.asarray(solve()(jnp.stack([moments_of(jnp.asarray(rows)).second for rows in x])))
        worst[name] = 0.0
        for rows, found in zip(x, ours, strict=True):
            for mask, b in zip(np.asarray(masks()), found, strict=True):
                theirs = np.linalg.lstsq(rows[:, mask], rows[:, pac.TARGET], rcond=1e-11)[0]
                worst[name] = max(worst[name], np.abs(theirs - b[mask]).max() / max(1.0, np.abs(theirs).max()))
                assert np.all(b[~mask] == 0)
    assert worst["full rank"] < 1e-9
    assert worst["minimum norm"] < 1e-7
    record_property("value", ", ".join(f"{name} {error:.0e}" for name, error in worst.items()))


def test_gauges_satisfy_their_identities_and_inequalities(record_property):
    rng = np.random.default_rng(0)
    M = np.asarray(population(random_sem(jax.random.key(4), 7)).second)
    for _ in range(20):
        Phi = np.insert(rng.normal(size=(3, 6)), 6, 0.0, axis=1)
        w = rng.normal(size=3)
        at = pac.on_representation(jnp.asarray(M), 6, jnp.asarray(Phi))
        best, H = np.asarray(at.best()), np.asarray(at.H)
        np.testing.assert_allclose(best, np.linalg.pinv(H) @ np.asarray(at.c), atol=1e-8)
        low, high = np.linalg.eigvalsh(H)[[0, -1]]
        away = np.linalg.norm(w - best)
        grad, risk, coef = (float(pac.GAUGES[name](jnp.asarray(w), at)) for name in ("grad", "risk", "coef"))
        assert coef == pytest.approx(away / np.linalg.norm(w))
        assert grad == pytest.approx(np.linalg.norm(H @ (w - best)))
        assert risk == pytest.approx((w - best) @ H @ (w - best))
        assert risk == pytest.approx(float(at.error(jnp.asarray(w)) - at.error(jnp.asarray(best))), rel=1e-7)
        direction = np.append(-(w @ Phi)[:6], 1.0)
        assert float(at.error(jnp.asarray(w))) == pytest.approx(direction @ M @ direction)
        slack = 1e-9
        assert low * away <= grad + slack
        assert grad <= high * away + slack
        assert grad**2 / high <= risk + slack
        assert risk <= grad**2 / low + slack
    record_property("value", "20 random pairs")


def test_a_subset_is_the_representation_of_its_rows():
    M = population(pac.figure_sem()).second
    mask = np.asarray(masks())[40]
    rows = pac.on_representation(M, pac.TARGET, jnp.eye(7)[np.flatnonzero(mask)])
    np.testing.assert_allclose(pac.on_subset(M, pac.TARGET, jnp.asarray(mask)).best()[mask], rows.best(), atol=1e-10)


def test_the_relative_distance_of_nothing_is_zero_only_from_nothing():
    zero, one = jnp.zeros(2), jnp.ones(2)
    assert pac.relative(zero, zero) == 0
    assert pac.relative(one, zero) == np.inf
    assert pac.relative(zero, one) == 1


def test_indirect_observations_have_the_same_predictors(record_property):
    rng, worst = np.random.default_rng(1), 0.0
    M = draw_moments(soft(pac.figure_sem(), pac.figure_sites()), jax.random.key(0), 3).second
    for _ in range(5):
        mixing, Phi = rng.normal(size=(9, 6)), rng.normal(size=(3, 6))
        on_o = np.append(np.asarray(pac.transfer(jnp.asarray(Phi), jnp.asarray(mixing))), np.zeros((3, 1)), axis=1)
        on_x = np.insert(Phi, pac.TARGET, 0.0, axis=1)
        for e in range(3):
            seen = pac.observe(M[e], pac.TARGET, jnp.asarray(mixing))
            a = np.asarray(pac.on_representation(seen, 9, jnp.asarray(on_o)).best())
            b = np.asarray(pac.on_representation(M[e], pac.TARGET, jnp.asarray(on_x)).best())
            worst = max(worst, np.abs(a - b).max())
    assert worst < 1e-8
    record_property("value", f"largest difference {worst:.0e}")


def test_fewer_observations_than_latents_keep_what_is_in_their_row_space():
    rng = np.random.default_rng(2)
    M = population(pac.figure_sem()).second
    mixing = rng.normal(size=(4, 6))
    within, outside = rng.normal(size=(2, 4)) @ mixing, rng.normal(size=(2, 6))
    seen = pac.observe(M, pac.TARGET, jnp.asarray(mixing))

    def difference(Phi):
        on_o = np.append(np.asarray(pac.transfer(jnp.asarray(Phi), jnp.asarray(mixing))), np.zeros((2, 1)), axis=1)
        on_x = np.insert(Phi, pac.TARGET, 0.0, axis=1)
        a = pac.on_representation(seen, 4, jnp.asarray(on_o)).best()
        return float(jnp.abs(a - pac.on_representation(M, pac.TARGET, jnp.asarray(on_x)).best()).max())

    assert difference(within) < 1e-7
    assert difference(outside) > 1e-3


def test_the_spread_counts_environments_with_weight_and_the_diagonal_where_asked():
    b = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    weights = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    distances = [np.linalg.norm(b[i] - b[j]) for i in range(3) for j in range(3) if i != j]
    assert pac.rms_spread(b, weights) == pytest.approx(sum(distances) / 9)
    assert pac.rms_spread(b, weights, diagonal=False) == pytest.approx(np.mean(distances))


def test_anchor_regression_is_least_squares_at_one_and_ignores_shifts_in_the_limit():
    B = np.zeros((3, 3))
    B[1, 0], B[2, 1] = 1.0, 2.0
    sem = pac.figure_sem()._replace(B=jnp.asarray(B), mean=jnp.zeros(3), scale=jnp.eye(3))
    moments = draw_moments(shift(sem, jnp.array([True, False, False]), 3.0), jax.random.key(0), 400)
    mask = jnp.array([True, False, True])
    free = pac.anchor(moments, 1, mask, 1.0)
    np.testing.assert_allclose(free, pac.pooled(moments, 1, mask), atol=1e-9)
    child = jnp.array([False, False, True])  # X_2 = 2 X_1 + e: without shift between environments only at 1/2
    slopes = [float(pac.anchor(moments, 1, child, gamma)[2]) for gamma in (1.0, 10.0, 1e6)]
    spread = [np.std(moments.mean @ (jnp.array([0, 1.0, 0]) - pac.anchor(moments, 1, child, g))) for g in (1.0, 1e6)]
    assert slopes[0] < slopes[1] < slopes[2]
    np.testing.assert_allclose(slopes[2], 0.5, atol=1e-6)
    assert spread[1] < 1e-3 * spread[0]


def test_irm_without_penalty_is_least_squares_and_with_it_drops_the_unstable_feature():
    sem, target = pac.figure_sem(1.0), 3
    M = draw_moments(soft(sem, pac.figure_sites() & (jnp.arange(7) == 5), 2.0), jax.random.key(1), 30).second
    M = M[:, jnp.array([1, 2, 5, 3])][:, :, jnp.array([1, 2, 5, 3])]

    def fit(penalty):
        learner = pac.irm_learner(target, penalty, optax.adam(0.02))
        state = learner.init(jax.random.key(0), M)
        run = jax.jit(lambda s: jax.lax.fori_loop(0, 2000, lambda _, s: learner.update(s, M)[0], s))
        return np.asarray(run(state).params["v"])

    weights = 1 / M[:, target, target]
    mean = jnp.einsum("e,eij->ij", weights / weights.sum(), M)
    best = pac.on_subset(mean, target, jnp.arange(4) < 3).best()
    plain, penalised = fit(0.0), fit(100.0)
    np.testing.assert_allclose(plain[:3], best[:3], atol=2e-3)
    assert abs(penalised[2]) < 0.1 * abs(plain[2])
    np.testing.assert_allclose(penalised[:2], [1, 1], atol=1e-4)


def test_the_safest_subset_is_the_accepted_one_of_least_error_or_else_the_steadiest():
    M = jnp.stack([jnp.eye(3) + 0.5 * (1 - jnp.eye(3))] * 2)
    of = pac.feature_masks(3, 2)
    selection = pac.train(M, 2, of)
    np.testing.assert_allclose(pac.safest(selection, M, 2, of, 1e-6), selection.predictor[2], atol=1e-12)
    spread = jnp.array([0.3, 0.1, 0.2])
    unsafe = selection._replace(spread=spread)
    np.testing.assert_allclose(pac.safest(unsafe, M, 2, of, 0.05), selection.predictor[1], atol=1e-12)
