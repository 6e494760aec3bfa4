"""Training for attribution, and what prepared queries tell by depth and by token."""

import jax
import jax.numpy as jnp
import numpy as np

from core.fit import fit
from core.lm import Decoder, DecoderConfig
from interp import attribution, ekfac
from interp.attribution.networks import mlp
from interp.likelihoods import next_token_task

TASK, INIT, FEATURES = mlp(3, 8, 1)
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TRAIN = {"x": jnp.asarray(X), "y": jnp.asarray(np.sin(X[:, :1]))}


def loss(params):
    return float(jnp.mean(jax.vmap(lambda e: TASK.loss(params, e))(TRAIN)))


def test_retraining_on_all_examples_is_the_training_itself():
    key = jax.random.key(0)
    found = attribution.checkpoints(TASK, INIT, 200, TRAIN, key)
    assert len(found) == 4
    assert [loss(p) for p in found] == sorted((loss(p) for p in found), reverse=True)
    again = attribution.retraining(TASK, INIT, 200, TRAIN)(key, jnp.ones(40))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), again, found[-1])


def test_examples_of_weight_zero_are_not_learned_from():
    train = attribution.retraining(TASK, INIT, 50, TRAIN)
    weights = jnp.arange(40) < 20
    other = {"x": TRAIN["x"], "y": jnp.where(weights[:, None], TRAIN["y"], 100.0)}
    ours, theirs = (f(jax.random.key(1), weights.astype(jnp.float32))
                    for f in (train, attribution.retraining(TASK, INIT, 50, other)))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_batches_lower_the_loss():
    learner = attribution.batch_learner(TASK, INIT, 300, 16)
    params = fit(learner, TRAIN, key=jax.random.key(0), steps=300).state.params
    assert loss(params) < loss(INIT(jax.random.key(0))) / 5
    assert FEATURES(params, {"x": X[0]}).shape == (8,)


def test_scores_by_depth_and_by_token_add_up_to_those_of_prepared_queries():
    model = Decoder(DecoderConfig(16, 8, 2, 1, max_length=6))
    tokens = jnp.asarray(np.random.default_rng(0).integers(16, size=(5, 7)), jnp.int32)
    rows = {"tokens": tokens, "mask": jnp.ones((5, 7), bool)}
    task, where = next_token_task(model), r"layers/(attention|mlp)/"
    params = model.init(jax.random.key(0), tokens[0, :-1])["params"]
    fitted = ekfac.fit_curvature(task, params, rows, key=jax.random.key(1), where=where)
    queries = jax.tree.map(lambda leaf: leaf[:3], rows)
    prepared = ekfac.prepared_queries(fitted, queries, where=where)
    scores = ekfac.prepared_influence(fitted, prepared, rows, 2)
    np.testing.assert_allclose(scores, ekfac.influence(fitted, queries, rows, where=where), rtol=1e-4, atol=1e-4)
    depths = ekfac.depth_scores(fitted, prepared, rows, 2)
    assert {name.split("/")[0] for name in depths} == {"0", "1"}
    np.testing.assert_allclose(sum(depths.values()), scores, rtol=1e-3, atol=1e-3)
    chosen = np.array([4, 0, 2])
    paired = ekfac.paired_token_scores(fitted, prepared, jax.tree.map(lambda leaf: leaf[chosen], rows), 6)
    np.testing.assert_allclose(paired.sum(1), scores[np.arange(3), chosen], rtol=1e-3, atol=1e-3)
