import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from core.batches import GrainBatches, epoch_sampler
from core.datasets.vectors import Vectors, write_vectors
from core.errors import NonFiniteError
from core.fit import fit
from core.learner import accumulate, seed_keys, with_ema, with_sampler
from core.parallel import data_mesh
from interp import sae
from interp.sae.training import aux_loss

M, D, B = 24, 6, 16
WORLD = sae.planted(jax.random.key(1), 12, D, 2.0)
X = sae.draw(WORLD, jax.random.key(2), 64)[0]


def learner(variant=None, **settings):
    return sae.sae_learner(variant or sae.topk(3), M, optax.adam(1e-2), **settings)


def after(learner, steps=3, batch=None, key=None):
    batch = X[:B] if batch is None else batch
    update = jax.jit(learner.update)
    state = learner.init(jax.random.key(0) if key is None else key, batch)
    for _ in range(steps):
        state, _ = update(state, batch)
    return state


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def test_rows_keep_norm_one_and_gradients_are_orthogonal_to_them(record_property):
    reached = optax.GradientTransformation(lambda params: params, lambda grads, state, params: (grads, grads))
    one = sae.sae_learner(sae.topk(3), M, optax.chain(reached, optax.adam(1e-2)))
    state, update, along, raw = one.init(jax.random.key(0), X[:B]), jax.jit(one.update), [], []
    for _ in range(4):
        before, (state, _) = state, update(state, X[:B])
        np.testing.assert_allclose(jnp.linalg.norm(state.params["W_d"], axis=1), 1, atol=1e-6)
        left = state.opt_state[1][0]["W_d"]  # what the optimiser was given
        grads, _ = one.gradients(before, X[:B])
        size = jnp.linalg.norm(grads.grads["W_d"], axis=1).max()
        for found, gradient in ((along, left), (raw, grads.grads["W_d"])):
            found.append(float(jnp.abs(jnp.sum(gradient * before.params["W_d"], axis=1)).max() / size))
        assert jnp.linalg.norm(left, axis=1).max() > 0.1 * size
    record_property("value", max(along))
    assert max(along) < 1e-6
    assert min(raw) > 1e-3  # there was something to remove


def test_counters_start_anew_where_latents_fire_and_merge_by_the_minimum():
    one = learner()
    start = one.init(jax.random.key(0), X[:B])
    start = start._replace(extra=sae.Idle(jnp.full(M, 100, jnp.int32)))
    fires = np.asarray(sae.dense(sae.encode(sae.topk(3), start.params, X[:B]), M) > 0).any(0)
    assert 0 < fires.sum() < M
    state, _ = jax.jit(one.update)(start, X[:B])
    np.testing.assert_array_equal(state.extra.since, np.where(fires, 0, 100 + B))
    halves = [
        jax.jit(one.update)(start, jnp.concatenate([half, half]))[0].extra for half in (X[: B // 2], X[B // 2 : B])
    ]
    np.testing.assert_array_equal(sae.merge(*halves).since, state.extra.since)


def test_the_loss_of_dead_latents_and_its_gradient_equal_a_dense_reference():
    n_dead, k = 5, 2
    dead, aux = jnp.arange(M) < n_dead, sae.Aux(weight=1 / 32, k=k)
    p = after(learner()).params
    p["b_e"] = p["b_e"].at[0].set(-9)  # one of them silent even before the selection

    def ours(p):
        return aux_loss(aux, p, sae.forward(sae.topk(3), p, X, X), dead, sae.total_variance)

    residual = X - sae.reconstruct(sae.topk(3), p, X)

    def dense(p):
        pre = (X - jax.lax.stop_gradient(p["b_d"])) @ p["W_e"][:n_dead].T + p["b_e"][:n_dead]
        least = jnp.sort(pre, axis=1)[:, -k][:, None]
        e_hat = jnp.where(pre >= least, jax.nn.relu(pre), 0) @ p["W_d"][:n_dead]
        return jnp.sum((e_hat - residual) ** 2) / jnp.sum((X - X.mean(0)) ** 2) / 32

    (found, grads), (expected, wanted) = (jax.value_and_grad(f)(p) for f in (ours, dense))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_close(grads, wanted, rtol=1e-4, atol=1e-6)
    for name in ("W_e", "W_d", "b_e"):
        assert jnp.abs(grads[name][1:n_dead]).max() > 1e-4
        assert not grads[name][n_dead:].any()
    assert not grads["b_d"].any()


def test_fewer_dead_latents_than_asked_for_weigh_less():
    dead = sae.Aux(weight=1.0, k=4, dead_after=1)
    one = learner(aux=dead, total=sae.examples)
    state = one.init(jax.random.key(0), X[:B])
    state = state._replace(extra=sae.Idle(jnp.where(jnp.arange(M) < 2, 10, 0).astype(jnp.int32)))
    _, metrics = one.gradients(state, X[:B])
    p = state.params
    e = X[:B] - sae.reconstruct(sae.topk(3), p, X[:B])
    z = jax.nn.relu((X[:B] - p["b_d"]) @ p["W_e"][:2].T + p["b_e"][:2])
    aux = ((z @ p["W_d"][:2] - e) ** 2).sum(1).mean() * 2 / 4  # two dead of four asked for
    np.testing.assert_allclose(metrics["loss"], (e**2).sum(1).mean() + aux, rtol=1e-5)
    np.testing.assert_allclose(metrics["dead"], 2 / M, rtol=1e-6)


def missing_feature():
    """Examples e_i +- e_3, i < 3, and a dictionary at rest that lacks e_3: latent 3 along it fires at .5, below 4.

    Latents 0 to 2 give e_i. Latent 4 fires at .8 always, along e_4, which b_d takes away again. With k = 2 the error is
    +- e_3, whose gradients cancel in the batch: without an auxiliary loss nothing moves.
    """
    axes = jnp.eye(5)
    x = jnp.concatenate([axes[:3] + axes[3], axes[:3] - axes[3]])
    params = {
        "W_e": axes.at[3].mul(0.5).at[4].set(0.0),
        "b_e": jnp.zeros(5).at[4].set(0.8),
        "W_d": axes,
        "b_d": -0.8 * axes[4],
    }
    return x, params


def steps_to_fire(aux, rate, at_most):
    """Steps of plain descent until latent 3 fires, and the parameters then."""
    x, params = missing_feature()
    variant = sae.topk(2)
    one = sae.sae_learner(variant, 5, optax.sgd(rate), aux=aux, total=sae.examples, start=lambda key, x: params)
    update, state = jax.jit(one.update), one.init(jax.random.key(0), x)
    fires = jax.jit(lambda params: sae.as_dense(variant, params, x)[:, 3].any())
    for step in range(at_most):
        if fires(state.params):
            return step, state.params
        state, _ = update(state, x)
    return None, state.params


def test_aux_revives_the_latent_along_a_missing_feature_in_the_steps_that_theory_gives(record_property):
    rate, weight, patience = 0.1, 1 / 32, 3
    with jax.enable_x64(True):  # the rest is a saddle, left by rounding in the end
        found, _ = steps_to_fire(sae.Aux(weight=weight, k=1, dead_after=6 * patience), rate, 200)
        never, at_rest = steps_to_fire(None, rate, 200)
        assert_close(at_rest, missing_feature()[1], rtol=0, atol=1e-6)
    # z = .5 at first; half of the examples pull it to 1. A step moves it by the mean product of (x - b_d, 1) with
    # that of the others, 1 + 1/3 + .8^2 + 1 (e_3, the three e_i, e_4, bias), times rate weight (1 - z).
    pulls = int(np.ceil(np.log(0.2 / 0.5) / np.log(1 - rate * weight * (1 + 1 / 3 + 0.64 + 1))))
    record_property("value", f"fires after {found} steps, {patience} of them until it counts as dead")
    assert found == patience + pulls
    assert never is None


def test_an_error_of_dead_latents_that_is_not_finite_counts_as_none():
    x, params = missing_feature()
    params["W_d"] = params["W_d"].at[3].set(jnp.inf)
    done = sae.forward(sae.topk(2), params, x, x)
    assert aux_loss(sae.Aux(k=1), params, done, jnp.arange(5) == 3, sae.total_variance) == 0


def spread(latents: int):
    return data_mesh(**{sae.LATENT_AXIS: latents})


def test_the_k_largest_over_devices_are_those_of_one():
    pre = jnp.round(jax.random.normal(jax.random.key(0), (9, M)) * 2) / 2  # with ties
    mesh = spread(4)

    def local(pre):
        return sae.dense(sae.largest(pre, 7), pre.shape[1])

    share = P(None, sae.LATENT_AXIS)
    found = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=share, out_specs=share, check_vma=False))(pre)
    np.testing.assert_array_equal(found, sae.dense(sae.largest(pre, 7), M))


@pytest.mark.parametrize(
    "variant",
    [sae.topk(3), sae.batch_topk(3), sae.gated(0.01), sae.matryoshka(sae.groupmax(4), (8, M))],
    ids=["topk", "batch_topk", "gated", "matryoshka"],
)
def test_latents_spread_over_devices_train_as_on_one(variant):
    one = learner(variant, aux=sae.Aux(dead_after=B))
    many = sae.latent_parallel(one, spread(2))
    state = many.init(jax.random.key(0), X[:B])
    for _ in range(3):
        state, metrics = many.update(state, X[:B])
    plain = after(one)
    assert_close(state.params, plain.params, rtol=2e-4)
    np.testing.assert_array_equal(state.extra.since, plain.extra.since)
    assert state.params["W_e"].sharding.spec[0] == sae.LATENT_AXIS
    assert np.isfinite(metrics["loss"])


def test_a_resumed_run_over_a_store_ends_in_the_same_bits(tmp_path):
    write_vectors(tmp_path / "store", [X])
    one = learner(aux=sae.Aux(dead_after=40))

    def train(steps, folder):
        batches = GrainBatches(Vectors(tmp_path / "store"), B, seed=3)
        return fit(one, batches, key=jax.random.key(0), steps=steps, chunk=3, workdir=tmp_path / folder).state

    whole = train(9, "whole")
    train(6, "parts")
    resumed = train(9, "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    np.testing.assert_array_equal(resumed.extra.since, whole.extra.since)


def test_a_sweep_over_k_is_one_program_equal_to_single_runs():
    ks = jnp.array([1, 3])
    many = sae.sweep(lambda row: learner(sae.topk(row["k"], 3)), {"k": ks})
    keys = seed_keys([4, 5])
    together = after(many, key=keys)
    for i in range(2):
        alone = after(learner(sae.topk(int(ks[i]))), key=keys[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together.params), alone.params)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    parts = accumulate(learner(total=sae.examples), 2)
    assert_close(after(parts).params, after(learner(total=sae.examples)).params)


def test_the_learner_composes_with_averages_and_samplers():
    one = with_sampler(with_ema(learner(), 0.9), epoch_sampler(B))
    done = fit(one, X, key=jax.random.key(0), steps=4)
    assert done.state.ema["W_d"].shape == (M, D)


def test_a_transcoder_learns_targets_that_are_not_its_inputs():
    batch = {"x": X, "y": X[:, :4] @ jnp.ones((4, 2))}
    one = sae.sae_learner(sae.skip_transcoder(sae.topk(3)), M, optax.adam(3e-2))
    done = fit(one, batch, key=jax.random.key(0), steps=150)
    assert done.history[-1]["fvu"] < 0.05


def test_a_batch_that_is_not_finite_stops_the_run():
    with pytest.raises(NonFiniteError):
        fit(learner(), X.at[0, 0].set(jnp.nan), key=jax.random.key(0), steps=2)
