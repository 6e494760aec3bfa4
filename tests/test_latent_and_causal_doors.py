"""What the doors of the latent and the causal room refuse: ways that there are not, sizes of 0, shares beyond 1."""

# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from causal import causal_diffae, causal_vae, image_scms, linear_sems, mechanisms
from causal import image_cate as ic
from causal import pac_invariance as pac
from causal import rep4ex as rep
from core.errors import ConfigError
from latent import diffusion, mm_gpvae, unet
from latent import scan_eeg as eeg

KEY = jax.random.key(0)
CHAIN = diffusion.chain(diffusion.linear_beta(100), 5)
SEM = linear_sems.linear_sem(jnp.zeros((3, 3)))
MOMENTS = linear_sems.draw_moments(linear_sems.observational(SEM), KEY, 2, 50)
MASKS = pac.feature_masks(3, 2)


def gpvae(**changed):
    return mm_gpvae.MMGPVAE(mm_gpvae.Partition(1, 1, 1), bins=8, circle=16, neurons=3, **changed)


WAYS = {
    "domain": lambda: gpvae(domain="Fourier"),
    "fusion": lambda: gpvae(fusion="mean"),
    "observation": lambda: gpvae(observation="Poisson"),
    "padding": lambda: eeg.BetaVae(2, 8, 2, (2, 2), 4, padding="same"),
    "similarity": lambda: eeg.udr(jnp.zeros((2, 3, 2)), jnp.zeros((2, 2)), "Lasso"),
    "mode": lambda: unet.UNet(3, mode="shift"),
    "estimator": lambda: ic.EffectNetwork(2, estimator="flip"),
    "likelihood": lambda: ic.ClusterModel(likelihood="relax"),
    "design": lambda: ic.simulate("s1", np.zeros((4, 6, 6, 2)), 0),
    "prediction": lambda: causal_diffae.CausalDiffAE(nn.Dense(1), nn.Dense(1), prediction="x0"),
}
"""By the name of the argument."""


@pytest.mark.parametrize("name", WAYS)
def test_a_way_that_there_is_not_is_refused_with_those_that_there_are(name):
    with pytest.raises(ConfigError, match=f"{name} must be one of"):
        WAYS[name]()


def test_modes_of_mechanisms_and_of_abduction_are_those_that_there_are():
    with pytest.raises(ConfigError, match="mode must be one of 'paper', 'code'"):
        mechanisms.CausalLayer(((0, 1), (0, 0)), 3, mode="Code")
    model = causal_diffae.CausalDiffAE(nn.Dense(1), nn.Dense(1))
    with pytest.raises(ConfigError, match="mode must be one of 'ddim', 'ddim_fixed_point', 'noise'"):
        causal_diffae.abduct(model, None, CHAIN, jnp.zeros((1, 4, 4, 1)), "fixed_point")


REFUSED = {
    "a graph of one variable": (lambda: linear_sems.random_sem(KEY, 1), "d must be a number of at least 2"),
    "a graph of none": (lambda: linear_sems.random_sem(KEY, 0), "d must be a number of at least 2"),
    "subsets of none": (lambda: pac.feature_masks(0, 0), "d must be"),
    "a target beyond": (lambda: pac.every_subset(3, 5), "target is 5, but there are 3 variables"),
    "icp of a target beyond": (lambda: pac.icp(MOMENTS, 3, MASKS), "target is 3"),
    "no environments": (lambda: linear_sems.environments(linear_sems.observational(SEM), KEY, 0), "m must be"),
    "delta 1": (lambda: pac.environments_finite(3, 0.1, 1.0), "delta must be"),
    "z NaN": (lambda: pac.environments_vc(3.0, float("nan"), 0.1), "z must be"),
    "hypotheses 0": (lambda: pac.finite_class(0, 3, 0.1), "hypotheses must be"),
    "bins 0": (lambda: mm_gpvae.fourier_basis(0, 8), "bins must be"),
    "a shortest length of 0": (lambda: mm_gpvae.fourier_basis(8, 16, 0.0), "shortest must be"),
    "hop 0": (lambda: mm_gpvae.windows(jnp.zeros((9, 2)), 4, 0), "hop must be"),
    "trials 0": (lambda: mm_gpvae.simulate(KEY, jnp.zeros((1, 28, 28)), trials=0), "trials must be"),
    "hidden behaviour 2": (lambda: mm_gpvae.learner(gpvae(), optax.sgd(1.0), hide_behaviour=2.0), "hide_behaviour"),
    "GPFA of no latents": (
        lambda: mm_gpvae.gpfa_learner(mm_gpvae.fourier_basis(8, 16), 0, optax.sgd(1.0)), "dimensions must be",
    ),
    "features 0": (lambda: eeg.BetaVae(2, 8, 2, (0, 2), 4), "features at place 0 must be"),
    "batches of 0": (lambda: eeg.bootstrap_sampler(0), "batch_size must be"),
    "channels 0": (lambda: unet.UNet(3, channels=(0,)), "channels at place 0 must be"),
    "dropout 2": (lambda: unet.UNet(3, dropout=2.0), "dropout must be"),
    "steps 0": (lambda: ic.EffectClusters(steps=0), "steps must be"),
    "clusters 0": (lambda: ic.EffectNetwork(0), "clusters must be"),
    "images 0": (lambda: ic.sample_images(0), "batch_size must be"),
    "Rep4Ex restarts 0": (lambda: rep.Rep4Ex(rep.Autoencoder(2, 4), restarts=0), "restarts must be"),
    "Rep4Ex held out 1": (lambda: rep.Rep4Ex(rep.Autoencoder(2, 4), held_out=1.0), "held_out must be"),
    "Rep4Ex rate NaN": (lambda: rep.Rep4Ex(rep.Autoencoder(2, 4), learning_rate=float("nan")), "learning_rate must"),
    "a ridge of -1": (lambda: rep.Ridge(ridge=-1.0), "ridge must be"),
    "a VAE of alpha -1": (
        lambda: causal_vae.learner(
            causal_vae.CausalVae(nn.Dense(1), mechanisms.CausalLayer(((0, 1), (0, 0)), 3), (4, 4, 1)), optax.sgd(1.0),
            alpha=-1.0,
        ),
        "alpha must be",
    ),
    "a variable that there is not": (lambda: mechanisms.do(2, {5: 1.0}), "settings.0. is 5, but there are 2 variables"),
    "a graph out of order": (lambda: mechanisms.in_order(((0, 0), (1, 0))), "topologically"),
    "nobody drawn": (lambda: image_scms.draw_strokes(KEY, 0), "n must be"),
    "key a number": (lambda: image_scms.draw_strokes(0, 3), "key must be a random key"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()


def test_gpfa_is_the_same_model_in_other_units_and_from_another_origin():
    basis = mm_gpvae.fourier_basis(6, 12, 4.0)
    with jax.enable_x64(True):
        y = jax.random.normal(KEY, (3, 6, 4), jnp.float64)
        C = jax.random.normal(jax.random.key(1), (4, 2), jnp.float64)
        params = mm_gpvae.Gpfa(C, jnp.zeros(4), jnp.zeros(4), jnp.log(jnp.array([3.0, 5.0])))
        scale, shift = 7.0, 2000.0
        there = params._replace(C=scale * C, d=scale * params.d + shift, log_r=params.log_r + 2 * np.log(scale))
        here, moved = mm_gpvae.infer(basis, params, y), mm_gpvae.infer(basis, there, scale * y + shift)
        np.testing.assert_allclose(moved.log_marginal, here.log_marginal - y[0].size * np.log(scale), rtol=1e-9)
        np.testing.assert_allclose(moved.mean, here.mean, rtol=1e-8, atol=1e-10)


def test_gpfa_learns_the_same_from_another_origin():
    y = jnp.round(64 * jax.random.normal(KEY, (3, 6, 4))) / 64
    learner = mm_gpvae.gpfa_learner(mm_gpvae.fourier_basis(6, 12, 4.0), 1, optax.adam(1e-2), first_length=4.0)
    step, losses = jax.jit(learner.update), []
    for data in (y, y + 2000):
        state = learner.init(KEY, data)
        for _ in range(3):
            state, metrics = step(state, data)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
