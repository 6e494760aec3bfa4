import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from core.errors import ConfigError
from interp import sae
from interp.sae.training import batch_loss

B, D, M = 12, 5, 16


def setting(variant: sae.Variant, dtype=jnp.float32):
    """Parameters away from their start, inputs and targets."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (B, D), dtype) + 0.3
    y = x if variant.centred else jax.random.normal(keys[1], (B, 3), dtype)
    params = sae.initial_params(variant, M, keys[2], x, y, sae.mean)
    noise = jax.tree.unflatten(jax.tree.structure(params), list(jax.random.split(keys[3], len(params))))
    return jax.tree.map(lambda p, k: p + 0.2 * jax.random.normal(k, p.shape, p.dtype), params, noise), x, y


def kept(pre, k):
    """relu of the k largest per row, ties to the lower index, densely and differentiably."""
    order = jnp.argsort(-pre, axis=1, stable=True)[:, :k]
    mask = jnp.zeros(pre.shape, bool).at[jnp.arange(len(pre))[:, None], order].set(True)
    return jnp.where(mask, jax.nn.relu(pre), 0)


def kept_in_batch(pre, k):
    least = jnp.sort(jax.lax.stop_gradient(jax.nn.relu(pre)).ravel())[-k * len(pre)]
    return jnp.where(pre >= least, jax.nn.relu(pre), 0)


def kept_in_groups(pre, k):
    grouped = pre.reshape(len(pre), k, -1)
    mask = grouped == grouped.max(-1, keepdims=True)
    return jnp.where(mask, jax.nn.relu(grouped), 0).reshape(pre.shape)


def out(p, z, x=None):
    return z @ p["W_d"] + p["b_d"] + (0 if x is None else x @ p["W_skip"].T)


def jumped(p, pre):
    return jnp.where(pre > jnp.exp(p["log_theta"]), pre, 0)


def gate(p, pre):
    return jnp.where(pre > 0, jax.nn.relu(jnp.exp(p["r"]) * (pre - p["b_e"]) + p["b_m"]), 0)


def sq(a):
    return jnp.sum(a**2)


def jumped_loss(p, x, y, pre):
    """With the pseudo-derivatives of the step written out: -kernel / eps in theta, none in pre."""
    theta, eps = jnp.exp(p["log_theta"]), 0.5
    step = jax.lax.stop_gradient((jnp.abs(pre - theta) < eps / 2) / eps) * (jax.lax.stop_gradient(theta) - theta)
    z = jumped(p, pre) + jax.lax.stop_gradient(theta) * step
    return sq(y - out(p, z)) / total(y) + 0.1 * ((pre > theta) + step).sum(1).mean()


def total(y):
    return sq(y - y.mean(0))


def plain(code):
    return lambda p, x, y, pre: sq(y - out(p, code(p, pre))) / total(y)


def l1_loss(p, x, y, pre):
    z = jax.nn.relu(pre)
    return sq(y - out(p, z)) / total(y) + 0.1 * (z * jnp.linalg.norm(p["W_d"], axis=1)).sum(1).mean()


def gated_loss(p, x, y, pre):
    frozen, gates = jax.lax.stop_gradient(p), jax.nn.relu(pre)
    errors = sq(y - out(p, gate(p, pre))) + sq(y - out(frozen, gates))
    return errors / total(y) + 0.1 * gates.sum(1).mean()


def nested_loss(p, x, y, pre):
    z = kept(pre, 3)
    return sum(sq(y - out(p, z * (jnp.arange(M) < m))) for m in (4, M)) / 2 / total(y)


REFERENCES = {
    "relu": (sae.relu_l1(0.1), l1_loss),
    "topk": (sae.topk(3), plain(lambda p, pre: kept(pre, 3))),
    "masked topk": (sae.topk(jnp.int32(3), 5), plain(lambda p, pre: kept(pre, 3))),
    "batch_topk": (sae.batch_topk(3), plain(lambda p, pre: kept_in_batch(pre, 3))),
    "groupmax": (sae.groupmax(4), plain(lambda p, pre: kept_in_groups(pre, 4))),
    "gated": (sae.gated(0.1), gated_loss),
    "jumprelu": (sae.jumprelu(0.1, 0.3, 0.5), jumped_loss),
    "matryoshka": (sae.matryoshka(sae.topk(3), (4, M)), nested_loss),
    "multi_topk": (
        sae.multi_topk(2),
        lambda p, x, y, pre: (sq(y - out(p, kept(pre, 2))) + sq(y - out(p, kept(pre, 8))) / 8) / total(y),
    ),
    "transcoder": (sae.transcoder(sae.topk(3)), plain(lambda p, pre: kept(pre, 3))),
    "skip_transcoder": (
        sae.skip_transcoder(sae.topk(3)),
        lambda p, x, y, pre: sq(y - out(p, kept(pre, 3), x)) / total(y),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_variant_equals_its_dense_reference(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        variant, reference = REFERENCES[name]
        params, x, y = setting(variant, jnp.dtype(dtype))

        def dense(p):
            shift = p["b_d"] if variant.centred else 0
            return reference(p, x, y, (x - shift) @ p["W_e"].T + p["b_e"])

        def ours(p):
            return batch_loss(variant, p, sae.forward(variant, p, x, y), sae.total_variance)

        tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
        found, expected = jax.value_and_grad(ours)(params), jax.value_and_grad(dense)(params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max())),
            found, expected,
        )  # fmt: skip


def dense_code(variant, params, x):
    return sae.dense(sae.encode(variant, params, x), M)


def test_topk_of_all_latents_is_relu():
    params, x, _ = setting(sae.topk(M))
    np.testing.assert_array_equal(dense_code(sae.topk(M), params, x), dense_code(sae.relu_l1(0.0), params, x))


def test_batch_topk_of_one_row_is_topk():
    variant = sae.batch_topk(3)
    params, x, _ = setting(variant)
    for row in x:
        code = sae.forward(variant, params, row[None], row[None]).code
        np.testing.assert_array_equal(code, dense_code(sae.topk(3), params, row[None]))


def test_jumprelu_without_thresholds_is_relu():
    variant = sae.jumprelu(0.0)
    params, x, _ = setting(variant)
    params["log_theta"] = jnp.full(M, -50.0)
    np.testing.assert_array_equal(dense_code(variant, params, x), dense_code(sae.relu_l1(0.0), params, x))


def test_matryoshka_of_one_prefix_is_plain():
    variant = sae.topk(3)
    params, x, y = setting(variant)
    losses = [
        batch_loss(v, params, sae.forward(v, params, x, y), sae.total_variance)
        for v in (variant, sae.matryoshka(variant, (M,)))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_gated_with_equal_gates_is_relu():
    variant = sae.gated(0.0)
    params, x, _ = setting(variant)
    params |= {"r": jnp.zeros(M), "b_m": params["b_e"]}
    np.testing.assert_allclose(
        dense_code(variant, params, x), dense_code(sae.relu_l1(0.0), params, x), rtol=1e-5, atol=1e-6
    )


def test_the_geometric_median_is_the_minimiser_that_scipy_finds(record_property):
    y = np.random.default_rng(0).standard_t(2, (200, 4))
    found = scipy.optimize.minimize(lambda c: np.linalg.norm(y - c, axis=1).sum(), y.mean(0), method="BFGS").x
    error = float(np.abs(np.asarray(jax.jit(sae.geometric_median)(y.astype(np.float32))) - found).max())
    record_property("value", f"largest difference {error:.1e}")
    assert error < 1e-4
    assert np.abs(y.mean(0) - found).max() > 1e-2  # the mean is another point


def test_batch_topk_reads_single_examples_by_its_threshold():
    variant = sae.batch_topk(3)
    params, x, _ = setting(variant)
    params["threshold"] = jnp.float32(0.4)
    z = dense_code(variant, params, x)
    assert z[z > 0].min() >= 0.4
    np.testing.assert_allclose(z[:1], dense_code(variant, params, x[:1]), rtol=1e-6)


def test_the_nth_largest_is_that_of_a_sort():
    x = np.abs(np.random.default_rng(0).normal(size=(9, 31))).astype(np.float32)
    x[0] = 0
    for n in (1, 5, 200, 270):
        assert sae.nth_largest(jnp.asarray(x), jnp.int32(n)) == np.sort(x.ravel())[-n]


def test_metrics_of_all_examples_do_not_depend_on_blocks():
    variant = sae.topk(3)
    params, x, _ = setting(variant)
    whole, blocks = sae.metrics(variant, params, x), sae.metrics(variant, params, x, block=5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, blocks)
    out = np.asarray(sae.reconstruct(variant, params, x))
    y = np.asarray(x)
    np.testing.assert_allclose(whole.fvu, ((y - out) ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(whole.nmse, ((y - out) ** 2).mean() / (y**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(whole.frequency, (dense_code(variant, params, x) > 0).mean(0), rtol=1e-6)


def test_shrinkage_is_the_factor_by_which_outputs_are_short():
    params, x, _ = setting(sae.relu_l1(0.0))
    both = jnp.zeros((M, D)).at[:D].set(jnp.eye(D)).at[D : 2 * D].set(-jnp.eye(D))
    params |= {"W_e": both * 0.7, "W_d": both, "b_e": jnp.zeros(M), "b_d": x.mean(axis=0)}
    np.testing.assert_allclose(sae.metrics(sae.relu_l1(0.0), params, x).shrinkage, 0.7, rtol=1e-4)


def test_features_are_matched_to_distinct_latents():
    features = jnp.eye(3)
    W_d = jnp.array([[0.0, 2, 0], [1, 0.1, 0], [1, 0, 0], [0, 0, -1]])
    latents, cosines = sae.matched(features, W_d)
    assert latents[:2].tolist() == [2, 0]
    np.testing.assert_allclose(cosines[:2], 1)
    assert sae.recovery_f1(features, W_d) == 2 * 2 / 7
    assert sae.splits(features, W_d).tolist() == [2, 1, 0]


def test_absorption_counts_silent_parents():
    present = jnp.array([[1, 1], [1, 1], [1, 0], [0, 0]], bool)
    z = jnp.array([[1.0, 1], [0, 1], [1, 0], [0, 0]])
    share = sae.absorption(z, present, jnp.arange(2), jnp.array([-1, 0]))
    assert share.tolist() == [0.0, 0.5]


def test_a_probe_is_the_latent_that_tells_a_label():
    label = jnp.array([1, 1, 0, 0], bool)
    best, f1 = sae.probe_f1(jnp.array([[0.0, 1], [1, 1], [1, 0], [1, 0]]), label)
    assert (int(best), float(f1)) == (1, 1.0)


def test_silent_latents_lack_what_the_least_active_has():
    params = {"W_e": jnp.eye(3), "b_e": jnp.array([0.0, 0.0, -3.0]), "W_d": jnp.eye(3), "b_d": jnp.zeros(3)}
    x = jnp.array([[2.0, 1.0, 1.0], [1.0, 4.0, 2.0]])
    found = sae.reach(sae.topk(1), params, x)
    assert found == {"least active": 3.0, "largest silent": -1.0}
    assert "largest silent" not in sae.reach(sae.topk(1), params, jnp.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 9.0]]))


def test_planted_features_occur_as_often_as_said():
    world = sae.hierarchy(jax.random.key(0))
    x, has = sae.draw(world, jax.random.key(1), 20_000)
    child = np.asarray(world.parent) >= 0
    assert not (has[:, child] & ~has[:, world.parent[child]]).any()
    flat = sae.planted(jax.random.key(0))
    np.testing.assert_allclose(sae.draw(flat, jax.random.key(1), 20_000)[1].sum(1).mean(), 6, atol=0.1)
    assert float(flat.probabilities[0] / flat.probabilities[-1]) == pytest.approx(9, rel=1e-5)
    assert x.shape == (20_000, 32)


def test_settings_that_cannot_be_are_named():
    params, x, _ = setting(sae.topk(3))
    with pytest.raises(ConfigError, match="lower k"):
        sae.encode(sae.topk(M + 1), params, x)
    with pytest.raises(ConfigError, match="equal groups"):
        sae.encode(sae.groupmax(5), params, x)
    with pytest.raises(ConfigError, match="k_max"):
        sae.topk(jnp.int32(3))


def test_a_scaled_encoder_keeps_norms():
    params, x, _ = setting(sae.topk(3))
    params = sae.scale_encoder(sae.topk(3), {**params, "b_e": jnp.zeros(M)}, x)
    sizes = [jnp.linalg.norm(a - params["b_d"], axis=1).mean() for a in (sae.reconstruct(sae.topk(3), params, x), x)]
    np.testing.assert_allclose(*sizes, rtol=1e-5)


def test_normalised_examples_are_reconstructed_in_their_units():
    variant = sae.topk(M)._replace(normalise=sae.layer_normalised)
    params, x, _ = setting(variant)
    np.testing.assert_allclose(
        sae.reconstruct(variant, params, 10 * x + 3), 10 * sae.reconstruct(variant, params, x) + 3, rtol=1e-3, atol=1e-3
    )
