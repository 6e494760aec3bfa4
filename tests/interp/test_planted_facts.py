"""The planted corpus says what it says it says: who states which fact, in which order and language."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import ConfigError
from interp.planted_facts import PAD, START, PlantedFacts, planted_facts, token_names

FULL = PlantedFacts()
TINY = PlantedFacts(
    facts=12,
    paraphrases=(1, 3),
    fillers=40,
    length=20,
    vocabulary=64,
    relations=2,
    template_words=6,
    name_pieces=12,
)
ALL_TRANSLATED = dataclasses.replace(TINY, translated=1.0, vocabulary=65)
BOTH_ORDERS = dataclasses.replace(TINY, orders="both")


jitted = jax.jit(planted_facts, static_argnums=1)


@functools.cache
def draw(settings, seed=0):
    corpus = jitted(jax.random.key(seed), settings)
    return jax.tree.map(np.asarray, corpus)


def words(tokens):
    return [int(t) for t in tokens if t not in (PAD, START)]


def contains(sentence, phrase):
    return any(sentence[i : i + len(phrase)] == phrase for i in range(len(sentence)))


def first_language(corpus, tokens):
    inverse = np.argsort(corpus.translation)
    return [2 + int(inverse[t - 2 - inverse.size]) if t >= 2 + inverse.size else t for t in tokens]


@pytest.fixture(scope="module")
def full():
    return draw(FULL)


def test_the_default_corpus_has_the_published_sizes(full):
    of_facts = full.sequences.fact >= 0
    assert full.sequences.tokens.shape == (of_facts.sum() + 8192, 32)
    assert full.sequences.tokens.max() < 512
    assert set(full.queries.paraphrases) == {1, 4, 16}
    assert full.queries.translated.mean() == 0.25
    assert (full.queries.order == 1).mean() == 0.5
    np.testing.assert_allclose(full.sequences.language[~of_facts].mean(), 0.25)


def test_counts_orders_and_translations_are_balanced_against_each_other(full):
    for order in (0, 1):
        chosen = full.queries.order == order
        _, counts = np.unique(full.queries.paraphrases[chosen], return_counts=True)
        assert np.ptp(counts) <= 1
        assert full.queries.translated[chosen].mean() == 0.25


def test_each_fact_is_stated_as_often_as_its_query_says(full):
    _, counts = np.unique(full.sequences.fact[full.sequences.fact >= 0], return_counts=True)
    np.testing.assert_array_equal(counts, full.queries.paraphrases * (1 + full.queries.translated))


def test_every_statement_has_relation_subject_and_object_in_its_order(full):
    facts, sequences = full.facts, full.sequences
    for row in np.flatnonzero(sequences.fact >= 0):
        fact, sentence = sequences.fact[row], words(first_language(full, sequences.tokens[row]))
        subject, object_ = words(facts.subject[fact]), words(facts.object[fact])
        pair = [subject, object_] if sequences.order[row] == 0 else [object_, subject]
        assert sentence.count(facts.relation[fact]) == 1
        start = next(i for i in range(len(sentence)) if sentence[i : i + len(pair[0])] == pair[0])
        assert contains(sentence[start + len(pair[0]) :], pair[1])
        marked = first_language(full, sequences.tokens[row][sequences.object_mask[row]])
        assert marked == object_


def test_a_query_is_the_plain_statement_and_measures_the_object(full):
    names = token_names(full.translation, FULL)
    for fact in range(FULL.facts):
        tokens, mask = full.queries.tokens[fact], full.queries.mask[fact]
        subject, object_ = words(full.facts.subject[fact]), words(full.facts.object[fact])
        relation = int(full.facts.relation[fact])
        the, of, is_ = (names.index(word) for word in ("the", "of", "is"))
        assert words(tokens) == [the, relation, of, *subject, is_, *object_]
        assert words(tokens[mask]) == object_


def test_no_name_starts_another_and_all_differ(full):
    names = [tuple(words(name)) for name in np.concatenate([full.facts.subject, full.facts.object])]
    assert {len(name) for name in names} == {2, 3}
    assert len({name[:2] for name in names}) == 2 * FULL.facts


def test_paraphrases_of_a_fact_differ(full):
    rows = full.sequences.tokens[full.sequences.fact >= 0]
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_the_languages_share_no_token_and_say_the_same():
    corpus = draw(ALL_TRANSLATED)
    sequences = corpus.sequences
    first, second = (set(sequences.tokens[sequences.language == i].ravel()) - {PAD, START} for i in (0, 1))
    assert not first & second
    stated = sequences.fact >= 0
    originals = [words(row) for row in sequences.tokens[stated & (sequences.language == 0)]]
    translations = [words(first_language(corpus, row)) for row in sequences.tokens[stated & (sequences.language == 1)]]
    assert originals == translations


def test_both_orders_pair_every_paraphrase():
    corpus = draw(BOTH_ORDERS)
    for fact in range(TINY.facts):
        counts = [np.sum((corpus.sequences.fact == fact) & (corpus.sequences.order == o)) for o in (0, 1)]
        expected = corpus.queries.paraphrases[fact] * (1 + corpus.queries.translated[fact])
        np.testing.assert_array_equal(counts, expected)
    assert set(corpus.queries.order) == {-1}


def test_the_plain_statement_in_either_order_has_the_same_words():
    sequences = draw(BOTH_ORDERS).sequences
    for fact in range(TINY.facts):
        chosen = (sequences.fact == fact) & (sequences.language == 0)
        plain = [sequences.tokens[chosen & (sequences.order == order)][0] for order in (0, 1)]
        assert (plain[0] != plain[1]).any()
        np.testing.assert_array_equal(*np.sort(plain, axis=1))


def test_masks_and_starts_frame_the_tokens(full):
    for tokens, mask in (
        (full.sequences.tokens, full.sequences.mask),
        (full.queries.tokens, full.queries.tokens != PAD),
    ):
        assert (tokens[:, 0] == START).all()
        assert not np.isin(tokens[:, 1:], START).any()
        np.testing.assert_array_equal(mask, np.arange(tokens.shape[1]) < mask.sum(1, keepdims=True))
    assert full.sequences.mask[full.sequences.fact < 0].all()
    assert not full.sequences.object_mask[full.sequences.fact < 0].any()


def test_fillers_are_predictable_and_best_from_two_words_back(full, record_property):
    rows = (full.sequences.fact < 0) & (full.sequences.language == 0)
    fillers = full.sequences.tokens[rows][:, 2:]
    probabilities = 0.5 ** np.arange(4) / np.sum(0.5 ** np.arange(4))
    entropy = -np.sum(probabilities * np.log(probabilities))
    bigram = np.zeros((512, 512))
    np.add.at(bigram, (fillers[:, :-1].ravel(), fillers[:, 1:].ravel()), 1)
    seen = bigram > 0
    assert seen.sum(1).max() <= FULL.classes * FULL.branching
    share = bigram / np.maximum(bigram.sum(1, keepdims=True), 1)
    one_back = -np.sum(bigram[seen] * np.log(share[seen])) / bigram.sum()
    record_property("value", f"entropy {entropy:.3f}, given one word only {one_back:.3f} nats")
    assert entropy + 0.3 < one_back < np.log(FULL.classes * FULL.branching)


def test_content_words_are_names_relations_and_others(full):
    names = token_names(full.translation, FULL)
    content = {name for name, kept in zip(names, full.content, strict=True) if kept}
    assert {"r0", "r0'", "n0", "n0'", "w0", "w0'"} <= content
    assert not {"the", "of'", "is", "t0", "t0'", "<pad>", "<start>"} & content


def test_every_token_has_a_name_of_its_own():
    names = token_names(draw(ALL_TRANSLATED).translation, ALL_TRANSLATED)
    assert len(set(names)) == 65


@hypothesis_settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_labels_depend_on_the_settings_alone_and_tokens_on_the_key(seed):
    one, other = draw(TINY), draw(TINY, seed + 1)
    for name in ("fact", "order", "language"):
        np.testing.assert_array_equal(getattr(one.sequences, name), getattr(other.sequences, name))
    assert (one.sequences.tokens != other.sequences.tokens).any()
    jax.tree.map(np.testing.assert_array_equal, other, draw.__wrapped__(TINY, seed + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": 3}, "facts must be even"),
        ({"paraphrases": (0, 1)}, r"paraphrases at place 0 must be .* at least 1"),
        ({"orders": "none"}, "one of 'one', 'both'"),
        ({"length": 10}, "length must be at least 19"),
        ({"vocabulary": 32}, "15 words per language, but 23 have a role"),
        ({"name_pieces": 3}, "fewer than 24 names"),
        ({"translated": 1.5}, "at most 1"),
        ({"name_lengths": (3, 2)}, "name_lengths"),
        ({"branching": 0}, "branching"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)
