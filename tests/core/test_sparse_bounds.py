"""Shapes and indices that do not fit: sparse products refuse them, or give NaN, and never leave an array."""

import functools
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, DataError
from core.sparse import Graph, combine, native, pick, row_sums, scatter, sddmm, spmm, top_k, transpose_weights

DRIVER = native.HEADER.parents[2] / "tests" / "core" / "kernel_driver.c"


def test_the_kernels_never_leave_their_buffers(tmp_path):
    """Random and damaged problems, every buffer of exactly its size, under AddressSanitizer and UBSan."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-pthread", "-Wall", "-Werror", "-Wno-unused-function"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(DRIVER), *map(str, native.SOURCES)]
    folders = [f"-I{native.HEADER.parent}", f"-I{jax.ffi.include_dir()}"]
    program = str(tmp_path / "driver")
    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }")
    probe = subprocess.run([compiler, *sanitizers, str(empty), "-o", program], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"{compiler} has no sanitizers: {probe.stderr.strip()[:200]}")
    subprocess.run([compiler, *flags, *sanitizers, *folders, *sources, "-o", program, "-lm"], check=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    run = subprocess.run([program, "4000"], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[:3000]
    problems, refused = (int(run.stdout.split()[i]) for i in (0, 2))
    assert problems == 4000
    assert 400 < refused < 2000  # damaged ones, about a third


# Three rows, four columns, five edges; the contents of the pattern are operands, and so may be anything.
M, N, D, EDGES = 3, 4, 33, 5


def graph_of(cols, slots):
    good = Graph.from_edges([0, 0, 1, 2, 2], [0, 3, 1, 0, 2], (M, N))
    return good.replace(by_row=good.by_row._replace(cols=cols), by_col=good.by_col._replace(slot=slots))


def products(cols, slots, w, x, a):
    graph = graph_of(cols, slots)
    transposed = jax.vjp(lambda x: spmm(graph, x, w), x)[1](a)[0]  # by columns, with the weights in the other order
    codes = cols[None, :].repeat(2, 0)
    values = jnp.stack([w, 2 * w])
    return (
        spmm(graph, x, w), sddmm(graph, a, x), transposed, row_sums(graph, w), combine(values, codes, x),
        pick(a[:2], codes, x), scatter(values, codes, a[:2], N), jax.vmap(lambda w: spmm(graph, x, w))(values),
    )  # fmt: skip


@functools.cache
def compiled(way):
    before = os.environ.get("RELIC_SPARSE")
    os.environ["RELIC_SPARSE"] = way
    try:
        arrays = (EDGES,), (EDGES,), (EDGES,), (N, D), (M, D)
        shapes = [jax.ShapeDtypeStruct(s, jnp.int32 if i < 2 else jnp.float32) for i, s in enumerate(arrays)]
        return jax.jit(lambda *args: products(*args)).lower(*shapes).compile()
    finally:
        os.environ.pop("RELIC_SPARSE")
        if before is not None:
            os.environ["RELIC_SPARSE"] = before


numbers = st.one_of(st.integers(0, 3), st.integers(-2, 6), st.sampled_from([-(2**31), 2**31 - 1]))


@settings(deadline=None, max_examples=150)
@given(st.lists(numbers, min_size=2 * EDGES, max_size=2 * EDGES), st.integers(0, 99))
def test_the_kernels_equal_xla_whatever_the_indices(indices, seed):
    assert native.register(), "the C kernel must build where the tests run"
    cols, slots = np.asarray(indices, np.int32).reshape(2, EDGES)
    rng = np.random.default_rng(seed)
    w, x, a = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((EDGES,), (N, D), (M, D)))
    ours, theirs = (compiled(way)(cols, slots, w, x, a) for way in ("", "xla"))
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(left, right)
    y, s = np.asarray(ours[0]), np.asarray(ours[1])
    wrong = (cols < 0) | (cols >= N)
    np.testing.assert_array_equal(np.isnan(s), wrong)
    np.testing.assert_array_equal(np.isnan(y).all(1), [wrong[:2].any(), wrong[2], wrong[3:].any()])
    kept = np.where(wrong, 0, w)
    expected = np.zeros((N, D), np.float32)
    np.add.at(expected, np.where(wrong, 0, cols), kept[:, None] * (a[0] + 2 * a[1]))
    np.testing.assert_array_equal(ours[6], expected)  # scatter leaves out what names no row


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint32, np.uint64])
def test_indices_of_any_integer_type_name_the_same_rows(dtype):
    with jax.enable_x64(True):
        values, table = jnp.ones((1, 3)), jnp.arange(5.0)[:, None]
        np.testing.assert_array_equal(combine(values, np.array([[0, 2, 4]], dtype), table), [[6.0]])
        largest = np.iinfo(dtype).max  # beyond 32 bits it must not become 0
        assert np.isnan(combine(values, np.array([[0, 1, largest]], dtype), table))
        np.testing.assert_array_equal(
            scatter(values, np.array([[1, 1, largest]], dtype), jnp.ones((1, 1)), 2)[:, 0], [0, 2]
        )


GRAPH = Graph.from_edges([0, 1, 1], [0, 1, 2], (2, 3))
CODE = jnp.ones((2, 4)), jnp.zeros((2, 4), jnp.int32), jnp.ones((5, 6))
MISFITS = {
    "spmm: x has 2 entries along its first axis; the pattern has 3 columns": lambda: spmm(GRAPH, jnp.ones((2, 3))),
    "spmm: weights has 2 entries along its first axis; the pattern has 3 edges": lambda: spmm(
        GRAPH, jnp.ones((3, 3)), jnp.ones(2)
    ),
    "sddmm: a has 1 entries along its first axis; the pattern has 2 rows": lambda: sddmm(
        GRAPH, jnp.ones((1, 3)), jnp.ones((3, 3))
    ),
    "sddmm: b must have shape": lambda: sddmm(GRAPH, jnp.ones((2, 3)), jnp.ones((3, 4))),
    "spmm: weights has 4": lambda: row_sums(GRAPH, jnp.ones(4)),
    "transpose_weights: 2 weights for the 3 edges": lambda: transpose_weights(GRAPH, jnp.ones(2)),
    "combine: indices must have shape": lambda: combine(CODE[0], CODE[1][:, :3], CODE[2]),
    "combine: indices must hold integers": lambda: combine(CODE[0], CODE[0], CODE[2]),
    "pick: table must have shape": lambda: pick(jnp.ones((2, 7)), CODE[1], CODE[2]),
    "scatter: x must have shape": lambda: scatter(*CODE[:2], jnp.ones((3, 6)), 5),
    "scatter: rows must be a number of at least 0, not -1": lambda: scatter(*CODE[:2], jnp.ones((2, 6)), -1),
    "top_k: k is 5, more than": lambda: top_k(jnp.ones((2, 4)), 5),
    "top_k: k must be a number of at least 0": lambda: top_k(jnp.ones((2, 4)), -1),
    "from_edges: cols must have shape": lambda: Graph.from_edges([0, 1], [0, 1, 2], (3, 3)),
    "from_edges: rows must hold integers": lambda: Graph.from_edges([0.5, 1.0], [0, 1], (3, 3)),
    "from_edges: shape at place 0 must be a number of at least 0": lambda: Graph.from_edges([], [], (-1, 3)),
}


@pytest.mark.parametrize("message", MISFITS)
def test_shapes_that_do_not_fit_are_named_also_while_tracing(message):
    with pytest.raises(ConfigError) as plain:
        MISFITS[message]()
    with pytest.raises(ConfigError) as traced:
        jax.jit(MISFITS[message])()
    assert message in str(plain.value)
    assert message in str(traced.value)


def test_an_empty_pattern_gives_zeros():
    empty = Graph.from_edges([], [], (2, 0))
    np.testing.assert_array_equal(spmm(empty, jnp.ones((0, 3))), jnp.zeros((2, 3)))
    with pytest.raises(DataError, match="row 0"):
        Graph.from_edges([0], [0], (0, 1))
