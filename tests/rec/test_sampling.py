import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.interactions import Interactions
from core.sparse import Graph
from rec.graph import RecData
from rec.sampling import nth_absent, sample_triples, steps_per_epoch, triple_sampler

USERS, ITEMS, DRAWS = 12, 15, 60_000


@pytest.fixture(scope="module")
def matrix():
    """Training items; user 0 has none, user 1 all, user 2 all but one."""
    matrix = np.random.default_rng(0).random((USERS, ITEMS)) < 0.3
    matrix[0], matrix[1], matrix[2] = False, True, True
    matrix[2, 7] = False
    return matrix


@pytest.fixture(scope="module")
def data(matrix):
    indptr = np.concatenate([[0], np.cumsum(matrix.sum(1))]).astype(np.int32)
    items = np.nonzero(matrix)[1].astype(np.int32)
    nothing = np.zeros(USERS + 1, np.int32), np.zeros(0, np.int32)
    return RecData.build(Interactions(indptr, items, *nothing, (USERS, ITEMS)))


@pytest.fixture(scope="module")
def drawn(data):
    return jax.tree.map(np.asarray, jax.jit(sample_triples, static_argnums=2)(data, jax.random.key(1), DRAWS))


def chi_square_p(observed, expected_support):
    """The p-value of uniformity over the support; nothing may fall outside of it."""
    assert not observed[~expected_support].any()
    return scipy.stats.chisquare(observed[expected_support]).pvalue if expected_support.sum() > 1 else 1.0


def test_users_with_a_choice_are_drawn_uniformly(matrix, drawn):
    support = matrix.any(1) & ~matrix.all(1)
    assert chi_square_p(np.bincount(drawn.users, minlength=USERS), support) > 1e-3


def test_positives_are_uniform_over_the_users_items(matrix, drawn):
    for user in range(2, USERS):
        counts = np.bincount(drawn.positives[drawn.users == user], minlength=ITEMS)
        assert chi_square_p(counts, matrix[user]) > 1e-4


def test_negatives_are_uniform_over_all_other_items(matrix, drawn):
    for user in range(2, USERS):
        counts = np.bincount(drawn.negatives[drawn.users == user], minlength=ITEMS)
        assert chi_square_p(counts, ~matrix[user]) > 1e-4


def test_negatives_do_not_depend_on_positives(matrix, drawn):
    user = int(np.argmin(np.where(matrix.sum(1) > 2, matrix.sum(1), ITEMS)))
    mine = drawn.users == user
    table = np.zeros((ITEMS, ITEMS))
    np.add.at(table, (drawn.positives[mine], drawn.negatives[mine]), 1)
    table = table[matrix[user]][:, ~matrix[user]]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


find = jax.jit(nth_absent)


@settings(deadline=None, max_examples=50)
@given(order=st.permutations(range(16)))
def test_nth_absent_enumerates_the_empty_columns(order):
    matrix = np.isin(np.arange(16), order[:8]).reshape(2, 8)
    pattern = Graph.from_edges(*np.nonzero(matrix), matrix.shape)
    rows, expected = np.nonzero(~matrix)
    rank = np.concatenate([np.arange(count) for count in np.bincount(rows, minlength=2)])
    np.testing.assert_array_equal(find(pattern, jnp.asarray(rows), jnp.asarray(rank)), expected)


def test_batches_are_a_function_of_seed_and_step(data):
    sample = jax.jit(triple_sampler(64))
    key = jax.random.key(3)
    same, again, other = (sample(data, key, step).triples.users for step in (5, 5, 6))
    np.testing.assert_array_equal(same, again)
    assert (np.asarray(same) != np.asarray(other)).any()


def test_an_epoch_draws_at_least_one_triple_per_interaction():
    assert steps_per_epoch(42_135, 2048) == 21
    assert steps_per_epoch(2048, 2048) == 1
    assert steps_per_epoch(2049, 2048) == 2
