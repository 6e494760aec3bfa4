from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.fit import fit
from rec.sequential import (
    EVERY_ITEM,
    PAD,
    Batch,
    Bert4Rec,
    GRU4Rec,
    NextItemRanking,
    Rows,
    SASRec,
    World,
    as_sequences,
    binary,
    bpr_max,
    draw_walks,
    item_scores,
    leave_one_out,
    own_negatives,
    popularity,
    popularity_score,
    row_sampler,
    sequence_data,
    sequence_loss,
    sequential_learner,
    shared_negatives,
    softmax,
    training_rows,
)

WORLD = World(users=400, items=80, groups=8, longest=24)


@pytest.fixture(scope="module")
def sequences():
    return as_sequences(draw_walks(jax.random.key(0), WORLD).items, WORLD.items)


@pytest.fixture(scope="module")
def data(sequences):
    return sequence_data(sequences, length=10, row_length=16)


def batch_of(items, targets, negatives, segments=None):
    items, targets = jnp.array(items), jnp.array(targets)
    segments = (items != PAD).astype(jnp.int32) if segments is None else jnp.array(segments)
    keys = jax.random.split(jax.random.key(0), items.shape[0])
    return Batch(Rows(items, targets, segments, jnp.zeros_like(items)), jnp.array(negatives), keys)


def drawn(data, size, negatives):
    return jax.jit(row_sampler(size, negatives))(data, jax.random.key(0), jnp.int32(3))


def differentiated(loss):
    return jax.jit(jax.value_and_grad(lambda params, batch: loss(params, None, batch)[0]))


def started(module, items):
    return jax.jit(module.init)(jax.random.key(0), jnp.asarray(items))


@pytest.mark.parametrize("criterion", [softmax, bpr_max, binary])
def test_the_loss_of_one_pass_is_the_mean_over_prefixes(criterion, record_property):
    """Each prefix of a history as an instance of its own, against all of them in one row."""
    module, history, negatives = SASRec(20, 8, length=6), [5, 1, 9, 2, 7], [3, 4, 6]
    loss = sequence_loss(module, criterion)
    params = started(module, np.zeros((1, 6), int))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    whole = batch_of([[*history[:-1], PAD, PAD]], [[*history[1:], PAD, PAD]], negatives)
    single = batch_of(
        [[PAD] * (6 - n) + history[:n] for n in range(1, 5)],
        [[PAD] * 5 + [history[n]] for n in range(1, 5)],
        negatives,
    )
    a, b = (differentiated(loss)(params, batch) for batch in (whole, single))
    np.testing.assert_allclose(a[0], b[0], rtol=1e-6)
    gaps = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a[1], b[1])
    record_property("value", f"gradients differ by at most {max(jax.tree.leaves(gaps)):.1e}")
    assert max(jax.tree.leaves(gaps)) < 1e-5


def test_criteria_are_their_formulas():
    positive, negatives = jnp.array([0.3, -1.0]), jnp.array([[0.5, -0.2, 1.0], [0.0, 2.0, -3.0]])
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x)))  # noqa: E731
    weights = np.exp(negatives) / np.exp(negatives).sum(1, keepdims=True)
    expected = -np.log((weights * sigmoid(positive[:, None] - negatives)).sum(1))
    np.testing.assert_allclose(bpr_max(positive, negatives), expected, rtol=1e-5)
    expected = -np.log(sigmoid(positive)) - np.log(sigmoid(-negatives)).sum(1)
    np.testing.assert_allclose(binary(positive, negatives), expected, rtol=1e-5)
    everything = np.concatenate([positive[:, None], negatives], 1)
    np.testing.assert_allclose(softmax(positive, negatives), np.log(np.exp(everything).sum(1)) - positive, rtol=1e-5)
    one = negatives[:, :1]
    np.testing.assert_allclose(bpr_max(positive, one), -np.log(sigmoid(positive - one[:, 0])), rtol=1e-5)


def test_with_every_item_as_negative_the_loss_is_the_cross_entropy(data):
    module = SASRec(WORLD.items, 8, length=10)
    batch = drawn(data, 8, EVERY_ITEM)
    params = started(module, batch.rows.items)
    logits = jax.jit(module.apply)(params, batch.rows.items, batch.rows.segments) @ params["params"]["items"].T
    there = batch.rows.targets != PAD
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(batch.rows.targets, 0))
    expected = jnp.sum(jnp.where(there, each, 0)) / there.sum()
    np.testing.assert_allclose(differentiated(sequence_loss(module, softmax))(params, batch)[0], expected, rtol=1e-5)


def test_own_negatives_are_never_items_of_the_user(data):
    batch = drawn(data, 8, own_negatives(5))
    assert batch.negatives.shape == (8, 16, 5)
    pattern = data.clicked
    has = np.zeros(pattern.shape, bool)
    has[np.asarray(pattern.rows), np.asarray(pattern.cols)] = True
    users = np.asarray(batch.rows.users)[..., None]
    assert not has[users, np.asarray(batch.negatives)].any()


def test_a_row_without_any_item_changes_nothing(data):
    module = GRU4Rec(WORLD.items, 8, hidden=8)
    loss = sequence_loss(module, softmax)
    batch = drawn(data, 4, shared_negatives(7))
    params = started(module, batch.rows.items)
    empty = Rows(*(jnp.full((1, 16), fill) for fill in (PAD, PAD, 0, 0)))
    longer = Batch(
        jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch.rows, empty),
        batch.negatives,
        jnp.concatenate([batch.keys, batch.keys[:1]]),
    )
    a, b = (differentiated(loss)(params, part) for part in (batch, longer))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7), a, b)


def test_nothing_but_padding_gives_a_loss_of_zero():
    module = SASRec(9, 4, length=3)
    batch = batch_of([[PAD] * 3], [[PAD] * 3], [1, 2])
    params = started(module, batch.rows.items)
    value, gradient = differentiated(sequence_loss(module, softmax))(params, batch)
    assert value == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("module", "hide"),
    [
        (SASRec(80, 16, length=10, dropout=0.1), None),
        pytest.param(GRU4Rec(80, 16, length=10, dropout=0.1, hidden=16), None, marks=pytest.mark.slow),
        pytest.param(Bert4Rec(80, 16, length=10, dropout=0.1, blocks=1), 0.3, marks=pytest.mark.slow),
        pytest.param(SASRec(80, 16, length=10, dtype=jnp.bfloat16), None, marks=pytest.mark.slow),
    ],
    ids=["sasrec", "gru4rec", "bert4rec", "bfloat16"],
)
def test_models_learn_to_stay_in_the_group(module, hide, sequences):
    """Far above popularity, which knows nothing of groups, after two hundred steps."""
    data = sequence_data(sequences, length=10, row_length=16, cloze=hide is not None)
    learner = sequential_learner(module, tx=optax.adam(1e-2), batch_size=64, negatives=EVERY_ITEM, hide=hide)
    state, _ = fit(learner, data, key=jax.random.key(0), steps=200, chunk=200)
    examples = leave_one_out(sequences, length=10)
    found = NextItemRanking(examples, score=partial(item_scores, module)).means(state.params)
    counts = jnp.asarray(popularity(training_rows(sequences), WORLD.items))
    known = NextItemRanking(examples, score=popularity_score).means(counts)
    assert found["ndcg@10"] > known["ndcg@10"] + 0.1
