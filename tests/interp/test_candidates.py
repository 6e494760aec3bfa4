"""The candidate filter agrees with a count over dictionaries, merges over batches and finds planted documents."""

import collections
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from interp import candidates
from interp.planted_facts import PlantedFacts, planted_facts

VOCABULARY = 12
K1 = 1.5
scores, update = jax.jit(candidates.scores), jax.jit(candidates.update)


def drawn(seed, documents=9, length=7, queries=3):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCABULARY, (documents, length))
    mask = rng.random((documents, length)) < 0.7
    query = rng.integers(0, VOCABULARY, (queries, 5))
    return tokens, mask, query, rng.random(query.shape) < 0.8


def by_dictionaries(query, query_mask, tokens, mask):
    """Scores and document frequencies from Python's counters."""
    bags = [collections.Counter(row[real].tolist()) for row, real in zip(tokens, mask, strict=True)]
    size = sum(bool(bag) for bag in bags)
    containing = collections.Counter(token for bag in bags for token in bag)
    idf = {t: math.log((size - containing[t] + 0.5) / (containing[t] + 0.5) + 1) for t in range(VOCABULARY)}
    found = [
        [sum(idf[t] * bag[t] * (K1 + 1) / (bag[t] + K1) for t in row[real].tolist()) for bag in bags]
        for row, real in zip(query, query_mask, strict=True)
    ]
    return np.array(found), containing, size


def frequencies(tokens, mask):
    return update(candidates.init(VOCABULARY), tokens, mask)


def scored(query, query_mask, tokens, mask, state=None):
    idf = candidates.inverse_document_frequency(frequencies(tokens, mask) if state is None else state)
    return np.asarray(scores(idf, query, query_mask, tokens, mask, K1))


@pytest.mark.parametrize("seed", range(5))
def test_scores_and_frequencies_equal_a_count_over_dictionaries(seed):
    tokens, mask, query, query_mask = drawn(seed)
    expected, containing, size = by_dictionaries(query, query_mask, tokens, mask)
    state = frequencies(tokens, mask)
    assert state.documents == size
    np.testing.assert_array_equal(state.containing, [containing[t] for t in range(VOCABULARY)])
    np.testing.assert_allclose(scored(query, query_mask, tokens, mask), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 9))
def test_frequencies_merge_by_addition_in_either_order(seed, cut):
    tokens, mask, *_ = drawn(seed)
    padded = [np.where((np.arange(9) < cut)[:, None] == side, mask, False) for side in (True, False)]
    one, other = (frequencies(tokens, part) for part in padded)
    whole = frequencies(tokens, mask)
    for merged in (
        candidates.merge(one, other),
        candidates.merge(other, one),
        update(one, tokens, padded[1]),
    ):
        jax.tree.map(np.testing.assert_array_equal, merged, whole)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scores_follow_a_permutation_of_the_documents_and_of_their_words(seed):
    tokens, mask, query, query_mask = drawn(seed)
    rng = np.random.default_rng(seed + 1)
    rows, columns = rng.permutation(9), rng.permutation(7)
    original = scored(query, query_mask, tokens, mask)
    np.testing.assert_allclose(
        scored(query, query_mask, tokens[rows][:, columns], mask[rows][:, columns]), original[:, rows], rtol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_masked_tokens_change_nothing(seed):
    tokens, mask, query, query_mask = drawn(seed)
    other = np.where(mask, tokens, (tokens + 1) % VOCABULARY)
    other_query = np.where(query_mask, query, (query + 1) % VOCABULARY)
    np.testing.assert_array_equal(scored(other_query, query_mask, other, mask), scored(query, query_mask, tokens, mask))


def test_documents_can_be_scored_in_batches():
    tokens, mask, query, query_mask = drawn(0)
    state = frequencies(tokens, mask)
    parts = [scored(query, query_mask, tokens[rows], mask[rows], state) for rows in (slice(0, 4), slice(4, 9))]
    np.testing.assert_array_equal(np.concatenate(parts, 1), scored(query, query_mask, tokens, mask, state))


def test_idf_is_positive_and_falls_with_frequency():
    state = candidates.DocumentFrequencies(np.int32(10), np.arange(11, dtype=np.int32))
    idf = np.asarray(candidates.inverse_document_frequency(state))
    assert (idf > 0).all()
    assert (np.diff(idf) < 0).all()


def test_presence_only_at_k1_zero():
    tokens, real = np.array([[3, 3, 3], [3, 5, 5]]), np.ones((2, 3), bool)
    found = candidates.scores(np.ones(VOCABULARY), np.array([[3]]), np.ones((1, 1), bool), tokens, real, 0.0)
    np.testing.assert_allclose(found, [[1, 1]], rtol=1e-6)


def test_the_best_are_kept_best_first_and_ties_by_number():
    found = candidates.keep(np.array([[0.0, 2.0, 1.0, 2.0], [3.0, 0.0, 0.0, 0.0]]), 3)
    np.testing.assert_array_equal(found, [[1, 3, 2], [0, 1, 2]])


@pytest.mark.parametrize("k", [5, 6])
def test_more_candidates_than_documents_are_refused(k):
    with pytest.raises(ConfigError, match=f"cannot keep {k} of 4 documents"):
        candidates.keep(np.zeros((1, 4)), k)


def test_statements_of_a_fact_are_among_its_candidates(record_property):
    sizes = {"facts": 12, "paraphrases": (1, 3), "fillers": 400, "length": 20, "vocabulary": 96}
    words = {"relations": 2, "template_words": 6, "name_pieces": 16}
    corpus = jax.jit(planted_facts, static_argnums=1)(jax.random.key(0), PlantedFacts(**sizes, **words))
    s, q = corpus.sequences, corpus.queries
    state = candidates.update(candidates.init(96), s.tokens, s.mask)
    found = candidates.scores(candidates.inverse_document_frequency(state), q.tokens, q.tokens != 0, s.tokens, s.mask)
    kept = np.asarray(candidates.keep(found, 60))
    own = (np.asarray(s.fact) == np.asarray(q.fact)[:, None]) & (np.asarray(s.language) == 0)
    recall = np.mean([own[i, kept[i]].sum() / own[i].sum() for i in range(12)])
    record_property("value", f"{recall:.3f} of own statements among 60 of {s.fact.size} candidates")
    assert recall > 0.95
