"""Scores: symmetry, sums over layers and tokens, low rank, batches, the best of a stream, the Laplace posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.digest import of_arrays
from core.fit import fit
from interp import ekfac
from interp.ekfac.contractions import is_lookup, low_rank_scores
from interp.ekfac.contractions import scores as contracted
from interp.ekfac.contractions import token_scores as by_token
from interp.likelihoods import Task, categorical, gaussian

VOCABULARY, LENGTH, WIDTH = 5, 4, 6


def language_model(params, example):
    """Logits of a next token from all tokens so far, by a table, a mean over the past, a tied head and a bias."""
    h = params["table"][example["x"]]
    past = jnp.cumsum(h, axis=0) / jnp.arange(1, LENGTH + 1)[:, None]
    h = h + jnp.tanh(past @ params["mix"]["kernel"] + params["mix"]["bias"])
    return h @ params["table"].T + params["shift"]


TASK = Task(language_model, categorical(lambda example: example["y"]))


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "table": normal(VOCABULARY, WIDTH),
        "mix": {"kernel": normal(WIDTH, WIDTH), "bias": normal(WIDTH)},
        "shift": normal(VOCABULARY),
    }
    x, y = (jnp.asarray(rng.integers(VOCABULARY, size=(11, LENGTH))) for _ in range(2))
    train = {"x": x, "y": y}
    fitted = ekfac.fit_curvature(TASK, params, train, key=jax.random.key(0), fisher=ekfac.empirical(), batch_size=4)
    return fitted, train


@pytest.fixture(scope="module")
def scores(problem):
    fitted, train = problem
    return ekfac.influence(fitted, train, train, batch_size=4)


def layers_of(problem, queries_of=None):
    fitted, train = problem
    prepared = ekfac.prepared_queries(fitted, queries_of or train)
    return jax.jit(lambda p, q, e: ekfac.layer_scores(fitted.capture, TASK, p, q, e))(fitted.params, prepared, train)


def test_scores_of_a_set_on_itself_are_symmetric(scores, record_property):
    worst = float(jnp.max(jnp.abs(scores - scores.T)) / jnp.max(jnp.abs(scores)))
    record_property("value", f"relative difference {worst:.0e}")
    assert worst < 1e-4


def test_self_influence_is_the_diagonal_of_the_scores(problem, scores, record_property):
    fitted, train = problem
    own = ekfac.self_influence(fitted, train, batch_size=4)
    worst = float(jnp.max(jnp.abs(own / jnp.diagonal(scores) - 1)))
    record_property("value", f"relative difference {worst:.0e}")
    assert bool(jnp.all(own > 0))
    assert worst < 1e-3


def test_scores_by_layer_and_by_token_sum_to_the_score(problem, scores, record_property):
    fitted, train = problem
    layers = layers_of(problem)
    prepared = ekfac.prepared_queries(fitted, train)
    tokens = jax.jit(lambda p, q, e: ekfac.token_scores(fitted.capture, TASK, p, q, e, LENGTH))(
        fitted.params, prepared, train
    )
    assert set(layers) == {"table", "mix/kernel", "shift"}
    assert tokens.shape == (*scores.shape, LENGTH)
    size = float(jnp.max(jnp.abs(scores)))
    found = [float(jnp.max(jnp.abs(s - scores))) / size for s in (sum(layers.values()), tokens.sum(axis=-1))]
    record_property("value", f"relative differences {found[0]:.0e} over layers, {found[1]:.0e} over tokens")
    assert max(found) < 1e-4


def test_a_tied_table_is_attributed_to_the_tokens_of_both_of_its_uses(problem):
    """The gradient with one position's loss alone left: no later token can have a part in it."""
    fitted, train = problem
    first = Task(language_model, categorical(lambda e: e["y"], lambda e: jnp.arange(LENGTH) == 0))
    prepared = {"table": ekfac.prepared_queries(fitted, train)["table"]}
    alone = ekfac.capture(first.outputs, fitted.params, jax.tree.map(lambda leaf: leaf[0], train), "table")
    tokens = jax.jit(lambda p, q, e: ekfac.token_scores(alone, first, p, q, e, LENGTH))(fitted.params, prepared, train)
    assert bool(jnp.all(tokens[..., 1:] == 0))
    assert bool(jnp.any(tokens[..., 0] != 0))


def test_the_batch_size_does_not_change_scores(problem, scores):
    fitted, train = problem
    for batch_size in (1, 3, 11, 64):
        found = ekfac.influence(fitted, train, train, batch_size=batch_size)
        np.testing.assert_allclose(found, scores, rtol=1e-3, atol=1e-5 * float(jnp.max(jnp.abs(scores))))


def test_a_measurement_on_completions_scores_the_gradient_of_just_that(problem):
    """log p of the last two targets given the rest, against autodiff and the same curvature."""
    fitted, train = problem

    def completion(params, query):
        log_p = jax.nn.log_softmax(language_model(params, query))
        return -jnp.sum(log_p[jnp.arange(2, LENGTH), query["y"][2:]])

    found = ekfac.influence(fitted, train, train, measure=completion)
    damped = ekfac.damped_curvature(fitted)

    @jax.jit
    def expected(params, damped, train):
        def one(query):
            moved = ekfac.precondition_tree(fitted.capture, damped, jax.grad(completion)(params, query))
            gradients = jax.vmap(jax.grad(TASK.loss), (None, 0))(params, train)
            products = jax.tree.map(lambda m, g: jnp.tensordot(g, m, m.ndim), moved, gradients)
            return sum(jax.tree.leaves(products))

        return jax.lax.map(one, train)

    want = expected(fitted.params, damped, train)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(want))))


sizes = st.integers(1, 4)


@settings(max_examples=8, deadline=None)
@given(
    stack=st.integers(1, 2),
    examples=sizes,
    positions=sizes,
    widths=st.tuples(sizes, sizes),
    queries=sizes,
    table=st.booleans(),
)
def test_scores_agree_in_every_order_of_contraction(stack, examples, positions, widths, queries, table):
    rng = np.random.default_rng(stack)
    rows, columns = widths
    g = jnp.asarray(rng.normal(size=(stack, examples, positions, columns)), jnp.float32)
    matrices = jnp.asarray(rng.normal(size=(queries, stack, rows, columns)), jnp.float32)
    a = (
        jnp.asarray(rng.integers(rows, size=(stack, examples, positions)))
        if table
        else jnp.asarray(rng.normal(size=(stack, examples, positions, rows)), jnp.float32)
    )

    @jax.jit
    def compute(a, g, matrices):
        full = jax.nn.one_hot(a, rows) if is_lookup(a) else a
        expected = jnp.einsum("snti,snto,qsio->qn", full, g, matrices)
        found = [contracted(a, g, matrices, order) for order in ("auto", "inputs", "gradient")]
        left, values, right = jnp.linalg.svd(matrices, full_matrices=False)
        exact = low_rank_scores(a, g, left * values[..., None, :], right)
        return expected, [*found, by_token(a, g, matrices).sum(axis=-1), exact]

    expected, found = compute(a, g, matrices)
    for result in found:
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def test_low_rank_queries_miss_the_tail_of_their_singular_values():
    """Per query and block, the squared error of the matrix is the sum of the squares left out, and no more."""
    matrices = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 9, 7)), jnp.float32)}
    values = np.linalg.svd(np.asarray(matrices["w"]), compute_uv=False)
    for rank in (1, 2, 3):
        (part,) = jax.jit(lambda m, rank=rank: ekfac.low_rank(m, rank))(matrices).values()
        assert isinstance(part, ekfac.LowRank)
        error = np.sum((np.asarray(matrices["w"]) - np.asarray(part.left @ part.right)) ** 2, axis=(-1, -2))
        np.testing.assert_allclose(error, np.sum(values[..., rank:] ** 2, axis=-1), rtol=1e-4)
    assert ekfac.low_rank(matrices, 5)["w"] is matrices["w"]  # would not be smaller


def test_low_rank_influence_converges_to_the_exact_one(problem, scores):
    fitted, train = problem
    found = {rank: ekfac.influence(fitted, train, train, rank=rank) for rank in (1, 2, 6)}
    errors = [float(jnp.max(jnp.abs(found[rank] - scores))) for rank in found]
    assert errors[0] > errors[1] > errors[2]
    np.testing.assert_allclose(found[6], scores, rtol=1e-3, atol=1e-5 * float(jnp.max(jnp.abs(scores))))


@pytest.mark.parametrize("batch_size", [3, 11])
def test_the_best_of_a_stream_are_those_of_all_scores(problem, scores, batch_size):
    fitted, train = problem
    prepared = ekfac.prepared_queries(fitted, train)
    best = ekfac.most_influential(fitted, prepared, train, 4, key=jax.random.key(0), batch_size=batch_size)
    order = np.argsort(-np.asarray(scores), axis=1)
    np.testing.assert_array_equal(best.highest_ids, order[:, :4])
    np.testing.assert_array_equal(best.lowest_ids, order[:, ::-1][:, :4])
    np.testing.assert_allclose(best.highest, np.take_along_axis(np.asarray(scores), order[:, :4], 1), rtol=1e-3)


class FromDisk:
    """Batches of three that are read when they are needed and can be taken up anywhere; the last is padded."""

    def __init__(self, rows, last=None):
        self.rows, self.at, self.last = rows, 0, last

    def __next__(self):
        if self.at == self.last:
            raise InterruptedError
        index = np.arange(3 * self.at, 3 * self.at + 3)
        inside = np.minimum(index, 10)
        self.at += 1
        examples = jax.tree.map(lambda leaf: np.asarray(leaf)[inside], self.rows)
        return ekfac.Examples(None, examples, inside, (index < 11).astype(np.float32))

    def identity(self):
        return {"rows": of_arrays(self.rows)}

    def get_state(self):
        return self.at

    def set_state(self, state):
        self.at = state


def test_a_set_too_large_for_memory_streams_past_and_goes_on_after_an_interruption(problem, scores, tmp_path):
    fitted, train = problem
    prepared = ekfac.prepared_queries(fitted, train)
    learner = ekfac.top(4, 11, lambda _, rows: ekfac.pairwise(fitted.capture, TASK, fitted.params, prepared, rows))
    settings = {"key": jax.random.key(0), "steps": 4, "chunk": 1, "checkpoint_every": 1, "workdir": tmp_path}
    with pytest.raises(InterruptedError):
        fit(learner, FromDisk(train, last=2), **settings)
    best = fit(learner, FromDisk(train), **settings).state
    order = np.argsort(-np.asarray(scores), axis=1)
    np.testing.assert_array_equal(best.highest_ids, order[:, :4])
    np.testing.assert_array_equal(best.lowest_ids, order[:, ::-1][:, :4])


def stream(values, batches, k):
    """The best of rows of scores which arrive in batches."""
    learner = ekfac.top(k, values.shape[0], lambda _, examples: examples.T)
    state = None
    for chosen in batches:
        batch = ekfac.Examples(None, jnp.asarray(values.T[chosen]), jnp.asarray(chosen), jnp.ones(len(chosen)))
        state = learner.init(jax.random.key(0), batch) if state is None else state
        state, _ = learner.update(state, batch)
    return state


def test_ties_go_to_the_lower_id_however_the_stream_is_cut():
    values = np.array([[1.0, 3.0, 3.0, 0.0, 3.0, 1.0]])
    whole = stream(values, [np.arange(6)], 3)
    assert whole.highest_ids.tolist() == [[1, 2, 4]]
    assert whole.lowest_ids.tolist() == [[3, 0, 5]]
    for batches in ([[5, 4], [3, 2], [1, 0]], [[4], [0, 1, 2, 3, 5]]):
        found = stream(values, [np.array(b) for b in batches], 3)
        assert found.highest_ids.tolist() == whole.highest_ids.tolist()
        assert found.lowest_ids.tolist() == whole.lowest_ids.tolist()


def test_fewer_examples_than_asked_for_leave_places_empty():
    found = stream(np.array([[2.0, 1.0]]), [np.arange(2)], 4)
    assert found.highest_ids.tolist() == [[0, 1, -1, -1]]
    assert found.highest[0, 2:].tolist() == [-np.inf, -np.inf]


def test_the_best_of_two_hosts_merge_to_the_best_of_all():
    values = np.random.default_rng(0).normal(size=(2, 9))
    whole = stream(values, [np.arange(9)], 3)
    merged = ekfac.merge_tops(stream(values, [np.arange(5)], 3), stream(values, [np.arange(5, 9)], 3))
    for ours, expected in zip(merged[2:], whole[2:], strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_draws_from_the_laplace_posterior_have_its_covariance():
    rng = np.random.default_rng(0)
    task = Task(lambda p, e: e["x"] @ p["w"], gaussian(lambda e: e["y"]))
    data = {"x": jnp.asarray(rng.normal(size=(30, 3)), jnp.float32), "y": jnp.zeros((30, 2))}
    params = {"w": jnp.ones((3, 2))}
    fitted = ekfac.fit_curvature(task, params, data, key=jax.random.key(0), fisher=ekfac.exact())
    damped = ekfac.damped_curvature(fitted, ekfac.absolute(0.1))
    keys = jax.random.split(jax.random.key(1), 20_000)
    draw = jax.vmap(lambda k: ekfac.posterior_sample(k, fitted.capture, damped, params, 30)["w"].ravel())
    draws = jax.jit(draw)(keys)
    gauss_newton = np.kron(np.asarray(data["x"].T @ data["x"]) / 30, np.eye(2)) + 0.1 * np.eye(6)
    expected = np.linalg.inv(gauss_newton) / 30
    np.testing.assert_allclose(np.mean(draws, axis=0), 1.0, atol=4 * np.sqrt(expected.max() / 20_000))
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=4 * np.sqrt(2 / 20_000) * expected.max())
