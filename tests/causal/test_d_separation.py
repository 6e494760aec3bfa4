import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from causal.d_separation import closure, d_separated


def test_d_separation_equals_networkx_on_random_graphs():
    rng, cases, answers = np.random.default_rng(0), [], []
    for _ in range(300):
        order = rng.permutation(7)
        parents = (np.tril(rng.random((7, 7)) < 0.35, -1))[order][:, order]
        x, y, *rest = rng.permutation(7)
        given = set(rest[: rng.integers(0, 5)])
        graph = nx.DiGraph([(j, i) for i, j in np.argwhere(parents)])
        graph.add_nodes_from(range(7))
        answers.append(nx.is_d_separator(graph, {x}, {y}, given))
        cases.append((parents, *(np.isin(np.arange(7), list(s)) for s in ({x}, {y}, given))))
    found = jax.jit(jax.vmap(d_separated))(*(jnp.asarray(column) for column in zip(*cases, strict=True)))
    np.testing.assert_array_equal(found, answers)
    assert 0.2 < np.mean(answers) < 0.8


def test_closure_reaches_along_a_path_of_any_length():
    path = jnp.eye(9, k=-1, dtype=bool)
    np.testing.assert_array_equal(closure(path), np.tril(np.ones((9, 9), bool)))
