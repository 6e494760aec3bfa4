import itertools
import time
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.interactions import Sequences
from core.errors import DataError
from rec.sequential import (
    PAD,
    NextItemRanking,
    SASRec,
    World,
    as_sequences,
    draw_walks,
    item_neighbours,
    item_scores,
    leave_one_out,
    left_padded,
    metrics_of,
    most_seen,
    neighbour_score,
    next_item_examples,
    pack,
    popularity,
    query_ranking,
    ranks_by_item_blocks,
    sequence_data,
    top_items,
    training_rows,
    transition_score,
    transitions,
    user_rows,
)

SHORT = Sequences(
    np.array([0, 1, 3, 6, 11, 11], np.int32),
    np.array([4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 5], np.int32),
    np.array([0, 0, 1, 3, 0], np.int32),
    (5, 6),
)
"""Users with 1, 2, 3, 5 and no items."""


@cache
def drawn(seed=0, users=70, items=40):
    walks = draw_walks(jax.random.key(seed), World(users, items, 8, longest=24))
    return as_sequences(walks.items, items)


def table_score(table, histories):
    """Scores on a coarse grid, so that there are many ties."""
    return table[jnp.maximum(histories[:, -1], 0)]


def product_score(model, rows):
    queries, table = model
    return queries[rows[:, 0]] @ table.T


def test_leave_one_out_takes_the_last_and_the_last_but_one():
    test, dev = leave_one_out(SHORT, "test", length=3), leave_one_out(SHORT, "dev", length=3)
    assert test.users.tolist() == [1, 2, 3]
    assert test.targets.tolist() == [1, 4, 5]
    assert test.histories.tolist() == [[PAD, PAD, 0], [PAD, 2, 3], [1, 2, 3]]
    assert dev.users.tolist() == [2, 3]
    assert dev.targets.tolist() == [3, 3]
    assert dev.histories.tolist() == [[PAD, PAD, 2], [0, 1, 2]]
    assert [row.tolist() for row in training_rows(SHORT)] == [[], [], [2], [0, 1, 2], []]


@pytest.mark.parametrize("block", [7, 256])
def test_ranks_and_metrics_equal_the_formulas_with_ties_against_the_model(block, record_property):
    sequences = drawn()
    examples = leave_one_out(sequences)
    table = jnp.asarray(np.random.default_rng(1).integers(0, 6, (40, 40)) / 8)
    ranking = NextItemRanking(examples, score=table_score, block=block)
    rows, expected = user_rows(sequences), []
    for user, target in zip(np.asarray(examples.users), np.asarray(examples.targets), strict=True):
        scores = np.asarray(table)[rows[user][-2]]
        allowed = [i for i in range(40) if i == target or i not in rows[user]]
        expected.append(sum(scores[i] >= scores[target] for i in allowed))
    np.testing.assert_array_equal(ranking.ranks(table), expected)
    found, rank = ranking.per_user(table), np.array(expected)
    for k in (5, 10, 20, 50):
        np.testing.assert_allclose(found[f"hr@{k}"], rank <= k)
        np.testing.assert_allclose(found[f"ndcg@{k}"], np.where(rank <= k, 1 / np.log2(rank + 1), 0), rtol=1e-6)
        np.testing.assert_allclose(found[f"mrr@{k}"], np.where(rank <= k, 1 / rank, 0), rtol=1e-6)
    record_property("value", f"all {len(rank)} ranks equal, blocks of {block} users")


@pytest.mark.parametrize("item_block", [1, 8, 64])
def test_ranks_by_item_blocks_are_the_dense_ones(item_block):
    """Whole numbers, so that products are exact in any order."""
    rng = np.random.default_rng(item_block)
    examples = leave_one_out(drawn(3))
    queries = jnp.asarray(rng.integers(-3, 4, (examples.targets.shape[0], 5)), jnp.float32)
    table = jnp.asarray(rng.integers(-3, 4, (40, 5)), jnp.float32)
    numbered = examples._replace(histories=jnp.arange(queries.shape[0])[:, None])
    dense = NextItemRanking(numbered, score=product_score).ranks((queries, table))
    bound = most_seen(examples.held_out)
    blocked = ranks_by_item_blocks(queries, table, examples, item_block=item_block, most_seen=bound)
    np.testing.assert_array_equal(dense, blocked)


def test_what_the_user_had_is_never_recommended():
    sequences = drawn()
    examples = leave_one_out(sequences)
    table = jnp.asarray(np.random.default_rng(2).random((40, 40)))
    top = NextItemRanking(examples, score=table_score, block=32).top(table, k=10)
    for user, target, items in zip(np.asarray(examples.users), np.asarray(examples.targets), top, strict=True):
        others = set(user_rows(sequences)[user].tolist()) - {int(target)}
        assert not others & set(items.tolist())


def test_a_rank_beyond_the_list_counts_nothing():
    found = metrics_of(jnp.array([1, 2, 50, 51, 1000]))
    assert found["hr@50"].tolist() == [1, 1, 1, 0, 0]
    assert found["mrr@50"].tolist() == pytest.approx([1, 0.5, 0.02, 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=30), st.integers(1, 6), st.integers(6, 16))
def test_packing_keeps_every_transition_once(lengths, window, row_length):
    rng = np.random.default_rng(sum(lengths))
    rows = [rng.integers(0, 99, n) for n in lengths]
    examples = next_item_examples(rows, window)
    wanted = sorted((u, a, b) for u, row in enumerate(rows) for a, b in itertools.pairwise(row))
    if not wanted:
        with pytest.raises(DataError, match="at least two training items"):
            pack(examples, row_length)
        return
    packed = jax.tree.map(np.asarray, pack(examples, row_length))
    there = packed.items != PAD
    found = sorted(zip(packed.users[there], packed.items[there], packed.targets[there], strict=True))
    assert [tuple(map(int, row)) for row in found] == [tuple(map(int, row)) for row in wanted]
    assert (packed.segments[there] > 0).all()
    assert not packed.segments[~there].any()
    assert max(len(example.items) for example in examples) <= window


def test_a_history_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match="does not fit into rows of 4"):
        pack(next_item_examples([np.arange(9)], 6), 4)


def test_counting_models_equal_dense_formulas():
    rows, n = training_rows(drawn()), 40
    matrix = np.zeros((len(rows), n))
    for user, row in enumerate(rows):
        matrix[user, row] = 1
    counts = matrix.sum(0)
    cosines = np.nan_to_num(matrix.T @ matrix / np.sqrt(np.outer(counts, counts)))
    np.fill_diagonal(cosines, 0)
    histories = jnp.asarray(left_padded(rows, 6))
    seen = np.array([[i in row[-6:] for i in range(n)] for row in rows], float)
    found = neighbour_score(item_neighbours(rows, n, neighbours=n), histories)
    np.testing.assert_allclose(found, seen @ cosines.T, rtol=1e-5, atol=1e-6)
    after = np.zeros((n, n))
    for row in rows:
        np.add.at(after, (row[:-1], row[1:]), 1)
    chain = after / np.maximum(after.sum(1, keepdims=True), 1)
    share = popularity(rows, n) / popularity(rows, n).sum()
    last = np.array([row[-1] for row in rows])
    found = transition_score(transitions(rows, n), histories)
    np.testing.assert_allclose(found, chain[last] + 1e-3 * share, rtol=1e-5, atol=1e-7)


def test_each_item_keeps_its_nearest_neighbours_only():
    model = item_neighbours(training_rows(drawn()), 40, neighbours=3)
    assert np.bincount(np.asarray(model.pattern.cols)).max() <= 3


def test_walks_stay_in_their_group_and_follow_zipf():
    world = World(users=3000, items=200, groups=20)
    walks = draw_walks(jax.random.key(0), world)
    again = draw_walks(jax.random.key(0), world)
    np.testing.assert_array_equal(walks.items, again.items)
    items, groups = np.asarray(walks.items), np.asarray(walks.groups)
    there = items != PAD
    pairs = there[:, 1:] & there[:, :-1]
    same = (groups[items[:, 1:]] == groups[items[:, :-1]])[pairs].mean()
    taste = np.square(np.asarray(walks.preferences)).sum(1).mean()
    assert same == pytest.approx(0.8 + 0.2 * taste, abs=0.02)
    assert (np.bincount(groups) == 10).all()
    assert there.sum(1).mean() == pytest.approx(15, abs=0.3)
    assert there.sum(1).min() >= 5
    share = np.array([np.sort(np.bincount(items[there], minlength=200)[groups == g])[::-1] for g in range(20)]).sum(0)
    zipf = 1 / np.arange(1, 11)
    np.testing.assert_allclose(share / share.sum(), zipf / zipf.sum(), atol=0.02)


def test_left_padding_keeps_the_latest_items():
    assert left_padded([np.arange(5), np.arange(2), np.arange(0)], 3).tolist() == [[2, 3, 4], [PAD, 0, 1], [PAD] * 3]


def test_queries_are_ranked_as_dense_products_and_their_best_items_leave_out_what_the_user_had():
    examples = leave_one_out(drawn())
    rng = np.random.default_rng(3)
    queries, table = (
        rng.normal(size=(len(examples.targets), 8)).astype(np.float32),
        jnp.asarray(rng.normal(size=(40, 8))),
    )
    scores = np.array(queries @ np.asarray(table).T)
    held_out = examples.held_out
    for user, (start, end) in enumerate(itertools.pairwise(np.asarray(held_out.train_indptr))):
        scores[user, np.asarray(held_out.train_items)[start:end]] = -np.inf
    own = np.take_along_axis(scores, np.asarray(examples.targets)[:, None], axis=1)
    found = query_ranking(examples).ranks((jnp.asarray(queries), table))
    assert (np.abs(found - (scores >= own).sum(axis=1)) <= 0).mean() > 0.98
    users = np.array([5, 0, 33])
    best = top_items(queries[users], table, held_out, users, k=3, block=2)
    np.testing.assert_array_equal(best, np.argsort(-scores[users], axis=1)[:, :3])


@pytest.mark.slow
def test_ranking_twenty_thousand_users_takes_less_than_ten_seconds(record_property):
    users, items = 22_363, 12_101
    rng = np.random.default_rng(0)
    rows = [rng.choice(items, 9, replace=False) for _ in range(users)]
    indptr = np.arange(0, 9 * users + 1, 9)
    sequences = Sequences(indptr, np.concatenate(rows), np.full(users, 7), (users, items))
    module = SASRec(items, 64)
    params = module.init(jax.random.key(0), jnp.zeros((1, 20), jnp.int32))
    ranking = NextItemRanking(leave_one_out(sequences), score=lambda p, h: item_scores(module, p, h))
    ranking.means(params)
    start = time.perf_counter()
    ranking.means(params)
    seconds = time.perf_counter() - start
    record_property("value", f"{seconds:.1f} s for {users:,} users and {items:,} items")
    assert seconds < 10


def test_sequence_data_trains_on_all_but_the_held_out_items():
    sequences = drawn()
    data = sequence_data(sequences, length=6, row_length=16)
    expected = sum(max(0, len(row) - 1) for row in training_rows(sequences))
    assert int((np.asarray(data.rows.targets) != PAD).sum()) == expected
    cloze = sequence_data(sequences, length=6, row_length=16, cloze=True)
    assert int((np.asarray(cloze.rows.items) != PAD).sum()) == sum(map(len, training_rows(sequences)))
    np.testing.assert_array_equal(cloze.rows.items, cloze.rows.targets)
