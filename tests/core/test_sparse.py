import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from jax.test_util import check_grads

from core.errors import DataError
from core.parallel import data_mesh
from core.sparse import Graph, bipartite, native, row_sums, sddmm, spmm, symmetric_normalised, transpose_weights

ROOT = Path(__file__).resolve().parents[2]


def random_graph(rng, m, n, density):
    rows, cols = np.nonzero(rng.random((m, n)) < density)
    order = rng.permutation(len(rows))
    return Graph.from_edges(rows[order], cols[order], (m, n))


def dense(graph, weights):
    return jnp.zeros(graph.shape, weights.dtype).at[graph.rows, graph.cols].set(weights)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    m, n, d = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 16, 31, 32, 33, 64, 70]))
    graph = random_graph(rng, m, n, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])))
    w, x, a = (rng.normal(size=s) for s in (graph.num_edges, (n, d), (m, d)))
    return graph, jnp.asarray(w, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(a, jnp.float32)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_products_equal_dense_algebra_whatever_the_pattern(problem):
    graph, w, x, a = problem
    matrix = dense(graph, w)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(spmm(graph, x, w), matrix @ x, **close)
    np.testing.assert_allclose(spmm(graph, x), dense(graph, jnp.ones_like(w)) @ x, **close)
    np.testing.assert_allclose(spmm(graph.T, a, transpose_weights(graph, w)), matrix.T @ a, **close)
    np.testing.assert_allclose(sddmm(graph, a, x), (a @ x.T)[graph.rows, graph.cols], **close)
    np.testing.assert_allclose(row_sums(graph, w), matrix.sum(axis=1), **close)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    graph = random_graph(rng, 7, 5, 0.4)
    w, x, a = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (graph.num_edges, (5, 4), (7, 4)))
    return graph, w, x, a


def test_gradients_of_first_and_second_order_are_those_of_finite_differences(problem):
    graph, w, x, a = problem
    check_grads(lambda x, w: spmm(graph, jnp.sin(x), w), (x, w), order=2, modes=["rev"], rtol=2e-2, atol=2e-2)
    check_grads(lambda a, x: sddmm(graph, jnp.sin(a), x), (a, x), order=2, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_gradients_equal_those_of_dense_algebra(problem):
    graph, w, x, a = problem

    def loss(product):
        return lambda x, w: jnp.sum(a * jnp.tanh(product(x, w)))

    sparse = jax.grad(loss(lambda x, w: spmm(graph, x, w)), (0, 1))(x, w)
    reference = jax.grad(loss(lambda x, w: dense(graph, w) @ x), (0, 1))(x, w)
    for ours, theirs in zip(sparse, reference, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_kernel_and_xla_give_the_same_values_and_gradients(problem, monkeypatch):
    graph, w, x, a = problem
    assert native.register(), "the C kernel must build where the tests run"

    def everything():
        def loss(x, w, a):
            return jnp.sum(sddmm(graph, a, spmm(graph.T, a, transpose_weights(graph, w)) * x) ** 2)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))

    kernel = everything()
    assert "relic_spmm" in kernel.lower(x, w, a).as_text()
    ours = kernel(x, w, a)
    monkeypatch.setenv("RELIC_SPARSE", "xla")
    fallback = everything()
    assert "relic_spmm" not in fallback.lower(x, w, a).as_text()
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(fallback(x, w, a)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_vmap_over_either_or_both_operands_equals_a_loop(problem):
    graph, w, x, _ = problem
    xs, ws = jnp.stack([x, -x, 2 * x]), jnp.stack([w, w + 1, 3 * w])
    for axes in ((0, None), (None, 0), (0, 0)):
        out = jax.jit(jax.vmap(lambda x, w: spmm(graph, x, w), axes))(
            xs if axes[0] == 0 else x, ws if axes[1] == 0 else w
        )
        for i in range(3):
            expected = spmm(graph, xs[i] if axes[0] == 0 else x, ws[i] if axes[1] == 0 else w)
            np.testing.assert_allclose(out[i], expected, rtol=1e-5, atol=1e-6)


def test_nested_vmap_of_a_gradient_equals_a_loop(problem):
    graph, w, x, a = problem
    xs = jnp.stack([x, -x])
    ws = jnp.stack([w, 2 * w, w + 1])
    grad = jax.grad(lambda w, x: jnp.sum(jnp.sin(sddmm(graph, a, x)) * spmm(graph, x, w)[graph.rows, 0]))
    out = jax.vmap(lambda x: jax.vmap(lambda w: grad(w, x))(ws))(xs)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(out[i, j], grad(ws[j], xs[i]), rtol=1e-4, atol=1e-5)


def test_double_precision_agrees_with_scipy_to_machine_precision():
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(50, 40, 0.2, "csr", rng=rng)
    matrix.sort_indices()
    rows = np.repeat(np.arange(50), np.diff(matrix.indptr))
    with jax.enable_x64(True):
        graph = Graph.from_edges(rows, matrix.indices, matrix.shape)
        x = jnp.asarray(rng.normal(size=(40, 37)))
        y = spmm(graph, x, jnp.asarray(matrix.data))
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, matrix @ np.asarray(x), rtol=1e-13, atol=1e-14)


def test_half_precision_takes_the_general_path(problem):
    graph, w, x, _ = problem
    y = spmm(graph, x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), spmm(graph, x, w), rtol=0.05, atol=0.1)


def test_many_threads_share_rows_of_very_unequal_length():
    rng = np.random.default_rng(1)
    counts = np.concatenate([[0, 4000, 0, 0, 1], rng.integers(0, 30, 3000), [3000]])
    rows = np.repeat(np.arange(len(counts)), counts)
    cols = np.concatenate([rng.choice(5000, c, replace=False) for c in counts])
    graph = Graph.from_edges(rows, cols, (len(counts), 5000))
    w, x = rng.normal(size=len(rows)).astype(np.float32), rng.normal(size=(5000, 40)).astype(np.float32)
    order = np.lexsort((cols, rows))
    matrix = scipy.sparse.csr_matrix((w, cols[order], np.asarray(graph.indptr)), shape=graph.shape)
    np.testing.assert_allclose(spmm(graph, jnp.asarray(x), jnp.asarray(w)), matrix @ x, rtol=1e-3, atol=1e-3)


def test_products_run_under_scan_and_pmap_and_on_a_mesh(problem):
    graph, w, x, _ = problem
    square = Graph.from_edges([0, 1, 2, 2], [1, 0, 2, 0], (3, 3))
    scanned = jax.lax.scan(lambda y, _: (spmm(square, y), None), jnp.eye(3), length=3)[0]
    np.testing.assert_allclose(scanned, jnp.linalg.matrix_power(dense(square, jnp.ones(4)), 3), atol=1e-6)
    xs = jnp.stack([x, 2 * x, 3 * x, 4 * x])
    many = jax.pmap(lambda x: spmm(graph, x, w))(xs)
    np.testing.assert_allclose(many[2], 3 * spmm(graph, x, w), rtol=1e-5)
    everywhere = jax.sharding.NamedSharding(data_mesh(), jax.sharding.PartitionSpec())
    on_mesh = jax.jit(lambda x: spmm(graph, x, w), out_shardings=everywhere)(jax.device_put(x, everywhere))
    np.testing.assert_allclose(on_mesh, spmm(graph, x, w), rtol=1e-6)


def test_accelerators_get_no_call_of_the_cpu_kernel(problem):
    graph, w, x, _ = problem
    grad = jax.jit(jax.grad(lambda x, w: jnp.sum(spmm(graph, x, w) ** 2), (0, 1))).trace(x, w)
    assert "relic_" in grad.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("tpu", "cuda"):
        assert "relic_" not in grad.lower(lowering_platforms=(platform,)).as_text()


def test_no_buffer_of_edges_by_width_is_made_on_the_cpu():
    rng = np.random.default_rng(2)
    graph = random_graph(rng, 200, 200, 0.5)
    x, w = jnp.ones((200, 64)), jnp.ones(graph.num_edges)
    grad = jax.jit(jax.grad(lambda x, w: jnp.sum(spmm(graph, x, w) ** 2), (0, 1)))
    temporary = grad.lower(x, w).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * 200 * 64 * 8
    assert temporary < 4 * graph.num_edges * 64 / 10


def test_normalised_weights_of_isolated_nodes_do_no_harm():
    graph = Graph.from_edges([0, 0, 2], [0, 1, 1], (4, 3))
    np.testing.assert_allclose(symmetric_normalised(graph), [1 / np.sqrt(2), 0.5, 1 / np.sqrt(2)], rtol=1e-6)
    y = spmm(graph, jnp.ones((3, 2)), symmetric_normalised(graph))
    assert jnp.all(y[1] == 0)
    assert jnp.all(y[3] == 0)


def test_the_bipartite_graph_is_symmetric(problem):
    graph = problem[0]
    whole = bipartite(graph)
    matrix = np.asarray(dense(whole, jnp.ones(whole.num_edges)))
    assert whole.shape == (12, 12)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix[:7, 7:], dense(graph, jnp.ones(graph.num_edges)))


@pytest.mark.parametrize(
    ("rows", "cols", "message"),
    [
        ([0, 3], [0, 0], "row 3"),
        ([0, 0], [0, -1], "column -1"),
        ([1, 1], [2, 2], r"edge \(1, 2\) occurs more than once"),
    ],
)
def test_a_bad_edge_is_named(rows, cols, message):
    with pytest.raises(DataError, match=message):
        Graph.from_edges(rows, cols, (3, 3))


def test_two_processes_may_build_the_kernel_at_once(tmp_path):
    code = "from core.sparse import native; import pathlib, sys; print(native.build(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert [str(path) for path in tmp_path.iterdir()] == sorted(paths)


def test_without_a_compiler_the_result_is_the_same_and_one_warning_tells(tmp_path):
    code = """
import json, logging, jax.numpy as jnp
from core.sparse import Graph, spmm
graph = Graph.from_edges([0, 1], [1, 1], (2, 2))
print(json.dumps([spmm(graph, jnp.arange(4.0).reshape(2, 2)).tolist(), spmm(graph, jnp.ones((2, 1))).tolist()]))
"""
    env = {**os.environ, "CC": "/nonexistent/cc", "RELIC_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [[[2.0, 3.0], [2.0, 3.0]], [[1.0], [1.0]]]
    assert result.stderr.count("C kernel could not be built") == 1
