"""The methods that EK-FAC is compared with, each against a closed form or a limit."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.stats import critical_value
from interp import attribution
from interp.attribution.gauss_newton import matrix, product
from interp.likelihoods import Task, categorical, gaussian

DAMPING = 0.1


def tanh_task():
    def net(params, example):
        return jnp.tanh(example["x"] @ params["a"]) @ params["b"]

    return Task(net, gaussian(lambda example: example["y"]))


def rows(n, key, inputs=3, outputs=2):
    one, two = jax.random.split(jax.random.key(key))
    return {"x": jax.random.normal(one, (n, inputs)), "y": jax.random.normal(two, (n, outputs))}


TRAIN, QUERIES = rows(24, 0), rows(5, 1)
PARAMS = {"a": jax.random.normal(jax.random.key(2), (3, 4)), "b": jax.random.normal(jax.random.key(3), (4, 2))}
LINEAR = Task(lambda p, e: e["x"] @ p["w"], gaussian(lambda e: e["y"]))
WEIGHTS = {"w": jax.random.normal(jax.random.key(4), (3, 2))}


@pytest.fixture(scope="module")
def direct():
    return jax.jit(attribution.exact_influence, static_argnums=(0,))(tanh_task(), PARAMS, TRAIN, QUERIES, DAMPING)


def gradients(task, params, examples):
    return attribution.per_example_gradients(task.loss, params, examples)


def test_gauss_newton_of_a_linear_model_is_the_hessian_of_its_loss():
    for task in (LINEAR, Task(LINEAR.outputs, categorical(lambda e: jnp.argmax(e["y"])))):
        flat, unflatten = jax.flatten_util.ravel_pytree(WEIGHTS)
        mean_loss = lambda p: jnp.mean(jax.vmap(lambda e: task.loss(unflatten(p), e))(TRAIN))  # noqa: B023, E731
        np.testing.assert_allclose(matrix(task, WEIGHTS, TRAIN), jax.hessian(mean_loss)(flat), rtol=1e-4, atol=1e-5)


def test_products_are_those_of_the_matrix():
    flat, unflatten = jax.flatten_util.ravel_pytree(PARAMS)
    v = jax.random.normal(jax.random.key(5), flat.shape)
    found = jax.flatten_util.ravel_pytree(product(tanh_task(), PARAMS, TRAIN)(unflatten(v)))[0]
    np.testing.assert_allclose(found, matrix(tanh_task(), PARAMS, TRAIN) @ v, rtol=1e-4, atol=1e-5)


def solved(vectors):
    return jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(vectors) @ gradients(tanh_task(), PARAMS, TRAIN).T


def query_gradients():
    unflatten = jax.flatten_util.ravel_pytree(PARAMS)[1]
    return jax.vmap(unflatten)(gradients(tanh_task(), PARAMS, QUERIES))


def test_conjugate_gradient_equals_the_direct_solve(direct, record_property):
    found = attribution.conjugate_gradient(tanh_task(), PARAMS, TRAIN, query_gradients(), DAMPING, 40)
    worst = float(jnp.max(jnp.abs(solved(found.vectors) - direct)) / jnp.max(jnp.abs(direct)))
    record_property("value", f"relative difference {worst:.1e} after 40 iterations")
    assert worst < 1e-4


def test_lissa_converges_to_the_direct_solve_within_its_error(direct, record_property):
    """Repeats share no batch: their mean lies within Student's limits of its standard error, once the steps suffice."""
    task = tanh_task()
    sigma = 4 * float(attribution.largest_eigenvalue(product(task, PARAMS, TRAIN), PARAMS))
    flat = (jnp.linalg.inv(matrix(task, PARAMS, TRAIN) + DAMPING * jnp.eye(20)) @ gradients(task, PARAMS, QUERIES).T).T
    ravelled = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])

    def solve(iterations):
        found = jax.jit(
            lambda key: attribution.lissa(
                task, PARAMS, TRAIN, query_gradients(), DAMPING,
                key=key, sigma=sigma, batch_size=8, iterations=iterations, repeats=8,
            )
        )(jax.random.key(6))  # fmt: skip
        missed = jnp.abs(ravelled(found.vectors) - flat)
        within = jnp.mean(missed < critical_value(degrees=7) * ravelled(found.spread))
        r = jnp.mean(attribution.correlation(solved(found.vectors), direct))
        return float(jnp.linalg.norm(missed) / jnp.linalg.norm(flat)), float(within), float(r)

    (early, few, _), (late, most, r) = solve(150), solve(1500)
    told = f"after 1,500 steps {most:.0%} of entries within their 95 % limits, after 150 {few:.0%}; relative error"
    record_property("value", f"{told} {late:.3f}, before {early:.3f}; correlation with the direct solve {r:.4f}")
    assert most > 0.85
    assert few < 0.5
    assert late < 0.03 < early / 5
    assert r > 0.99


def test_the_matrix_does_not_depend_on_the_batches_over_which_it_is_summed():
    found = [matrix(tanh_task(), PARAMS, TRAIN, size) for size in (5, 8, 24, 64)]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-5, atol=1e-6)


def test_methods_by_name_are_those_that_the_names_say(direct):
    """What differs between them is which solver, or none, and which network's gradients."""
    task, key = tanh_task(), jax.random.key(7)
    exact = attribution.by_exact_curvature(task, PARAMS, TRAIN, QUERIES, DAMPING)
    np.testing.assert_allclose(exact["exact"], direct, rtol=1e-4, atol=1e-5)
    solved = attribution.by_iteration(task, DAMPING, 8, 400, PARAMS, TRAIN, QUERIES, key)
    for name, least in (("CG, 30 iterations", 0.9999), ("LiSSA", 0.98)):
        assert float(jnp.mean(attribution.correlation(solved[name], direct))) > least, name
    labelled = Task(task.outputs, categorical(lambda e: jnp.argmax(e["y"])))
    points = (jax.tree.map(lambda leaf: 0.9 * leaf, PARAMS), PARAMS)
    plain = attribution.by_gradients(labelled, labelled.outputs, False, PARAMS, points, TRAIN, QUERIES, key)
    assert {*plain} == {"dot product", "cosine", "TracIn", "TRAK", "representation"}
    both = [attribution.dot_product(labelled, params, TRAIN, QUERIES) for params in points]
    np.testing.assert_allclose(plain["dot product"], both[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain["TracIn"], both[0] + both[1], rtol=1e-4, atol=1e-5)


def test_a_single_block_is_the_whole_matrix_and_blocks_ignore_each_other(direct):
    task = tanh_task()
    one = attribution.block_influence(task, PARAMS, TRAIN, QUERIES, DAMPING, lambda path: "all")
    np.testing.assert_allclose(one, direct, rtol=1e-3, atol=1e-4)
    alone = [
        attribution.exact_influence(
            Task(lambda p, e: task.outputs({**PARAMS, **p}, e), task.likelihood),
            {leaf: PARAMS[leaf]}, TRAIN, QUERIES, DAMPING,
        )
        for leaf in ("a", "b")
    ]  # fmt: skip
    blocks = attribution.block_influence(task, PARAMS, TRAIN, QUERIES, DAMPING, lambda path: path)
    np.testing.assert_allclose(blocks, sum(alone), rtol=1e-3, atol=1e-4)


def test_the_response_of_a_linear_gaussian_model_is_the_exact_influence_in_the_limit():
    with jax.enable_x64():
        wide = [jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree) for tree in (WEIGHTS, TRAIN, QUERIES)]
        params, train, queries = wide
        found = attribution.response(
            LINEAR, params, train, queries, train, damping=DAMPING, eps=1e-5, steps=1500, learning_rate=1e-6
        )
        exact = attribution.exact_influence(LINEAR, params, train, queries, DAMPING)
    np.testing.assert_allclose(found.scores, exact, rtol=2e-2, atol=2e-2 * np.abs(exact).max())


def test_exact_influence_correlates_with_the_optimised_response_of_a_tanh_network(record_property):
    params, train = trained()
    task, queries = tanh_task(), rows(16, 8)
    found = jax.jit(
        lambda: attribution.response(
            task, params, train, queries, jax.tree.map(lambda a: a[:24], train),
            damping=1e-2, eps=0.5 / 64, steps=1500, learning_rate=3e-3,
        )
    )()  # fmt: skip
    exact = attribution.exact_influence(task, params, train, queries, 1e-2)[:, :24]
    r = float(jnp.mean(attribution.correlation(found.scores, exact)))
    left = float(jnp.max(found.gradient_norms))
    record_property("value", f"mean Pearson correlation {r:.4f}; gradient left {left:.1e}")
    assert left < 1e-2
    assert r >= 0.98


def trained():
    task, train, tx = tanh_task(), rows(64, 7), optax.adam(1e-2)

    def step(carry, _):
        params, state = carry
        g = jax.grad(lambda p: jnp.mean(jax.vmap(lambda e: task.loss(p, e))(train)))(params)
        updates, state = tx.update(g, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), None, length=500)[0][0], train


def test_tracin_of_one_checkpoint_is_the_scaled_dot_product_and_cosine_is_its_normalised_form():
    task = tanh_task()
    dots = attribution.dot_product(task, PARAMS, TRAIN, QUERIES)
    np.testing.assert_allclose(attribution.tracin(task, [PARAMS], [0.3], TRAIN, QUERIES), 0.3 * dots, rtol=1e-5)
    norms = [jnp.linalg.norm(gradients(task, PARAMS, x), axis=1) for x in (QUERIES, TRAIN)]
    cosines = attribution.cosine(task, PARAMS, TRAIN, QUERIES)
    np.testing.assert_allclose(cosines * jnp.outer(*norms), dots, rtol=1e-4, atol=1e-4)


def test_trak_without_projection_is_one_newton_step_of_leaving_out_in_a_linear_model():
    outputs = lambda p, e: jnp.dot(e["x"], p["w"][:, 0])  # noqa: E731
    found = attribution.trak(
        outputs, lambda p, e: e["y"][0] - outputs(p, e), [WEIGHTS], TRAIN, QUERIES, lambda g: g[:, ::2]
    )
    x, y = TRAIN["x"], TRAIN["y"][:, 0]
    hat = QUERIES["x"] @ jnp.linalg.solve(x.T @ x, x.T)
    np.testing.assert_allclose(found, hat * (y - x @ WEIGHTS["w"][:, 0]), rtol=1e-3, atol=1e-4)


def test_the_margin_and_residual_of_trak_are_those_of_the_label():
    task = Task(LINEAR.outputs, categorical(lambda e: jnp.argmax(e["y"])))
    example = jax.tree.map(lambda a: a[0], TRAIN)
    p = jax.nn.softmax(LINEAR.outputs(WEIGHTS, example))[jnp.argmax(example["y"])]
    np.testing.assert_allclose(attribution.label_margin(task)(WEIGHTS, example), jnp.log(p / (1 - p)), rtol=1e-4)
    np.testing.assert_allclose(attribution.label_residual(task)(WEIGHTS, example), 1 - p, rtol=1e-4)


def test_similarity_of_representations_is_one_with_itself():
    found = attribution.representation(lambda p, e: jnp.tanh(e["x"] @ p["a"]), PARAMS, TRAIN, TRAIN)
    np.testing.assert_allclose(jnp.diag(found), 1, rtol=1e-5)


def test_random_projections_keep_inner_products_on_average():
    g = gradients(tanh_task(), PARAMS, TRAIN)
    keys = jax.random.split(jax.random.key(0), 200)
    projected = jax.vmap(lambda key: attribution.gaussian_projection(key, 8)(g))(keys)
    mean = jnp.mean(jnp.einsum("rik,rjk->rij", projected, projected), axis=0)
    assert float(jnp.max(jnp.abs(mean - g @ g.T))) < 0.25 * float(jnp.max(jnp.abs(g @ g.T)))


def test_the_datamodelling_score_of_a_truly_additive_model_is_one():
    scores = jax.random.normal(jax.random.key(0), (3, 20))
    subsets = attribution.random_subsets(jax.random.key(1), 30, 20)
    assert (subsets.sum(axis=1) == 10).all()
    losses = attribution.retrained_losses(
        lambda key, weights: weights, lambda weights: -scores @ weights, jax.random.split(jax.random.key(2), 2),
        subsets.astype(jnp.float32),
    )  # fmt: skip
    np.testing.assert_allclose(attribution.linear_datamodelling_scores(scores, subsets, losses), 1.0)


def test_leaving_out_the_top_takes_the_most_positive_examples():
    weights = attribution.without_top(np.array([[0.1, 3.0, -5.0, 2.0]]), 2)
    np.testing.assert_array_equal(weights, [[1, 0, 1, 0]])


def test_detection_counts_ties_half():
    is_wrong = np.array([True, False, False, True])
    assert attribution.detection_auc(np.array([1.0, 1.0, 0.0, 2.0]), is_wrong) == pytest.approx(0.875)
    assert attribution.detection_auc(np.zeros(4), is_wrong) == 0.5
