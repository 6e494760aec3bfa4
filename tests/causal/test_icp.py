"""Invariant causal prediction from moments, against SciPy's tests and the package causalicp."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from causal import pac_invariance as pac
from causal.linear_sems import environments, linear_sem, moments_of, sample, shift


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


SIZES = (300, 200, 250)


@functools.cache
def data():
    """x0 -> t -> x2, x0 -> x1, with shifts of x0, x1 and x2; the target is the third column."""
    B = np.zeros((4, 4))
    B[1, 0], B[2, 0], B[3, 2], B[3, 1] = 0.8, 1.0, 1.3, 0.4
    family = shift(linear_sem(jnp.asarray(B), 0.7), jnp.array([True, True, False, True]), 1.5)
    drawn = environments(family, jax.random.key(2), len(SIZES))
    keys = jax.random.split(jax.random.key(3), len(SIZES))
    return [
        np.asarray(sample(k, jax.tree.map(lambda leaf, e=e: leaf[e], drawn), n))
        for e, (k, n) in enumerate(zip(keys, SIZES, strict=True))
    ]


@functools.cache
def found():
    moments = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[moments_of(jnp.asarray(x)) for x in data()])
    sets = pac.every_subset(4, 2)
    tests = jax.jit(pac.icp, static_argnums=1)(moments, 2, sets)
    return moments, sets, tests


@pytest.mark.slow
def test_p_values_sets_and_intervals_equal_those_of_causalicp():
    theirs = pytest.importorskip("causalicp").fit(data(), 2, alpha=0.05)
    moments, sets, tests = found()
    good = np.asarray(tests.accepted())
    mine = {frozenset(np.flatnonzero(s).tolist()) for s in np.asarray(sets)[good]}
    assert mine == {frozenset(map(int, s)) for s in theirs.accepted_sets}
    assert mine
    assert set(np.flatnonzero(tests.causes(sets))) == {int(i) for i in theirs.estimate}
    p = np.asarray(tests.p_of_causes(sets))
    for j in (0, 1, 3):
        assert p[j] == pytest.approx(theirs.pvalues[j], abs=1e-9)
    ours = np.asarray(pac.intervals(moments, tests, sets))
    np.testing.assert_allclose(np.delete(ours, 2, 1), np.delete(theirs.conf_intervals, 2, 1), atol=1e-7)


def test_the_cause_is_found():
    _, sets, tests = found()
    assert np.flatnonzero(tests.causes(sets)).tolist() == [0]


def test_welch_and_f_equal_scipy():
    x, y = data()[0][:, 0], data()[1][:, 1]
    arguments = x.mean(), x.var(ddof=1), len(x), y.mean(), y.var(ddof=1), len(y)
    expected = scipy.stats.ttest_ind(x, y, equal_var=False).pvalue
    np.testing.assert_allclose(pac.welch(*map(jnp.asarray, arguments)), expected, rtol=1e-8)
    close = y.mean() + 0.05, x.var(ddof=1), 300.0, y.mean(), y.var(ddof=1), 200.0
    expected = scipy.stats.ttest_ind_from_stats(
        close[0], close[1] ** 0.5, 300, close[3], close[4] ** 0.5, 200, equal_var=False
    ).pvalue
    np.testing.assert_allclose(pac.welch(*map(jnp.asarray, close)), expected, rtol=1e-8)
    below = scipy.stats.f.cdf(1.1, 299, 199)
    np.testing.assert_allclose(
        pac.f_test(jnp.asarray(1.1), jnp.asarray(300.0), jnp.asarray(1.0), jnp.asarray(200.0)),
        2 * min(below, 1 - below), rtol=1e-8,
    )  # fmt: skip


@pytest.mark.slow
def test_chunks_of_subsets_give_the_same_tests():
    moments, sets, tests = found()
    chunked = pac.icp(moments, 2, sets, chunk=3)
    np.testing.assert_allclose(chunked.p, tests.p, atol=1e-12)


def test_where_all_sets_are_rejected_nothing_is_a_cause():
    _, sets, tests = found()
    none = tests._replace(p=jnp.zeros_like(tests.p))
    assert not none.causes(sets).any()
    assert np.isnan(pac.intervals(found()[0], none, sets)).all()


def test_screening_keeps_what_predicts_and_restricts_the_subsets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 12))
    x[:, 5] = 2 * x[:, 1] - x[:, 9] + 0.3 * rng.normal(size=500)
    moments = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[moments_of(jnp.asarray(part)) for part in (x[:200], x[200:])]
    )
    chosen = pac.screen(moments, 5, 2)
    assert set(np.flatnonzero(chosen)) == {1, 9}
    assert pac.every_subset(12, 5, jnp.asarray(chosen)).shape == (4, 12)
    assert pac.every_subset(4, 2).shape == (8, 4)
