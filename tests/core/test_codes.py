import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.vectors import Vectors, write_vectors
from core.errors import DataError
from core.sparse import combine, native, pick, scatter, top_k

B, K, M, D = 7, 5, 23, 37


def operands(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    v, x, table = (jax.random.normal(k, s, dtype) for k, s in zip(keys, ((B, K), (B, D), (M, D)), strict=False))
    return v, jax.random.randint(keys[3], (B, K), 0, M), x, table


def one_hot(v, i):
    """The codes as a dense [b, m] matrix."""
    return jnp.einsum("bk,bkm->bm", v, jax.nn.one_hot(i, M, dtype=v.dtype))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 90), st.data())
def test_the_k_largest_are_those_of_lax_with_ties_to_the_lower_index(rows, width, data):
    k = data.draw(st.integers(1, width))
    seed = data.draw(st.integers(0, 100))
    x = np.random.default_rng(seed).integers(-3, 4, (rows, width)).astype(np.float32) / 2  # many ties
    values, indices = top_k(jnp.asarray(x), k)
    order = np.argsort(-x, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))
    np.testing.assert_array_equal(indices, jax.lax.top_k(jnp.asarray(x), k)[1])


def test_long_rows_and_the_largest_numbers():
    x = jax.random.normal(jax.random.key(1), (3, 5_000)).at[0, 7].set(jnp.inf).at[1, 9].set(-jnp.inf)
    for k in (1, 40, 1_000):
        for ours, theirs in zip(jax.jit(top_k, static_argnums=1)(x, k), jax.lax.top_k(x, k), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("way", ["kernel", "xla"])
def test_derivatives_equal_those_of_dense_products(way, dtype, tolerance, monkeypatch):
    if way == "xla":
        monkeypatch.setenv("RELIC_SPARSE", "xla")
    else:
        assert native.register()
    with jax.enable_x64(dtype == "float64"):
        v, i, x, table = operands(jnp.dtype(dtype))
        sparse = {
            "combine": lambda v, x, t: combine(v, i, t) ** 2,
            "pick": lambda v, x, t: pick(x, i, t) ** 2,
            "scatter": lambda v, x, t: scatter(v, i, x, M) ** 2,
        }
        dense = {
            "combine": lambda v, x, t: (one_hot(v, i) @ t) ** 2,
            "pick": lambda v, x, t: jnp.take_along_axis(x @ t.T, i, 1) ** 2,
            "scatter": lambda v, x, t: (one_hot(v, i).T @ x) ** 2,
        }
        for name in sparse:
            for of in (sparse, dense):
                of[name] = jax.value_and_grad(lambda *a, fn=of[name]: fn(*a).sum(), argnums=(0, 1, 2))
            ours, theirs = sparse[name](v, x, table), dense[name](v, x, table)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance * max(1.0, np.abs(b).max())),
                ours, theirs,
            )  # fmt: skip


def test_batches_of_codes_equal_single_ones():
    v, i, x, table = operands()
    many = jax.vmap(lambda v, x: (combine(v, i, table), scatter(v, i, x, M)))(jnp.stack([v, -v]), jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(many[0][1], combine(-v, i, table), rtol=1e-6)
    np.testing.assert_allclose(many[1][1], scatter(-v, i, 2 * x, M), rtol=1e-6)


def test_vectors_return_from_a_store_in_any_order(tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    assert write_vectors(tmp_path, [rows[:4], rows[4:]]) == 10
    store = Vectors(tmp_path)
    np.testing.assert_array_equal(np.stack([store[i] for i in (9, 0, 5)]), rows[[9, 0, 5]])


@pytest.mark.parametrize("spoil", ["meta", "records"])
def test_a_damaged_store_is_named(tmp_path, spoil):
    write_vectors(tmp_path, [np.ones((4, 2), np.float32)])
    if spoil == "meta":
        (tmp_path / "vectors.json").unlink()
    else:
        (tmp_path / "vectors.array_record").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="write it again"):
        Vectors(tmp_path)


def test_rows_of_different_widths_are_refused(tmp_path):
    with pytest.raises(DataError, match="among rows of"):
        write_vectors(tmp_path, [np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)])
