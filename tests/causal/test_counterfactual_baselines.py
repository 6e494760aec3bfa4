"""Causal layers of variational autoencoders, and diffusion told labels or guided by a classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import causal_vae, counterfactual_baselines
from causal.causal_diffae import Decoder, MlpEncoder
from causal.mechanisms import CausalLayer, do
from latent import diffusion
from latent.film import FilmMlp

N, K = 3, 2


def linear_layer(adjacency):
    layer = causal_vae.LinearThenMask(N, K, 4)
    params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, N, K)))
    params["params"]["adjacency"] = jnp.asarray(adjacency, jnp.float32)
    return layer, params


CHAIN = np.array([[0, 0.8, 0.0], [0, 0, -0.5], [0, 0, 0]])


def test_the_linear_layer_solves_the_structural_model():
    layer, params = linear_layer(CHAIN)
    e = jax.random.normal(jax.random.key(1), (4, N, K))
    linear, z = layer.apply(params, e, method="both")
    np.testing.assert_allclose(linear, np.linalg.solve(np.eye(N) - CHAIN.T, np.asarray(e)), atol=1e-5)
    np.testing.assert_allclose(z[:, 0], e[:, 0], atol=1e-6)  # a root's mask is empty


def test_interventions_on_the_linear_layer_strike_out_equations():
    layer, params = linear_layer(CHAIN)
    e = jax.random.normal(jax.random.key(1), (4, N, K))
    linear, z = layer.apply(params, e, do(N, {1: 2.0}), method="both")
    np.testing.assert_allclose(linear[:, 0], e[:, 0], atol=1e-6)
    np.testing.assert_allclose(linear[:, 1], 2.0, atol=1e-6)
    np.testing.assert_allclose(linear[:, 2], e[:, 2] - 0.5 * 2.0, atol=1e-5)
    np.testing.assert_array_equal(z[:, 1], 2.0)


def test_acyclicity_is_zero_for_acyclic_graphs_only():
    assert causal_vae.acyclicity(jnp.asarray(CHAIN)) == pytest.approx(0.0, abs=1e-6)
    cycle = np.array([[0, 0.5], [0.7, 0]])
    expected = np.trace(np.linalg.matrix_power(np.eye(2) + cycle**2 / 2, 2)) - 2
    assert float(causal_vae.acyclicity(jnp.asarray(cycle))) == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_prior_means_average_own_and_parents_labels():
    graph = ((0, 0, 1), (0, 0, 1), (0, 0, 0))
    means = causal_vae.structural_labels(graph, jnp.array([[1.0, 4.0, 7.0]]))
    np.testing.assert_allclose(means, [[1.0, 4.0, 4.0]])


def test_counterfactuals_of_a_variational_autoencoder_stay_in_range_and_react():
    layer = CausalLayer(((0, 1), (0, 0)), K, 4, act=nn.elu)
    model = causal_vae.CausalVae(MlpEncoder(2, K, (8,)), layer, (4, 4, 1), (8,))
    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1), minval=-1)
    params = jax.jit(model.init)(jax.random.key(1), x)
    run = jax.jit(lambda value: causal_vae.counterfactual(model, params, x, do(2, {0: value})))
    low, high = run(-3.0), run(3.0)
    assert low.shape == x.shape
    assert float(jnp.abs(low).max()) <= 1
    assert float(jnp.abs(low - high).max()) > 1e-3


MODEL = counterfactual_baselines.LabelDiffusion(FilmMlp(8, 1), counterfactual_baselines.NoisyRegressor(2, (8,)), (8,))
GRID = diffusion.chain(diffusion.linear_beta(1000), 50)


@pytest.fixture(scope="module")
def fitted():
    """Parameters whose output layer is not zero but a contraction, which the fixed point needs; and images."""
    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1), minval=-0.5, maxval=0.5)
    params = jax.jit(MODEL.init)(jax.random.key(1), x, jnp.zeros(3), jnp.ones((3, 3)))
    out = params["params"]["denoiser"]["out"]
    out["kernel"] = 0.002 * jax.random.normal(jax.random.key(2), out["kernel"].shape)
    return params, x


def test_the_same_labels_give_the_same_image(fitted):
    params, x = fitted
    labels = jnp.array([[0.5, -1.0]] * 3)

    @jax.jit
    def run(new):
        return counterfactual_baselines.by_labels(Decoder(MODEL), params, GRID, x, labels, new, iterations=8)

    np.testing.assert_allclose(run(labels), x, atol=1e-5)
    assert float(jnp.abs(run(labels + 2) - x).max()) > 1e-3


def test_a_classifier_of_scale_zero_changes_nothing_and_ignores_unwanted_labels(fitted):
    params, x = fitted
    wanted = jnp.array([True, False])

    @jax.jit
    def run(target, scale):
        return counterfactual_baselines.by_classifier(
            Decoder(MODEL), params, GRID, x, target, wanted, scale, iterations=8
        )

    target = jnp.array([[2.0, 0.0]] * 3)
    np.testing.assert_allclose(run(target, 0.0), x, atol=1e-5)
    pushed = run(target, 5.0)
    assert float(jnp.abs(pushed - x).max()) > 1e-3
    np.testing.assert_array_equal(run(target.at[:, 1].set(9.0), 5.0), pushed)


def test_no_labels_embed_to_nothing(fitted):
    params, x = fitted
    plain = FilmMlp(8, 1)
    none = MODEL.apply(params, x, jnp.ones(3), jnp.zeros((3, 3)), method="denoise")
    alone = {"params": params["params"]["denoiser"]}
    np.testing.assert_allclose(none, plain.apply(alone, x, jnp.ones(3), jnp.zeros((3, 8))), atol=1e-6)
