import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import ConfigError
from rec.baselines import ease, history, history_score, item_knn, popularity, popularity_score
from rec.diagnostics import auc, by_degree, mean_average_distance, purity, user_bootstrap
from rec.graph import RecGraph
from rec.intents import simulate
from rec.ranking import Ranking


@pytest.fixture(scope="module")
def interactions():
    return simulate(0, users=80, items=30, base=4, extra=3.0)[0]


@pytest.fixture(scope="module")
def matrix(interactions):
    dense = np.zeros(interactions.shape)
    users = np.repeat(np.arange(interactions.shape[0]), np.diff(interactions.train_indptr))
    dense[users, interactions.train_items] = 1
    return dense


def test_ease_minimises_its_objective_among_matrices_with_zero_diagonal(interactions, matrix):
    reg = 10.0
    B = ease(interactions, reg).astype(np.float64)
    gradient = matrix.T @ (matrix @ B - matrix) + reg * B
    off_diagonal = ~np.eye(len(B), dtype=bool)
    assert np.abs(np.diag(B)).max() == 0
    assert np.abs(gradient[off_diagonal]).max() < 1e-4


def test_item_knn_keeps_the_cosine_similarities_of_the_nearest_items(interactions, matrix):
    B = item_knn(interactions, neighbours=5)
    norms = np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    cosine = matrix.T @ matrix / np.outer(norms, norms)
    np.fill_diagonal(cosine, 0)
    for item in range(len(B)):
        kept = B[:, item] > 0
        np.testing.assert_allclose(B[kept, item], cosine[kept, item], rtol=1e-5)
        assert cosine[~kept, item].max() <= B[kept, item].min(initial=np.inf) + 1e-6


def test_history_is_the_training_matrix_even_for_repeated_users(interactions, matrix):
    users = jnp.array([5, 3, 79, 79, 79])
    np.testing.assert_array_equal(history(RecGraph.build(interactions), users), matrix[users])


def test_closed_forms_rank_by_history_and_by_counts(interactions, matrix):
    B = ease(interactions, 10.0)
    users = jnp.arange(4)
    scores = history_score((RecGraph.build(interactions), jnp.asarray(B)), users)
    np.testing.assert_allclose(scores, matrix[:4] @ B, atol=1e-5)
    counts = popularity(interactions)
    np.testing.assert_array_equal(counts, matrix.sum(0))
    np.testing.assert_array_equal(popularity_score(jnp.asarray(counts), users)[2], counts)


def test_ease_beats_popularity_where_intents_are_distinct():
    drawn, _ = simulate(1, users=300, items=100, alpha=0.05, noise=0.05)
    linear = Ranking(drawn, score=history_score).means((RecGraph.build(drawn), jnp.asarray(ease(drawn, 20.0))))
    counts = Ranking(drawn, score=popularity_score).means(jnp.asarray(popularity(drawn)))
    assert linear["ndcg@20"] > 1.3 * counts["ndcg@20"]


def test_mad_is_0_where_all_point_one_way_and_1_for_random_directions():
    key = jax.random.key(0)
    one_way = jnp.outer(jnp.arange(1.0, 51), jnp.ones(8))
    assert float(mean_average_distance((one_way, 2 * one_way), key)) == pytest.approx(0, abs=1e-5)
    x = jax.random.normal(key, (2, 500, 32))
    assert float(mean_average_distance((x[0], x[1]), key)) == pytest.approx(1, abs=0.02)


def test_purity_and_auc_of_known_cases():
    assert purity(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])) == 1
    assert purity(np.array([0, 0, 0, 0]), np.array([0, 0, 1, 2])) == 0.5
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auc(np.zeros(6), np.array([True, False] * 3)) == 0.5


def test_degree_buckets_part_the_users():
    degrees = np.array([1, 1, 2, 3, 5, 8, 13, 21])
    means = by_degree(degrees.astype(float), degrees, buckets=4)
    assert list(means) == ["1-1", "2-3", "5-8", "13-21"]
    assert list(means.values()) == [1, 2.5, 6.5, 17]


def test_the_bootstrap_over_users_agrees_with_the_normal_interval_of_many_users():
    gains = np.random.default_rng(0).normal(0.02, 0.1, 4000)
    mean, low, high = user_bootstrap(gains)
    half = 1.96 * gains.std() / np.sqrt(len(gains))
    assert mean == pytest.approx(gains.mean())
    np.testing.assert_allclose([mean - low, high - mean], half, rtol=0.1)
    assert user_bootstrap(gains) == (mean, low, high)
    with pytest.raises(ConfigError, match="no entry"):
        user_bootstrap(np.zeros(0))
