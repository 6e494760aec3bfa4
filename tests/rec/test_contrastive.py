import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.learner import DATA_AXIS
from rec.contrastive import Columns, first_occurrence, log_partition, log_partition_taylor2, nce, unit_rows
from tests.rec import dccf_reference as reference

few = settings(deadline=None, max_examples=15)
IDS = st.lists(st.integers(0, 5), min_size=12, max_size=12)
"""A batch of 12 examples of at most 6 nodes: always repetitions."""


def two_views(seed=0, n=12, d=5):
    return jax.random.normal(jax.random.key(seed), (2, n, d))


def both_gradients(f):
    return jax.jit(jax.value_and_grad(f, argnums=(0, 1)))


def dense(a, b, mask, tau):
    """The loss on all scores at once, by autodiff."""
    scores = jnp.where(mask, unit_rows(a) @ unit_rows(b).T / tau, -jnp.inf)
    terms = jax.nn.logsumexp(scores, axis=1) - jnp.diag(unit_rows(a) @ unit_rows(b).T) / tau
    return jnp.sum(jnp.where(mask, terms, 0)) / jnp.sum(mask)


@few
@given(IDS)
def test_first_occurrence_marks_what_np_unique_finds(ids):
    expected = np.zeros(len(ids), bool)
    expected[np.unique(ids, return_index=True)[1]] = True
    np.testing.assert_array_equal(first_occurrence(jnp.array(ids)), expected)


def test_unique_mask_nce_equals_nce_on_np_unique(record_property):
    masked = jax.jit(lambda a, b, ids, tau: nce(a[ids], b[ids], first_occurrence(ids), tau, block=5))
    deviations = []

    @few
    @given(IDS, st.integers(0, 100), st.sampled_from([0.2, 1.0]))
    def measure(ids, seed, tau):
        a, b = two_views(seed, n=6)
        distinct = np.unique(ids)
        expected = reference.nce(np.float64(a)[distinct], np.float64(b)[distinct], tau)
        deviations.append(abs(float(masked(a, b, jnp.array(ids), tau)) - expected) / max(abs(expected), 1))

    measure()
    record_property("value", f"largest deviation in {len(deviations)} batches with repetitions: {max(deviations):.1e}")
    assert max(deviations) < 1e-6


@pytest.mark.parametrize("block", [1, 5, 12, 100])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_blocks_change_neither_value_nor_gradients(block, tau):
    a, b = two_views()
    mask = jnp.arange(12) % 3 > 0
    value, grads = both_gradients(lambda a, b: nce(a, b, mask, tau, block=block))(a, b)
    expected, expected_grads = both_gradients(lambda a, b: dense(a, b, mask, tau))(a, b)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grads, expected_grads, atol=1e-5 / tau)


def test_gradients_are_exact_in_float64():
    with jax.enable_x64(True):
        a, b = (np.asarray(x, np.float64) for x in two_views(n=6))
        _, grads = both_gradients(lambda a, b: nce(a, b, jnp.ones(6, bool), 0.5, block=4))(jnp.array(a), jnp.array(b))
        expected = reference.gradients(lambda a, b: reference.nce(a, b, 0.5), a, b)
        np.testing.assert_allclose(grads, expected, atol=1e-13)


def test_rows_that_do_not_count_have_no_influence():
    a, b = two_views()
    mask = jnp.arange(12) < 7
    noisy = jnp.where(mask[:, None], 0, 100.0)
    value, grads = both_gradients(lambda a, b: nce(a, b, mask, 1.0, block=5))(a + noisy, b - noisy)
    assert value == pytest.approx(float(nce(a, b, mask, 1.0)), rel=1e-5)
    assert not np.asarray(grads)[:, 7:].any()


def test_zero_rows_give_finite_values_and_gradients():
    a, b = two_views()
    value, grads = both_gradients(lambda a, b: nce(a, b, jnp.ones(12, bool), 0.2))(a.at[3].set(0), b.at[3].set(0))
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("wrap", [jax.pmap, jax.vmap], ids=["pmap", "vmap"])
def test_replicas_average_to_the_loss_of_the_whole_batch(wrap):
    """Repetitions lie on different replicas, and the replicas' distinct rows are not equally many."""
    nodes = two_views(n=6)
    ids = jnp.array([0, 0, 0, 1, 1, 2, 0, 3, 5, 5, 2, 1])

    def loss(nodes, ids):
        return nce(nodes[0][ids], nodes[1][ids], first_occurrence(ids), 0.5, block=2)

    replicated = wrap(jax.value_and_grad(loss), axis_name=DATA_AXIS, in_axes=(None, 0))
    values, grads = jax.jit(replicated)(nodes, ids.reshape(4, 3))
    expected, expected_grads = jax.jit(jax.value_and_grad(loss))(nodes, ids)
    assert np.unique(values).size > 1
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-6)
    np.testing.assert_allclose(grads.mean(0), expected_grads, atol=1e-6)


def test_seeds_by_vmap_equal_a_loop():
    views = jnp.stack([two_views(seed) for seed in range(3)])
    mask = jnp.arange(12) % 4 > 0

    run = jax.value_and_grad(lambda views: nce(*views, mask, 0.3, block=5))
    values, grads = jax.jit(jax.vmap(run))(views)
    for i, one in enumerate(views):
        value, grad = jax.jit(run)(one)
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        np.testing.assert_allclose(grads[i], grad, atol=1e-5)


def test_eps_compat_is_the_arithmetic_of_the_authors_code(record_property):
    with jax.enable_x64(True):
        a, b = (np.asarray(x, np.float64) for x in two_views(n=200, d=32))
        mask = jnp.ones(200, bool)
        plain, compatible = (float(nce(jnp.array(a), jnp.array(b), mask, 1.0, eps_compat=e)) for e in (False, True))
    relative = abs(plain - compatible) / plain
    record_property("value", f"the two 1e-8 change the loss of 200 nodes by {relative:.1e} of it")
    assert compatible == pytest.approx(reference.nce(a, b, 1.0, eps=1e-8), rel=1e-12)
    assert 0 < relative < 1e-6


def test_second_order_expansion_is_within_the_remainder(record_property):
    """|exp(s) - 1 - s - s^2 / 2| <= |s|^3 exp(|s|) / 6, summed over the columns."""
    with jax.enable_x64(True):
        a, b = unit_rows(two_views(n=500, d=32))
        columns = Columns(b.T, jnp.ones(500))
        exact, expanded = log_partition(a, columns), log_partition_taylor2(a, columns)
        size = jnp.abs(a @ b.T)
        bound = jnp.sum(size**3 * jnp.exp(size), axis=1) / 6
        assert (jnp.abs(jnp.exp(exact) - jnp.exp(expanded)) <= bound).all()
        error = jnp.abs(exact - expanded)
        loss = abs(nce(a, b, jnp.ones(500, bool), 1.0) - nce(a, b, jnp.ones(500, bool), 1.0, method="taylor2"))
        record_property(
            "value",
            f"cosines of s.d. {jnp.std(a @ b.T):.2f}: log-denominator off by {error.mean():.1e} on average, "
            f"{error.max():.1e} at most; the loss by {loss:.1e}",
        )


def compiled(n, block, d):
    def loss(a, b, mask):
        return nce(a, b, mask, 1.0, block=block)

    view, mask = jax.ShapeDtypeStruct((n, d), jnp.float32), jax.ShapeDtypeStruct((n,), bool)
    return both_gradients(loss).lower(view, view, mask).compile()


def test_nce_memory_is_blocked(record_property):
    """A handful of arrays of a block's scores and of arrays of the size of a view, whatever the number of rows."""
    block, d = 64, 16
    held = {}
    for n in (1024, 4096, 16384):
        program = compiled(n, block, d)
        held[n] = program.memory_analysis().temp_size_in_bytes / 4 / n
        assert f"[{n},{n}]" not in program.as_text()
    record_property(
        "value",
        f"value and gradients in blocks of {block} rows, d = {d}; floats held per row: "
        + ", ".join(f"{floats:.0f} for S = {n}" for n, floats in held.items()),
    )
    assert max(held.values()) < 4 * block + 16 * d
