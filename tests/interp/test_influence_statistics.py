"""Statistics of influences agree with SciPy, with counts by hand and with draws of known law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interp.influence_statistics import (
    concentration,
    group_means,
    layer_shares,
    positive_share,
    ratio_of_means,
    recall,
    tail,
    token_overlap,
)

SEEDS = st.integers(0, 10_000)


def pareto(exponent, shape, seed=0):
    return (1 - np.random.default_rng(seed).random(shape)) ** (-1 / exponent)


@pytest.mark.parametrize("exponent", [0.8, 1.5, 3.0])
def test_the_interval_of_the_exponent_covers_that_of_pareto_draws(exponent, record_property):
    found = tail(pareto(exponent, (400, 2000)), quantile=0.95)
    covered = int(np.sum((found.low <= exponent) & (exponent <= found.high)))
    record_property("value", f"{np.mean(found.exponent):.3f} for {exponent}, covered {covered / 400:.3f}")
    assert found.n == 100
    assert stats.binomtest(covered, 400, 0.95).pvalue > 0.01
    np.testing.assert_allclose(np.mean(found.exponent), exponent, rtol=0.03)


def test_the_exponent_is_scipys_maximum_likelihood_fit_above_the_threshold():
    scores = pareto(2.0, (1, 500))
    found = tail(scores, quantile=0.9)
    above = scores[scores > found.threshold[0]]
    exponent, *_ = stats.pareto.fit(above, floc=0, fscale=found.threshold[0])
    np.testing.assert_allclose(found.exponent, exponent, rtol=1e-6)


def test_vuongs_z_is_that_of_scipys_densities_and_tells_the_laws_apart():
    heavy, light = tail(pareto(1.0, (50, 4000))), tail(np.random.default_rng(1).exponential(size=(50, 40000)))
    assert np.mean(heavy.versus_exponential) > 1
    assert np.mean(light.versus_exponential) < -1
    scores = pareto(1.0, (1, 4000))
    found = tail(scores)
    x, threshold = scores[scores > found.threshold[0]], found.threshold[0]
    power = stats.pareto.logpdf(x, found.exponent[0], scale=threshold)
    ratio = power - stats.expon.logpdf(x, threshold, x.mean() - threshold)
    np.testing.assert_allclose(found.versus_exponential, np.sqrt(x.size) * ratio.mean() / ratio.std(), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=st.floats(1e-3, 1e3))
def test_the_exponent_has_no_unit_and_no_order(seed, scale):
    scores = pareto(1.2, (2, 200), seed)
    shuffled = scores[:, np.random.default_rng(seed).permutation(200)] * scale
    one, other = tail(scores, 0.9), tail(shuffled, 0.9)
    np.testing.assert_allclose(other.exponent, one.exponent, rtol=1e-8)
    np.testing.assert_allclose(other.threshold, one.threshold * scale, rtol=1e-12)
    np.testing.assert_allclose(other.versus_exponential, one.versus_exponential, rtol=1e-6, atol=1e-8)


def test_tails_without_a_power_law_are_refused():
    with pytest.raises(ValueError, match="1 of 100 scores lie above"):
        tail(pareto(1.0, (1, 100)))
    with pytest.raises(ValueError, match="scores of query 1 lie between -1 and"):
        tail(np.stack([pareto(1.0, 100), -np.arange(100.0) + 9]), 0.9)
    with pytest.raises(ValueError, match="values that differ"):
        tail(np.ones((1, 100)), 0.9)


def test_positive_share_counts_the_highest_of_the_positive_sum():
    scores = np.array([[4.0, -5, 3, 2, 1, 0, 0, 0, -1, 0], [-1.0] * 10])
    np.testing.assert_allclose(positive_share(scores, (0.1, 0.2, 1.0)), [[0.4, 0.7, 1.0], [np.nan] * 3])
    np.testing.assert_allclose(positive_share(scores[:1], (0.001,)), [[0.4]])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_positive_share_grows_with_the_top_and_has_no_order(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, 50))
    tops = (0.02, 0.1, 0.5, 1.0)
    shares = positive_share(scores, tops)
    assert (np.diff(shares, axis=1) >= 0).all()
    assert (shares[:, :3] >= np.array(tops[:3]) - 1e-12).all()
    np.testing.assert_allclose(shares[:, 3], 1)
    np.testing.assert_allclose(positive_share(scores[:, rng.permutation(50)], tops), shares)


def test_recall_is_one_for_a_perfect_ranking_and_counts_misses():
    scores = np.array([[5.0, 4, 3, 2], [5.0, 4, 3, 2], [5.0, 4, 3, 2]])
    own = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(recall(scores, own), [1, 0.5, np.nan])
    np.testing.assert_array_equal(recall(scores, own, n=4), [1, 1, np.nan])
    np.testing.assert_array_equal(recall(scores, own, n=1), [0.5, 0.5, np.nan])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_recall_follows_a_permutation_of_the_sequences(seed):
    rng = np.random.default_rng(seed)
    scores, own, order = rng.normal(size=(4, 30)), rng.random((4, 30)) < 0.2, rng.permutation(30)
    np.testing.assert_array_equal(recall(scores[:, order], own[:, order]), recall(scores, own))


def test_overlap_is_the_jaccard_index_of_content_tokens():
    content = np.ones(10, bool)
    content[[0, 1]] = False
    query = np.array([[1, 2, 3, 0]])
    found = np.array([[[1, 2, 2, 3], [1, 4, 5, 0], [3, 6, 1, 0]]])
    np.testing.assert_allclose(token_overlap(query, found, content), [(1 + 0 + 1 / 3) / 3])
    np.testing.assert_array_equal(token_overlap(np.array([[0, 1]]), np.array([[[1, 0]]]), content), [0])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_overlap_equals_that_of_sets(seed):
    rng = np.random.default_rng(seed)
    query, found, content = rng.integers(0, 9, (2, 5)), rng.integers(0, 9, (2, 3, 6)), rng.random(9) < 0.7
    kept = set(np.flatnonzero(content))

    def jaccard(a, b):
        a, b = set(a) & kept, set(b) & kept
        return len(a & b) / len(a | b) if a | b else 0.0

    expected = [np.mean([jaccard(q, f) for f in rows]) for q, rows in zip(query.tolist(), found.tolist(), strict=True)]
    np.testing.assert_allclose(token_overlap(query, found, content), expected)


def test_group_means_leave_out_queries_without_members():
    scores, members = np.array([[1.0, 3, 9], [1, 1, 1]]), np.array([[1, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(group_means(scores, members), [2, np.nan])


def test_the_ratio_of_means_covers_the_true_ratio(record_property):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        same = rng.normal(2.0, 1.0, 40)
        flipped = 0.1 * same + rng.normal(0.0, 0.3, 40)
        found = ratio_of_means(flipped, same, resamples=500)
        assert found.low <= found.ratio <= found.high
        covered += found.low <= 0.1 <= found.high
    record_property("value", f"covered {covered / 200:.3f} at 0.95")
    assert stats.binomtest(covered, 200, 0.94).pvalue > 0.01


def test_the_ratio_of_means_agrees_with_scipys_paired_bootstrap():
    rng = np.random.default_rng(1)
    same = rng.normal(2.0, 1.0, 50)
    flipped = 0.3 * same + rng.normal(0.0, 0.2, 50)
    expected = stats.bootstrap(
        (flipped, same),
        lambda a, b, axis=-1: np.mean(a, axis) / np.mean(b, axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    found = ratio_of_means(flipped, same)
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.01)


def test_the_ratio_of_means_takes_queries_with_one_of_the_two():
    flipped, same = np.array([np.nan, np.nan, 1.0, 2.0, np.nan]), np.array([3.0, 3.0, np.nan, np.nan, np.nan])
    found = ratio_of_means(flipped, same)
    assert (found.ratio, found.n) == (0.5, 4)
    np.testing.assert_allclose([found.low, found.high], [1 / 3, 2 / 3])


@pytest.mark.parametrize("same", [[-1.0, -2.0], [np.nan, np.nan]])
def test_a_ratio_to_nothing_is_refused(same):
    with pytest.raises(ValueError, match="positive mean in the denominator"):
        ratio_of_means(np.ones(2), np.array(same))


def test_concentration_is_one_on_the_only_attributed_token_and_even_otherwise():
    scores = np.array([[0.0, -3, 0, 7], [1, -1, 1, 7], [0, 0, 0, 7]])
    marked = np.array([[0, 1, 0, 1]] * 3, bool)
    mask = np.array([[1, 1, 1, 0]] * 3, bool)
    found = concentration(scores, marked, mask)
    np.testing.assert_allclose(found.share, [1, 1 / 3, np.nan])
    np.testing.assert_allclose(found.expected, [1 / 3] * 3)


def test_layer_shares_are_those_of_the_highest_sequences():
    layers = {"block_0/mlp": np.array([[3.0, 0, 9]]), "block_1/mlp": np.array([[1.0, 4, -9]])}
    found = layer_shares(layers, lambda name: name.split("/")[0], k=2)
    np.testing.assert_allclose([found["block_0"], found["block_1"]], [[3 / 8], [5 / 8]])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_layer_shares_add_to_one_for_any_grouping(seed):
    rng = np.random.default_rng(seed)
    layers = {str(i): rng.normal(size=(3, 40)) for i in range(6)}
    found = layer_shares(layers, lambda name: str(int(name) % (1 + seed % 4)), k=5)
    np.testing.assert_allclose(sum(found.values()), np.ones(3), rtol=1e-9)


def test_layer_shares_of_no_influence_are_undefined():
    found = layer_shares({"a": -np.ones((1, 3))}, str, k=2)
    np.testing.assert_array_equal(found["a"], [np.nan])
