import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.learner import DATA_AXIS, local_share
from core.loop import scan_steps
from core.sparse import Graph, native
from rec.dccf import DCCF, VARIANTS, XAVIER_NORMAL, adaptive, alphas, contrast, dccf_learner, dccf_loss, views_of
from rec.graph import RecData, RecGraph, normalised
from rec.lightgcn import LightGCN
from rec.sampling import Batch, Triples
from tests.rec import dccf_reference as reference

USERS, ITEMS, EDGES = 7, 9, 30
D, K, LAYERS = 4, 3, 2
WEIGHTS = {"tau": 0.7, "ssl": 0.1, "embedding_reg": 0.01, "prototype_reg": 0.02}
few = settings(deadline=None, max_examples=10)
seeds = st.integers(0, 1000)


def interactions(seed=0, isolated=False):
    """A random R with ``EDGES`` ones; every node has a neighbour, or the last user and the last item have none."""
    rng = np.random.default_rng(seed)
    R = np.zeros((USERS, ITEMS))
    inner = R[:-1, :-1] if isolated else R
    users, items = inner.shape
    inner[np.arange(items) % users, rng.permutation(items)] = 1
    free = np.argwhere(inner == 0)
    inner[tuple(rng.permutation(free)[: EDGES - items].T)] = 1
    return R


def graph_of(R) -> RecGraph:
    pattern = Graph.from_edges(*np.nonzero(R), R.shape)
    return normalised(pattern, jnp.ones(pattern.num_edges))


def tables(seed=0):
    """E, C_u, C_i."""
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=0.5, size=shape) for shape in ((USERS + ITEMS, D), (D, K), (D, K))]


def nodes_of(E):
    return jnp.asarray(E[:USERS]), jnp.asarray(E[USERS:])


def params_of(E, Cu, Ci):
    return {"params": {"users": E[:USERS], "items": E[USERS:], "user_prototypes": Cu, "item_prototypes": Ci}}


def triples_of(seed=0, size=12):
    """Examples without the last user and item, which may be isolated."""
    rng = np.random.default_rng(seed)
    return [rng.integers(high, size=size).astype(np.int32) for high in (USERS - 1, ITEMS - 1, ITEMS - 1)]


def batch_of(R, triples) -> Batch:
    return Batch(graph_of(R), Triples(*map(jnp.asarray, triples)))


@jax.jit
def evaluate(params, batch):
    """Loss terms, gradients, readout and views of the layers: compiled once for all tests of a precision."""
    model = DCCF(D, LAYERS, K)
    (_, terms), grads = jax.value_and_grad(dccf_loss(model, block=5, **WEIGHTS), has_aux=True)(params, None, batch)
    return terms, grads["params"], *model.apply(params, batch.graph, method="encode")


def deviation(ours, expected):
    """The largest difference, relative to the largest entry."""
    return float(np.abs(np.asarray(ours) - np.asarray(expected)).max() / np.abs(expected).max())


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-10)], ids=["float32", "float64"])
def test_forward_losses_and_gradients_match_a_dense_numpy_reference(x64, tolerance, record_property):
    R, triples, arrays = interactions(), triples_of(), tables()
    with jax.enable_x64(x64):
        terms, grads, readout, layers = evaluate(params_of(*arrays), batch_of(R, triples))
    expected_readout, expected_layers = reference.encode(R, *arrays, LAYERS)
    expected_terms = reference.losses(R, *arrays, triples, LAYERS, **WEIGHTS)
    expected_grads = reference.gradients(
        lambda *arrays: sum(reference.losses(R, *arrays, triples, LAYERS, **WEIGHTS).values()), *arrays
    )
    deviations = {
        "views": max(
            deviation(np.concatenate(ours), expected)
            for layer, views in zip(layers, expected_layers, strict=True)
            for ours, expected in zip((layer.z, layer.r, layer.h_beta, layer.h_gamma), views, strict=True)
        ),
        "readout": deviation(np.concatenate(readout), expected_readout),
        "losses": max(deviation(terms[name], value) for name, value in expected_terms.items()),
        "gradients": max(deviation(grads[name], part) for name, part in params_of(*expected_grads)["params"].items()),
    }
    record_property("value", ", ".join(f"{name} {value:.1e}" for name, value in deviations.items()))
    assert max(deviations.values()) < tolerance


def mean_of_neighbours(R, x):
    """D^-1 A X."""
    return R @ x[1] / R.sum(1, keepdims=True), R.T @ x[0] / R.T.sum(1, keepdims=True)


def assert_nodes_close(ours, expected, atol=1e-6):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_limits_of_equal_embeddings_zero_prototypes_no_layers_and_one_intent(record_property):
    R, (E, Cu, Ci) = interactions(), tables()
    batch, x = batch_of(R, triples_of()), nodes_of(E)
    pattern = batch.graph.user_item

    equal = np.tile(E[0], (len(E), 1))
    _, _, _, (layer, _) = evaluate(params_of(equal, Cu, Cu), batch)
    for view, mixed in ((layer.z, layer.h_beta), (layer.r, layer.h_gamma)):
        np.testing.assert_allclose(alphas(pattern, view), 1.0, atol=1e-6)
        assert_nodes_close(mixed, mean_of_neighbours(R, nodes_of(equal)))

    _, _, _, (layer, _) = evaluate(params_of(E, 0 * Cu, 0 * Ci), batch)
    assert not any(part.any() for part in layer.r)
    np.testing.assert_array_equal(alphas(pattern, layer.r), 0.5)
    assert_nodes_close(layer.h_gamma, mean_of_neighbours(R, x))

    factors = {"params": dict(zip(("users", "items"), x, strict=True))}
    no_layers = DCCF(D, 0, K).apply(params_of(E, Cu, Ci), batch.graph)
    assert_nodes_close(no_layers, LightGCN(D, 0).apply(factors, batch.graph))

    one = jnp.asarray(Cu[:, :1]), jnp.asarray(Ci[:, :1])
    users, items = views_of(batch.graph, x, one, ("r",)).r
    assert_nodes_close((users, items), (jnp.tile(one[0].T, (USERS, 1)), jnp.tile(one[1].T, (ITEMS, 1))))
    record_property("value", "equal embeddings, zero prototypes, no layers and one intent: limits met to 1e-6")


def test_invariances_to_relabelling_scaling_and_rotation(record_property):
    R, triples = interactions(), triples_of()
    batch, largest = batch_of(R, triples), dict.fromkeys(("relabelling", "scaling", "rotation"), 0.0)

    def note(name, ours, expected):
        largest[name] = max(largest[name], deviation(ours, expected))

    @few
    @given(seeds, st.floats(0.1, 10.0))
    def measure(seed, s):
        rng = np.random.default_rng(seed)
        E, Cu, Ci = tables(seed)
        terms, _, readout, (layer, _) = evaluate(params_of(E, Cu, Ci), batch)

        u, i = rng.permutation(USERS), rng.permutation(ITEMS)
        relabelled = params_of(np.concatenate([E[:USERS][u], E[USERS:][i]]), Cu, Ci)
        _, _, permuted, _ = evaluate(relabelled, batch_of(R[u][:, i], triples))
        note("relabelling", permuted[0], readout[0][u])
        note("relabelling", permuted[1], readout[1][i])

        _, _, _, (scaled, _) = evaluate(params_of(s * E, Cu, Ci), batch)
        note("scaling", alphas(batch.graph.user_item, scaled.z), alphas(batch.graph.user_item, layer.z))
        for side in range(2):
            note("scaling", scaled.z[side], s * layer.z[side])
            note("scaling", scaled.h_beta[side], s * layer.h_beta[side])

        Q = np.linalg.qr(rng.normal(size=(D, D)))[0]
        rotated, *_ = evaluate(params_of(E @ Q, Q.T @ Cu, Q.T @ Ci), batch)
        for name, value in terms.items():
            note("rotation", rotated[name], value)

    measure()
    record_property("value", ", ".join(f"{name} {value:.1e}" for name, value in largest.items()))
    assert max(largest.values()) < 1e-5


def test_adaptive_rows_sum_to_one_and_isolated_nodes_give_zero(record_property):
    R = interactions(isolated=True)
    A = np.block([[np.zeros((USERS, USERS)), R], [R.T, np.zeros((ITEMS, ITEMS))]])
    batch = batch_of(R, triples_of())
    matrices = jax.jit(lambda q: adaptive(batch.graph.user_item, q, nodes_of(np.eye(USERS + ITEMS))))
    deviations = []

    @few
    @given(seeds)
    def measure(seed):
        W = np.concatenate(matrices(nodes_of(tables(seed)[0])))
        assert ((W > 0) <= (A > 0)).all()
        assert not W[A.sum(1) == 0].any()
        deviations.append(np.abs(W.sum(1) - (A.sum(1) > 0)).max())

    measure()
    E, Cu, Ci = tables()
    for arrays in ((E, Cu, Ci), (0 * E, Cu, Ci), (E, 0 * Cu, 0 * Ci)):
        terms, grads, readout, layers = evaluate(params_of(*arrays), batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((terms, grads, readout)))
        for layer in layers:
            assert not any(part[-1].any() for view in (layer.z, layer.h_beta, layer.h_gamma) for part in view)
    worst = max(deviations)
    record_property("value", f"row sums are 1 to {worst:.1e}; isolated nodes exactly 0, values and gradients finite")
    assert worst < 1e-6


def test_edges_between_opposite_nodes_only_give_zero():
    """Where all of a node's alphas are 0 so is its row, without NaN in value or gradient."""
    graph = graph_of(np.ones((1, 1)))

    def total(q):
        return sum(jnp.sum(part) for part in adaptive(graph.user_item, q, (jnp.ones((1, 2)), jnp.ones((1, 2)))))

    value, grads = jax.value_and_grad(total)((jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])))
    assert value == 0
    assert all(np.isfinite(grad).all() for grad in grads)


def test_parameters_start_xavier_normal():
    """Standard deviation sqrt(2 / (rows + columns)), not truncated."""
    standard = np.asarray(XAVIER_NORMAL(jax.random.key(0), (1500, 100))) / np.sqrt(2 / 1600)
    assert standard.std() == pytest.approx(1, abs=0.01)
    assert np.abs(standard).max() > 3


@pytest.mark.parametrize("name", VARIANTS)
def test_ablations_add_up_and_contrast_the_views_they_name(name):
    variant, R, (E, Cu, Ci) = VARIANTS[name], interactions(), tables()
    batch, model = batch_of(R, triples_of()), DCCF(D, 1, K, variant.views)

    @jax.jit
    def run(params):
        readout, layers = model.apply(params, batch.graph, method="encode")
        return readout, contrast(layers, variant.contrasted, batch.triples, 0.7)

    params = jax.eval_shape(model.init, jax.random.key(0), batch.graph)["params"]
    readout, ssl = run({"params": {name: params_of(E, Cu, Ci)["params"][name] for name in params}})

    _, [(Z, *views)] = reference.encode(R, E, Cu, Ci, 1)
    views = dict(zip(("r", "h_beta", "h_gamma"), views, strict=True))
    nodes = np.unique(batch.triples.users), np.unique(batch.triples.positives) + USERS
    pairs = [(Z[ids], views[view][ids]) for view in variant.contrasted for ids in nodes]
    np.testing.assert_allclose(np.concatenate(readout), 2 * E + Z + sum(views[v] for v in variant.views), atol=1e-5)
    assert float(ssl) == pytest.approx(sum(reference.nce(a, b, 0.7) for a, b in pairs), rel=1e-5)


def test_replicas_average_to_the_loss_and_gradients_of_the_whole_batch():
    batch, params = batch_of(interactions(), triples_of()), params_of(*tables())

    def share(_, params, batch):
        terms, grads, *_ = evaluate(params, batch._replace(triples=local_share(batch.triples)))
        return jax.lax.pmean((terms, grads), DATA_AXIS)

    replicated = jax.pmap(share, axis_name=DATA_AXIS, in_axes=(0, None, None))(jnp.arange(4), params, batch)
    expected = evaluate(params, batch)[:2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[2], b, rtol=2e-5, atol=2e-5), replicated, expected)


def test_seeds_by_vmap_equal_a_loop():
    batch, params = batch_of(interactions(), triples_of()), [params_of(*tables(seed)) for seed in range(3)]
    together = jax.jit(jax.vmap(evaluate, in_axes=(0, None)))(
        jax.tree.map(lambda *rows: np.stack(rows), *params), batch
    )
    for i, alone in enumerate(params):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=2e-5), together, evaluate(alone, batch))


@pytest.fixture(scope="module")
def data() -> RecData:
    return RecData(graph_of(interactions()), jnp.arange(USERS))


@pytest.fixture(scope="module")
def learner():
    return dccf_learner(dim=D, layers=1, intents=K, batch_size=16, learning_rate=0.05, embedding_reg=1e-4)


def test_training_lowers_ranking_loss_and_contrast(learner, data):
    run = scan_steps(learner, 80)
    _, metrics = jax.jit(run.update)(jax.jit(run.init)(jax.random.key(5), data), data)
    assert np.isfinite(metrics["loss"]).all()
    for term in ("loss", "bpr", "ssl"):
        assert metrics[term][-10:].mean() < metrics[term][:10].mean()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_accelerators(learner, data, platform):
    state = jax.eval_shape(learner.init, jax.random.key(0), data)
    lowered = jax.jit(learner.update).trace(state, data).lower(lowering_platforms=(platform,))
    assert "func.func public @main" in lowered.as_text()


def random_data(edges, nodes=400) -> RecData:
    """Uniformly drawn edges between ``nodes`` users and ``nodes`` items."""
    codes = np.random.default_rng(0).choice(nodes * nodes, edges, replace=False)
    pattern = Graph.from_edges(codes // nodes, codes % nodes, (nodes, nodes))
    return RecData(normalised(pattern, jnp.ones(edges)), jnp.arange(nodes))


def lowered_step(data: RecData):
    learner = dccf_learner(intents=16, batch_size=64)
    state = jax.eval_shape(learner.init, jax.random.key(0), data)
    return jax.jit(learner.update, donate_argnums=0).lower(state, data)


def test_step_time_grows_linearly_in_edges_and_memory_has_no_edge_by_width_buffers(monkeypatch, record_property):
    """Operations as XLA counts them where it sees all of them; memory with the kernels that are used."""
    E = 20_000
    graphs = {k: random_data(k * E) for k in (1, 2, 4)}
    with monkeypatch.context() as patch:
        patch.setenv("RELIC_SPARSE", "xla")
        operations = {k: lowered_step(data).cost_analysis()["flops"] for k, data in graphs.items()}
    slope = (operations[4] - operations[2]) / (2 * (operations[2] - operations[1]))
    if not native.register():
        pytest.skip("without a C compiler sparse products gather [edges, width] buffers")
    programs = {k: lowered_step(graphs[k]).compile() for k in (1, 2)}
    held = {k: program.memory_analysis().temp_size_in_bytes for k, program in programs.items()}
    growth = (held[2] - held[1]) / 4 / E
    record_property(
        "value",
        f"operations per edge, from 2E to 4E over from E to 2E: {slope:.3f}; "
        f"memory beside the graph grows by {growth:.1f} E floats from E to 2E",
    )
    assert slope == pytest.approx(1, abs=0.2)
    assert growth <= 8
    assert f"[{2 * E},32]" not in programs[2].as_text()


@pytest.mark.slow
def test_measured_step_time_grows_linearly_in_edges(record_property):
    """Best of many, alternating between sizes so that other load on the machine falls on all alike."""
    E, learner = 200_000, dccf_learner(intents=16, batch_size=64)
    runs = {}
    for k in (1, 2, 4):
        data = random_data(k * E, nodes=2000)
        step, state = jax.jit(learner.update), jax.jit(learner.init)(jax.random.key(0), data)
        runs[k] = lambda step=step, state=state, data=data: jax.block_until_ready(step(state, data))
        runs[k]()
    best = dict.fromkeys(runs, np.inf)
    for _ in range(30):
        for k, run in runs.items():
            start = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - start)
    slope = (best[4] - best[2]) / (2 * (best[2] - best[1]))
    record_property("value", f"seconds per step {best}; slope from 2E to 4E over that from E to 2E: {slope:.2f}")
    assert slope == pytest.approx(1, abs=0.2)
