from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from core.errors import ConfigError
from rec.sequential import PAD, Bert4Rec, GRU4Rec, SASRec, SASRecPreNorm, item_scores, queries_after, states_at_places
from rec.sequential.models import masked_softmax
from tests.rec.sequential_reference import sasrec_state

ITEMS, LENGTH = 30, 8
CAUSAL = {
    "sasrec": SASRec(ITEMS, 8, length=LENGTH),
    "two blocks": SASRec(ITEMS, 8, length=LENGTH, blocks=2, heads=2),
    "pre-norm": SASRecPreNorm(ITEMS, 8, length=LENGTH),
    "gru": GRU4Rec(ITEMS, 8, length=LENGTH, hidden=6),
}
MODELS = {**CAUSAL, "bert": Bert4Rec(ITEMS, 8, length=LENGTH)}


@cache
def started(module):
    """Parameters far from zero, so that every term counts."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32), shapes)


@cache
def jitted(module, method="__call__"):
    return jax.jit(lambda params, *inputs: module.apply(params, *inputs, method=method))


def states(module, *inputs):
    return np.asarray(jitted(module)(started(module), *inputs))


def query(module, histories):
    return np.asarray(jitted(module, "query")(started(module), histories))


def padded(*histories, left=True):
    """Rows of equal length, always as many, so that each model is compiled once."""
    rows = []
    for history in [*histories, *[[]] * (ROWS - len(histories))]:
        empty = [PAD] * (LENGTH - len(history))
        rows.append([*empty, *history] if left else [*history, *empty])
    return jnp.array(rows, jnp.int32)


ROWS = 6
HISTORIES = ([3], [4, 7], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2])


@pytest.mark.parametrize(
    ("module", "epsilon"),
    [
        (SASRec(ITEMS, 8, length=LENGTH), 1e-5),  # torch.nn.LayerNorm's own, which ReChorus leaves as it is
        (SASRecPreNorm(ITEMS, 8, length=LENGTH), 1e-8),  # kang205/SASRec, modules.py, normalize
        (Bert4Rec(ITEMS, 8, length=LENGTH), 1e-12),  # tf.contrib.layers.layer_norm, in FeiSun/BERT4Rec, modeling.py
    ],
)
def test_layer_normalisation_adds_the_epsilon_of_the_implementation_followed(module, epsilon):
    """Inputs so small that the epsilon decides: it shows in the output of each normalisation."""
    params = jax.tree.map(lambda leaf: leaf * 1e-4, started(module))
    found = []

    def note(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if isinstance(context.module, nn.LayerNorm):
            found.append((context.module.name, args[0], out))
        return out

    with nn.intercept_methods(note):
        module.apply(params, padded([1, 2, 3, 4, 5, 6, 7, 8]))
    assert found
    for name, x, out in found:
        scale, bias = (np.asarray(params["params"][name][part], float) for part in ("scale", "bias"))
        x = np.asarray(x, float)[0]
        expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * scale + bias
        np.testing.assert_allclose(out[0], expected, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_double_precision_is_computed_where_it_is_asked_for(name):
    with jax.enable_x64(True):
        module, single = MODELS[name].clone(dtype=jnp.float64), MODELS[name]
        params = started(single)
        scores = item_scores(module, params, padded(*HISTORIES))
        assert scores.dtype == jnp.float64
        assert item_scores(single, params, padded(*HISTORIES)).dtype == jnp.float32
        doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        np.testing.assert_allclose(scores, item_scores(module, doubled, padded(*HISTORIES)), rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"num_items": 0}, {"heads": 3}, {"blocks": -1}, {"dropout": 2.0}])
def test_sizes_of_a_model_that_cannot_be_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SASRec(**{"num_items": ITEMS, "dim": 8} | wrong).init(jax.random.key(0), padded([1]))


@pytest.mark.parametrize("heads", [1, 2])
def test_sasrec_equals_numpy_with_positions_counted_back(heads, record_property):
    module = SASRec(ITEMS, 8, length=LENGTH, heads=heads)
    found, params = query(module, padded(*HISTORIES)), started(module)["params"]
    expected = [sasrec_state(params, np.array(history), heads) for history in HISTORIES]
    error = np.abs(found[: len(HISTORIES)] - expected).max()
    record_property("value", f"largest difference {error:.1e} over histories of 1 to {LENGTH} items")
    assert error < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_where_the_padding_is_changes_no_state(name):
    left, right = (states(MODELS[name], padded(*HISTORIES, left=side)) for side in (True, False))
    for row, history in enumerate(HISTORIES):
        n = len(history)
        np.testing.assert_allclose(left[row, LENGTH - n :], right[row, :n], atol=2e-6)
        assert not left[row, : LENGTH - n].any()


@pytest.mark.parametrize("name", CAUSAL)
def test_later_items_change_no_earlier_state(name):
    whole, other = states(CAUSAL[name], padded([1, 2, 3, 4, 5], [1, 2, 3, 9, 8], left=False))[:2]
    np.testing.assert_array_equal(whole[:3], other[:3])
    assert np.abs(whole[3:5] - other[3:5]).min() > 0


@pytest.mark.parametrize("name", CAUSAL)
def test_states_of_one_pass_are_those_of_all_prefixes(name):
    history = [5, 1, 9, 2, 7, 3]
    together = states(CAUSAL[name], padded(history, left=False))[0, : len(history)]
    prefixes = query(CAUSAL[name], padded(*[history[:n] for n in range(1, len(history) + 1)]))
    np.testing.assert_allclose(together, prefixes, atol=3e-6)


@pytest.mark.parametrize("name", ["sasrec", "pre-norm", "gru", "bert"])
def test_packed_histories_do_not_see_each_other(name):
    a, b = [1, 2, 3], [4, 5, 6, 7]
    segments = jnp.zeros((ROWS, LENGTH), jnp.int32).at[0].set(jnp.array([1, 1, 1, 2, 2, 2, 2, 0]))
    together = states(MODELS[name], padded([*a, *b], left=False), segments)[0]
    apart = states(MODELS[name], padded(a, b, left=False))
    np.testing.assert_allclose(together[:3], apart[0, :3], atol=2e-6)
    np.testing.assert_allclose(together[3:7], apart[1, :4], atol=2e-6)


@pytest.mark.parametrize("name", ["sasrec", "gru", "bert"])
def test_an_empty_history_is_finite_and_leaves_the_others_alone(name):
    module, histories = MODELS[name], padded([], [3], [1, 2])
    found = query(module, histories)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], query(module, padded([3]))[0], atol=2e-6)
    if name in CAUSAL:
        assert not found[0].any()
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(module.apply(params, histories) ** 2)))(started(module))
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradient))


def test_a_hidden_item_cannot_be_seen():
    module, histories = MODELS["bert"], padded([1, 2, 3, 4], [1, 2, 9, 4])
    hidden = jnp.zeros(histories.shape, bool).at[:2, -2].set(True)
    one, other = states(module, histories, None, hidden)[:2]
    np.testing.assert_array_equal(one, other)
    assert np.abs(states(module, histories)[0] - one).max() > 0


@pytest.mark.parametrize("name", ["sasrec", "bert"])
def test_bfloat16_is_close_to_float32(name):
    module, histories = MODELS[name], padded(*HISTORIES)
    low = module.clone(dtype=jnp.bfloat16)
    exact, rounded = (np.asarray(jax.jit(partial(item_scores, m))(started(module), histories)) for m in (module, low))
    assert rounded.dtype == np.float32
    assert jax.eval_shape(low.apply, started(module), histories).dtype == jnp.bfloat16
    shapes = jax.eval_shape(low.init, jax.random.key(0), histories)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert 0 < np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 0.05


def test_a_softmax_over_nothing_is_zero_with_a_zero_gradient():
    scores, mask = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[True, True], [False, False]])
    weights, back = jax.vjp(jax.jit(lambda s: masked_softmax(s, mask)), scores)
    np.testing.assert_allclose(weights, [[0.26894143, 0.73105857], [0, 0]], atol=1e-7)
    (gradient,) = back(jnp.array([[1.0, 0.0], [1.0, 0.0]]))
    assert np.isfinite(np.asarray(gradient)).all()
    assert not np.asarray(gradient[1]).any()


def test_states_and_queries_of_many_rows_are_those_of_single_ones():
    module = SASRec(ITEMS, 8, length=LENGTH)
    rng = np.random.default_rng(4)
    items = jnp.asarray(rng.integers(0, ITEMS, (515, LENGTH)))
    items = items.at[:, 0].set(PAD)
    segments = jnp.where(items == PAD, 0, 1)
    found, last = states_at_places(module, started(module), items, segments)
    np.testing.assert_array_equal(last, np.asarray(items[:, 1:]).ravel())
    rows = np.asarray(jitted(module)(started(module), items[510:], segments[510:]))[:, 1:]
    np.testing.assert_allclose(found[-5 * (LENGTH - 1) :], rows.reshape(-1, 8), atol=1e-6)
    queries = queries_after(module, started(module), items)
    np.testing.assert_allclose(queries[510:], query(module, items[510:]), atol=1e-6)
