import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.interactions import Interactions
from rec.metrics import METRICS, all_metrics
from rec.ranking import Ranking, dot_product, top_hits

KS = (1, 5, 20, 40)
TREC = {"recall": "recall_{}", "ndcg": "ndcg_cut_{}", "hr": "success_{}", "map": "map_cut_{}"}


def csr(rows):
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return indptr.astype(np.int32), np.array([item for row in rows for item in sorted(row)], np.int32)


def random_split(seed, users, items, share=0.1):
    """Disjoint random training and test items; the first user has neither, the second no test item."""
    rng = np.random.default_rng(seed)
    draw = rng.random((users, items))
    train, test = draw < share, (draw > 1 - share)
    train[0] = test[0] = test[1] = False
    split = Interactions(
        *csr([np.flatnonzero(row) for row in train]), *csr([np.flatnonzero(row) for row in test]), (users, items)
    )
    return split, train, test


def score_table(table, users):
    return table[users]


@pytest.fixture(scope="module")
def ranked():
    """Scores with many ties, on a grid that is exact in every precision, and our metrics in float64."""
    users, items = 200, 150
    split, train, test = random_split(0, users, items)
    scores = np.random.default_rng(1).integers(0, 64, (users, items)) / 8
    with jax.enable_x64(True):
        ranking = Ranking(split, ks=KS, block=48, score=score_table)
        values = ranking.per_user(jnp.asarray(scores))
    return np.asarray(ranking.held_out.users), scores, train, test, values


def test_metrics_equal_trec_eval_on_random_rankings_with_ties(ranked, record_property):
    users, scores, train, test, values = ranked
    names = [f"{scores.shape[1] - 1 - item:05d}" for item in range(scores.shape[1])]
    relevance = {str(u): {names[i]: 1 for i in np.flatnonzero(test[u])} for u in users}
    run = {str(u): {names[i]: float(scores[u, i]) for i in np.flatnonzero(~train[u])} for u in users}
    measures = {"recall", "ndcg_cut", "success", "map_cut"}
    cuts = ",".join(map(str, KS))
    judged = pytrec_eval.RelevanceEvaluator(relevance, {f"{m}.{cuts}" for m in measures}).evaluate(run)
    deviation = {}
    for metric, pattern in TREC.items():
        for k in KS:
            theirs = np.array([judged[str(u)][pattern.format(k)] for u in users])
            deviation[f"{metric}@{k}"] = np.abs(values[f"{metric}@{k}"] - theirs).max()
    for k in KS:
        theirs = reciprocal_ranks_of_trec_eval(relevance, run, names, k, users)
        deviation[f"mrr@{k}"] = np.abs(values[f"mrr@{k}"] - theirs).max()
    worst = max(deviation, key=deviation.__getitem__)
    record_property(
        "value", f"largest deviation from trec_eval over {len(users)} users: {deviation[worst]:.1e} ({worst})"
    )
    assert max(deviation.values()) < 1e-9


def reciprocal_ranks_of_trec_eval(relevance, run, names, k, users):
    """Its reciprocal rank has no cut-off: it is given the first k documents by its own tie rule."""
    cut = {u: dict(sorted(docs.items(), key=lambda d: (d[1], d[0]), reverse=True)[:k]) for u, docs in run.items()}
    judged = pytrec_eval.RelevanceEvaluator(relevance, {"recip_rank"}).evaluate(cut)
    return np.array([judged[str(u)]["recip_rank"] for u in users])


def textbook(order, relevant, k):
    hits = [item in relevant for item in order[:k]]
    gains = [hit / np.log2(rank + 1) for rank, hit in enumerate(hits, 1)]
    ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    precision = [hit * sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1)]
    return {
        "recall": sum(hits) / len(relevant),
        "ndcg": sum(gains) / ideal,
        "hr": float(any(hits)),
        "mrr": 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        "map": sum(precision) / len(relevant),
    }


def test_metrics_equal_the_formulas_with_ties_to_the_lower_index(ranked):
    users, scores, train, test, values = ranked
    for row, u in enumerate(users):
        order = [i for i in np.argsort(-scores[u], kind="stable") if not train[u, i]]
        for k in KS:
            for metric, expected in textbook(order, set(np.flatnonzero(test[u])), k).items():
                assert values[f"{metric}@{k}"][row] == pytest.approx(expected, abs=1e-12)


def test_users_without_held_out_items_do_not_count(ranked):
    users, _, _, test, _ = ranked
    assert users.tolist() == np.flatnonzero(test.any(axis=1)).tolist()
    assert 0 not in users
    assert 1 not in users


@pytest.mark.parametrize("block", [1, 7, 64])
def test_ranking_does_not_depend_on_the_block_size(block):
    split, _, _ = random_split(2, 30, 25)
    nodes = np.random.default_rng(3).normal(size=(30, 4)), np.random.default_rng(4).normal(size=(25, 4))
    nodes = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), nodes)
    expected = Ranking(split, ks=(5,), block=30).per_user(nodes)
    for name, value in Ranking(split, ks=(5,), block=block).per_user(nodes).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_lists_longer_than_the_catalogue_find_everything():
    split, _, _ = random_split(5, 12, 9, share=0.3)
    values = Ranking(split, ks=(9, 50), score=score_table).per_user(jnp.zeros((12, 9)))
    np.testing.assert_allclose(values["recall@50"], 1.0)
    for name in METRICS:
        np.testing.assert_allclose(values[f"{name}@50"], values[f"{name}@9"], atol=1e-6)


def test_a_full_ranking_never_holds_the_score_matrix():
    users, items = 2000, 1000
    split, _, _ = random_split(6, users, items, share=0.01)
    held_out = Ranking(split).held_out
    nodes = jnp.zeros((users, 8)), jnp.zeros((items, 8))

    def hits(nodes, held_out):
        return top_hits(nodes, held_out, score=dot_product, k=20, block=50, most_seen=40)

    memory = jax.jit(hits).lower(nodes, held_out).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * users * items / 4


@jax.jit
def every_cut(hits, relevant):
    return {name: metric(hits, relevant, range(1, 9)) for name, metric in METRICS.items()}


@settings(deadline=None, max_examples=50)
@given(hits=st.lists(st.booleans(), min_size=8, max_size=8), missed=st.integers(0, 5))
def test_metrics_lie_between_0_and_1_and_grow_with_k_where_they_must(hits, missed):
    relevant = jnp.array([max(1, sum(hits) + missed)])
    values = every_cut(jnp.array([hits]), relevant)
    for metric, value in values.items():
        value = np.asarray(value[0])
        assert value.min() >= 0
        assert value.max() <= 1 + 1e-6
        if metric != "ndcg":
            assert (np.diff(value) >= -1e-6).all()


def test_a_perfect_list_scores_1():
    hits, relevant = jnp.ones((1, 4), bool), jnp.array([4])
    assert all(float(v[0]) == pytest.approx(1.0) for v in all_metrics(hits, relevant, (4, 10)).values())
