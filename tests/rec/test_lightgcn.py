import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from core.datasets.interactions import Interactions
from core.loop import scan_steps
from rec.bpr import bpr
from rec.dgcf import DGCF, dgcf_learner, distance_correlation
from rec.graph import RecData, RecGraph, propagate
from rec.graph_contrast import SimGCL, drop_edges, perturb, sgl_learner, simgcl_learner, two_view_sampler
from rec.intents import add_false_edges, simulate
from rec.lightgcn import LightGCN, lightgcn_learner
from rec.ranking import Ranking
from rec.sampling import Triples


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    """Simulated intents with one more user and one more item, both isolated."""
    drawn, _ = simulate(0, users=60, items=40, base=4, extra=4.0)
    users, items = drawn.shape
    longer = {
        field: np.append(getattr(drawn, field), getattr(drawn, field)[-1]) for field in ("train_indptr", "test_indptr")
    }
    return drawn._replace(**longer, shape=(users + 1, items + 1))


@pytest.fixture(scope="module")
def data(interactions) -> RecData:
    return RecData.build(interactions)


def normalised_adjacency(interactions):
    """Abar of all nodes, users first, as SciPy computes it."""
    values = np.ones(len(interactions.train_items))
    R = scipy.sparse.csr_matrix((values, interactions.train_items, interactions.train_indptr), interactions.shape)
    A = scipy.sparse.bmat([[None, R], [R.T, None]]).tocsr()
    degrees = np.asarray(A.sum(1))[:, 0]
    scale = scipy.sparse.diags(np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0))
    return scale @ A @ scale


def stacked(nodes):
    return np.concatenate([np.asarray(part) for part in nodes])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_readout_equals_scipy_power_sums(interactions, data, layers, record_property):
    model = LightGCN(8, layers)
    params = model.init(jax.random.key(0), data.graph)
    A = normalised_adjacency(interactions)
    power = stacked((params["params"]["users"], params["params"]["items"])).astype(np.float64)
    total = power.copy()
    for _ in range(layers):
        power = A @ power
        total += power
    deviation = np.abs(stacked(model.apply(params, data.graph)) - total / (layers + 1)).max()
    record_property("value", f"largest deviation from SciPy power sums with L = {layers}: {deviation:.1e}")
    assert deviation < 1e-5


def test_propagation_is_its_own_transpose(interactions, data, record_property):
    A = jnp.asarray(normalised_adjacency(interactions).toarray(), jnp.float32)
    users = interactions.shape[0]
    x, g = jax.random.normal(jax.random.key(1), (2, A.shape[0], 5))

    def sparse(x):
        return jnp.concatenate(propagate(data.graph, x[:users], x[users:]))

    ours, dense = (jax.vjp(f, x)[1](g)[0] for f in (sparse, lambda x: A @ x))
    deviation = float(jnp.abs(ours - dense).max())
    record_property("value", f"largest deviation of the VJP from that of the dense product: {deviation:.1e}")
    np.testing.assert_allclose(ours, dense, atol=1e-5)
    np.testing.assert_allclose(ours, sparse(g), atol=1e-5)


def test_no_layers_is_matrix_factorisation(data):
    model = LightGCN(8, 0)
    params = model.init(jax.random.key(2), data.graph)
    users, items = model.apply(params, data.graph)
    np.testing.assert_array_equal(users, params["params"]["users"])
    np.testing.assert_array_equal(items, params["params"]["items"])


def test_bpr_is_the_logistic_loss_of_score_differences():
    users, items = jax.random.normal(jax.random.key(3), (2, 6, 4))
    triples = Triples(jnp.array([0, 1, 1]), jnp.array([2, 3, 3]), jnp.array([4, 5, 0]))
    scores = users @ items.T
    differences = [scores[u, i] - scores[u, j] for u, i, j in zip(*triples, strict=True)]
    expected = -np.mean([np.log(1 / (1 + np.exp(-d))) for d in differences])
    assert float(bpr((users, items), triples)) == pytest.approx(expected, rel=1e-5)


def test_dropped_edges_are_gone_and_the_rest_is_renormalised(interactions, data):
    dropped = drop_edges(data.graph, jax.random.key(4), 0.3)
    kept = np.asarray(dropped.weights) > 0
    assert 0.6 < kept.mean() < 0.8
    pattern = data.graph.user_item
    smaller = scipy.sparse.csr_matrix((kept, (pattern.rows, pattern.cols)), pattern.shape).astype(float)
    smaller.eliminate_zeros()
    alone = RecGraph.build(
        interactions._replace(train_indptr=smaller.indptr.astype(np.int32), train_items=smaller.indices)
    )
    x = jax.random.normal(jax.random.key(5), (sum(pattern.shape), 3))
    parts = x[: pattern.shape[0]], x[pattern.shape[0] :]
    np.testing.assert_allclose(stacked(propagate(dropped, *parts)), stacked(propagate(alone, *parts)), atol=1e-5)


def test_subgraphs_last_an_epoch(data):
    edges = data.graph.user_item.num_edges
    sample = jax.jit(two_view_sampler(-(-edges // 2), 0.2))  # two steps to an epoch
    views = [sample(data, jax.random.key(0), step).views[0].weights for step in range(3)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (np.asarray(views[1]) != np.asarray(views[2])).any()


def test_noise_has_the_given_norm_and_keeps_signs():
    x = jax.random.normal(jax.random.key(6), (50, 8))
    noisy = perturb(x, jax.random.key(7), 0.1)
    np.testing.assert_allclose(np.linalg.norm(noisy - x, axis=1), 0.1, rtol=1e-3)
    assert (np.sign(noisy) == np.sign(x)).all()


def test_simgcl_without_noise_is_the_mean_of_the_powers_from_1(interactions, data):
    model = SimGCL(8, 2)
    params = model.init(jax.random.key(8), data.graph)
    A, x = normalised_adjacency(interactions), stacked((params["params"]["users"], params["params"]["items"]))
    np.testing.assert_allclose(stacked(model.apply(params, data.graph)), (A @ x + A @ A @ x) / 2, atol=1e-5)


def test_dgcf_with_one_factor_propagates_like_lightgcn(data):
    """The softmax over a single factor is 1 on every edge, whatever the routing finds."""
    one, plain = DGCF(8, 2, factors=1, iterations=3), LightGCN(8, 2)
    params = one.init(jax.random.key(9), data.graph)
    np.testing.assert_allclose(
        stacked(one.apply(params, data.graph)), stacked(plain.apply(params, data.graph)), atol=1e-5
    )


def test_dgcf_equals_a_routing_written_edge_by_edge(data):
    model = DGCF(6, 2, factors=3, iterations=2)
    params = model.init(jax.random.key(10), data.graph)
    expected = routed_by_hand(data.graph, stacked((params["params"]["users"], params["params"]["items"])), 2, 3, 2)
    np.testing.assert_allclose(stacked(model.apply(params, data.graph)), expected, atol=1e-5)


def routed_by_hand(graph, x, layers, factors, iterations):
    rows, cols = np.asarray(graph.user_item.rows), np.asarray(graph.user_item.cols) + graph.num_users
    heads, tails = np.concatenate([rows, cols]), np.concatenate([cols, rows])
    scores, outputs = np.ones((factors, len(heads))), [x]

    def unit(v):
        return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)

    for _ in range(layers):
        old = np.split(outputs[-1], factors, axis=1)
        for _ in range(iterations):
            share = np.exp(scores) / np.exp(scores).sum(0)
            new = []
            for f in range(factors):
                degree = np.bincount(heads, share[f], len(x))
                scale = np.where(degree > 0, np.maximum(degree, 1e-12) ** -0.5, 0)
                out = np.zeros_like(old[f])
                np.add.at(out, heads, (share[f] * scale[heads] * scale[tails])[:, None] * old[f][tails])
                new.append(out)
                scores[f] += (unit(out)[heads] * np.tanh(unit(old[f])[tails])).sum(1)
        outputs.append(np.concatenate(new, axis=1))
    return np.mean(outputs, axis=0)


def test_distance_correlation_is_1_for_a_rotation_and_small_for_independent_samples():
    x, y = jax.random.normal(jax.random.key(11), (2, 400, 3))
    rotation, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(12), (3, 3)))
    assert float(distance_correlation(x, 2 * x @ rotation)) == pytest.approx(1.0, abs=1e-3)
    assert float(distance_correlation(x, y)) < 0.2


SMALL = {"dim": 16, "batch_size": 256, "learning_rate": 0.01}
LEARNERS = {
    "lightgcn": (lambda: lightgcn_learner(layers=2, **SMALL), LightGCN(16, 2)),
    "sgl": (lambda: sgl_learner(layers=2, **SMALL), LightGCN(16, 2)),
    "simgcl": (lambda: simgcl_learner(layers=2, ssl=0.01, **SMALL), SimGCL(16, 2)),
    "dgcf": (lambda: dgcf_learner(sample=50, **SMALL), DGCF(16, 1)),
}


@pytest.fixture(scope="module")
def larger():
    drawn, _ = simulate(0, users=300, items=200)
    return drawn, RecData.build(drawn)


@pytest.mark.parametrize("name", LEARNERS)
def test_training_ranks_held_out_items_three_times_better_than_chance(larger, name):
    build, model = LEARNERS[name]
    interactions, data = larger
    learner = scan_steps(build(), 300)
    state, metrics = jax.jit(learner.update)(learner.init(jax.random.key(0), data), data)
    recall = Ranking(interactions, ks=(10,)).means(jax.jit(model.apply)(state.params, data.graph))["recall@10"]
    assert np.isfinite(metrics["loss"]).all()
    assert metrics["bpr"][-1] < metrics["bpr"][0]
    assert recall > 3 * 10 / interactions.shape[1]


def test_false_edges_are_added_to_training_only():
    clean, _ = simulate(1, users=50, items=60)
    noisy, false = add_false_edges(clean, 0.2, seed=3)
    assert false.sum() == round(0.2 * len(clean.train_items))
    np.testing.assert_array_equal(noisy.train_items[~false], clean.train_items)
    np.testing.assert_array_equal(noisy.test_items, clean.test_items)
    for u in range(50):
        row = noisy.train_items[noisy.train_indptr[u] : noisy.train_indptr[u + 1]]
        held = noisy.test_items[noisy.test_indptr[u] : noisy.test_indptr[u + 1]]
        assert (np.diff(row) > 0).all()
        assert not set(row) & set(held)


def test_simulated_intents_shape_the_interactions():
    drawn, truth = simulate(2, users=300, items=200, noise=0.1)
    users = np.repeat(np.arange(300), np.diff(drawn.train_indptr))
    share = truth.user_intents[users, truth.item_intents[drawn.train_items]]
    assert share[~truth.train_noise].mean() > share[truth.train_noise].mean() + 0.2
    assert 0.07 < truth.train_noise.mean() < 0.14
    sizes = np.diff(drawn.train_indptr) + np.diff(drawn.test_indptr)
    assert sizes.min() >= 8
    assert abs(sizes.mean() - 20) < 1
    assert np.corrcoef(np.bincount(drawn.train_items, minlength=200), truth.popularity)[0, 1] > 0.5
