from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import recsae, sae
from tests.interp.test_recsae import D, dictionary


def test_lift_fisher_and_adjustment_equal_independent_computations(record_property):
    rng = np.random.default_rng(0)
    items = rng.integers(0, 40, 500)
    present = scipy.sparse.csr_matrix(rng.random((40, 7)) < 0.3)
    table, top = present.toarray(), rng.integers(0, 40, (9, 10))
    K, M = table[items].sum(0), len(items)
    k = table[top].sum(1)
    value, bound = recsae.lift(k, 10, K, M)
    share = (k + K / M) / 11
    np.testing.assert_allclose(value, np.log(share) - np.log(K / M), rtol=1e-12)
    deviation = np.sqrt(np.maximum((1 - share) / (11 * share), 0))
    np.testing.assert_allclose(bound, value - scipy.stats.norm.ppf(0.975) * deviation, rtol=1e-9, atol=1e-12)
    exact = [
        [scipy.stats.fisher_exact([[a, 10 - a], [B - a, M - 10 - B + a]], "greater").pvalue
         if B - a >= 0 and M - 10 - B + a >= 0 else np.nan for a, B in zip(row, K, strict=True)]
        for row in k
    ]  # fmt: skip
    found = recsae.fisher(k, 10, K, M)
    error = np.nanmax(np.abs(found - np.array(exact)))
    concepts = recsae.by_attributes(present, list("abcdefg"), items, pairs_of=1).describe(top)
    chosen = concepts.key[:, 0]
    np.testing.assert_array_equal(chosen, bound.argmax(1))
    raw = np.minimum(1, 7 * found[np.arange(9), chosen])
    order = np.argsort(raw)
    adjusted = np.minimum.accumulate((raw[order] * 9 / np.arange(1, 10))[::-1])[::-1]
    np.testing.assert_allclose(concepts.q[order], np.minimum(adjusted, 1), rtol=1e-10)
    record_property("value", f"Fisher's p differs by at most {error:.1e}")
    assert error < 1e-10


def test_a_conjunction_is_found_where_neither_half_is_surprising():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.5, rng.random(400) < 0.5
    present = scipy.sparse.csr_matrix(np.stack([a, b, rng.random(400) < 0.5], 1))
    both = np.flatnonzero(a & b)
    interpreter = recsae.by_attributes(present, ("a", "b", "c"), np.arange(400))
    concepts = interpreter.describe(both[:20].reshape(2, 10))
    assert set(concepts.names) <= {"a and b", "b and a"}
    says = interpreter.predict(concepts, np.array([0]), np.arange(400)[None])
    np.testing.assert_array_equal(says[0], a & b)


def test_a_language_model_takes_the_place_of_metadata():
    texts = ["red lipstick", "red nails", "soap", "red hair"]
    interpreter = recsae.by_language(
        lambda shown: "red" if all("red" in text for text in shown) else "anything",
        lambda concept, shown: [concept in text for text in shown],
        texts,
    )
    concepts = interpreter.describe(np.array([[0, 1], [2, 3]]))
    assert concepts.names == ("red", "anything")
    assert interpreter.predict(concepts, np.array([0]), np.array([[3, 2]])).tolist() == [[True, False]]


# Validation.


def activity(rng, n=300, units=5, density=0.2):
    return scipy.sparse.csc_matrix(np.where(rng.random((n, units)) < density, rng.random((n, units)) + 0.1, 0))


def test_the_strongest_instances_are_found():
    dense = activity(np.random.default_rng(0)).toarray()
    dense[:, 3] = 0
    matrix = scipy.sparse.csc_matrix(dense)
    kept, rows = recsae.strongest(matrix, 6)
    assert kept.tolist() == [0, 1, 2, 4]
    expected = np.argsort(-matrix.toarray()[:, kept], axis=0)[:6].T
    np.testing.assert_array_equal(rows, expected)


def test_checked_instances_are_active_in_every_quantile_or_not_active():
    rng = np.random.default_rng(0)
    matrix, units = activity(rng), np.array([0, 2, 4])
    dense = matrix.toarray()
    rows = recsae.stratified(rng, matrix, units, 8)
    for unit, own in zip(units, rows, strict=True):
        values = np.sort(dense[dense[:, unit] > 0, unit])[::-1]
        rank = np.searchsorted(-values, -dense[own, unit])
        quantile = rank * 8 / len(values)  # edges are rounded to whole instances
        assert (quantile > np.arange(8) - 8 / len(values)).all()
        assert (quantile < np.arange(1, 9) + 8 / len(values)).all()
    off = recsae.inactive(rng, matrix, units, 8, np.arange(100, 300))
    assert (off >= 100).all()
    assert not dense[off, units[:, None]].any()
    few = recsae.stratified(rng, matrix[:20], units, 15)
    assert (few < 0).any()
    for unit, own in zip(units, few, strict=True):
        assert sorted(own[own >= 0]) == np.flatnonzero(dense[:20, unit]).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30))
def test_confidence_is_precision_recall_and_their_harmonic_mean(hits, false):
    checked = 30
    found = recsae.scores(np.array([hits]), np.array([false]), np.array([checked]))
    assert found.recall[0] == pytest.approx(hits / checked)
    if hits:
        precision = hits / (hits + false)
        assert found.precision[0] == pytest.approx(precision)
        assert found.f1[0] == pytest.approx(2 * precision * found.recall[0] / (precision + found.recall[0]))
    interval = scipy.stats.binomtest(hits, checked + false).proportion_ci(method="wilson")
    low = 2 * interval.low / (1 + interval.low)
    assert found.low[0] == pytest.approx(low, abs=2e-4)
    assert found.low[0] <= found.f1[0] + 1e-12


def test_an_always_true_concept_is_never_interpretable():
    found = recsae.scores(np.array([40]), np.array([40]), np.array([40]))
    assert found.f1[0] == pytest.approx(2 / 3)
    assert found.chance[0] == pytest.approx(2 / 3)
    assert not found.interpretable()[0]
    assert recsae.scores(np.array([38]), np.array([2]), np.array([40])).interpretable()[0]


def test_planted_concepts_are_confident_and_shuffled_ones_are_not():
    """Units that fire on one group of items each; the same activations at random instances are not interpretable."""
    rng = np.random.default_rng(0)
    groups = np.arange(60) // 6
    items = rng.integers(0, 60, 4000)
    dense = np.where(
        (groups[items][:, None] == np.arange(10)) & (rng.random((4000, 10)) < 0.9), rng.random((4000, 10)), 0
    )
    matrix = scipy.sparse.csc_matrix(dense)
    present = scipy.sparse.csr_matrix(groups[:, None] == np.arange(10))
    interpreter = recsae.by_attributes(present, [f"group {g}" for g in range(10)], items)
    shares = []
    for own in (matrix, recsae.shuffled(matrix, rng)):
        units, top = recsae.strongest(own[:2000], 10)
        concepts = interpreter.describe(items[top])
        checked = recsae.confidence(interpreter, concepts, units, own, items, np.arange(2000, 4000), rng)
        shares.append(checked.interpretable().mean())
    assert shares[0] == 1.0
    assert shares[1] < 0.2
    np.testing.assert_allclose(recsae.group_f1(matrix, groups[items], 10), 2 * 0.9 / 1.9, atol=0.03)


def test_coherence_is_the_share_of_the_commonest_class():
    assert recsae.coherence(np.array([[1, 1, 2, 1], [1, 2, 3, 4]])).tolist() == [0.75, 0.25]


# Units.


def test_directions_are_equally_sparse_and_come_in_pairs():
    x = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    for kind in ("neurons", "random directions", "principal components"):
        units = recsae.directions(kind, x, 0.05)
        matrix = recsae.activity(recsae.of_directions, units, x, block=512)
        assert matrix.shape == (2000, 12)
        np.testing.assert_allclose(np.diff(matrix.indptr) / 2000, 0.05, atol=0.002)
        np.testing.assert_allclose(units.D[:6], -units.D[6:])
        np.testing.assert_allclose(units.D[:6] @ units.D[:6].T, np.eye(6), atol=1e-5)


def test_each_instance_activates_its_nearest_cluster():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    units = recsae.clusters(x, 7)
    found = recsae.activity(recsae.of_clusters, units, x, block=128).toarray()
    distances = np.linalg.norm(x[:, None] - np.asarray(units.centres), axis=2)
    np.testing.assert_array_equal(found.argmax(1), distances.argmin(1))
    np.testing.assert_allclose(found.max(1), 1 / (1 + distances.min(1)), rtol=1e-3)
    assert (np.diff(found.astype(bool).sum(1)) == 0).all()


def test_codes_of_any_number_of_instances_are_read_in_blocks():
    x = np.random.default_rng(0).normal(size=(37, D)).astype(np.float32)
    variant, weights = dictionary()
    found = recsae.activity(partial(sae.encode, variant), weights, x, block=16)
    np.testing.assert_allclose(found.toarray(), sae.as_dense(variant, weights, jnp.asarray(x)), rtol=1e-5, atol=1e-6)
    assert (found.data > 0).all()


def test_correlations_are_those_of_dense_activity_and_zero_for_silent_units():
    rng = np.random.default_rng(5)
    found, target = activity(rng).tolil(), rng.normal(size=300)
    found[:, 3] = 0
    dense = found.toarray()
    expected = [0.0 if j == 3 else np.corrcoef(dense[:, j], target)[0, 1] for j in range(5)]
    np.testing.assert_allclose(recsae.correlations(found.tocsc(), target), expected, atol=1e-10)


def test_another_active_latent_is_active_and_another():
    code = sae.Sparse(jnp.asarray([[2.0, 1.0, 0.0], [1.0, 3.0, 0.0]]), jnp.asarray([[4, 7, 0], [1, 2, 3]]))
    for seed in range(5):
        found = recsae.another_active(code, np.array([4, 9]), np.random.default_rng(seed))
        assert found[0] == 7
        assert found[1] in (1, 2)


def test_the_most_confident_units_are_those_that_were_checked_and_their_instances_are_of_the_second_half():
    rng = np.random.default_rng(6)
    items = rng.integers(0, 40, 800)
    present = scipy.sparse.csr_matrix(np.arange(40)[:, None] % 4 == np.arange(4))
    planted = (items[:, None] % 4 == np.arange(3)) * rng.random((800, 3))
    active = scipy.sparse.csc_matrix(np.column_stack([planted, rng.random((800, 1)) * (rng.random((800, 1)) < 0.25)]))
    interpreter = recsae.by_attributes(present, list("abcd"), items)
    found = recsae.read(interpreter, active, items, active, items, top=8, count=40, seed=0)
    assert found.judged.all()
    best = recsae.most_confident(found, 3, 0, instances=5)
    assert set(best.units) == {0, 1, 2}
    assert np.isin(best.rows, found.halves[1]).all()
    for unit, rows in zip(best.units, best.rows, strict=True):
        assert (active[rows, unit].toarray() > 0).all()
