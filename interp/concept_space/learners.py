"""Training of the denoisers of both worlds by the continuous-time diffusion loss, and their sampling."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.checks import Count, checked
from core.learner import GradientLearner, Learner, Stream, gradient_learner, step_key, stream, with_sampler
from interp.concept_space.networks import DiscDenoiser, PointDenoiser, Prompt, plain
from interp.concept_space.worlds import Concepts, training_points
from latent import diffusion

SCHEDULE = diffusion.linear_logsnr(5.0, -10.0)


@checked
def training_levels(key: Any, count: Count) -> diffusion.Drawn:
    """Stratified times in [0, 1]."""
    return diffusion.continuous_levels(SCHEDULE)(key, count)


@functools.cache
def sampling(steps: int) -> diffusion.Plan:
    """Ancestral sampling from the noisiest level to the clean one."""
    times = np.linspace(1, 0, steps)
    levels = diffusion.continuous(SCHEDULE, times).logsnr
    return diffusion.ddpm(diffusion.variance_preserving(np.append(levels, np.inf), np.append(times, 0.0)))


@checked
def image_learner(net: DiscDenoiser, tx: optax.GradientTransformation, count: Count) -> Learner:
    """Trains on images ``x`` [n, h, w, 3] in [-1, 1] and conditions ``cond`` [n, c], ``count`` drawn per step."""

    def init(key, batch):
        return net.init(key, batch["x"][:1], jnp.zeros(1), plain(batch["cond"][:1]))

    def loss(params, key, batch):
        dropout_key = stream(key, "dropout")

        def network(params, x, time, prompt):
            if not net.dropout:
                return net.apply(params, x, time, prompt)
            return net.apply(params, x, time, prompt, deterministic=False, rngs={"dropout": dropout_key})

        losses = diffusion.denoising_loss(network, training_levels)
        return losses(params, key, batch["x"], plain(batch["cond"]))[0].mean(), {}

    learner = gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)

    def draw(data, key, step):
        rows = jax.random.randint(stream(key, Stream.EXAMPLES, step), (count,), 0, data["x"].shape[0])
        return jax.tree.map(lambda leaf: leaf[rows], data)

    return with_sampler(learner, draw)


def fed_points(net: PointDenoiser, tx: optax.GradientTransformation, *, regresses: bool = False) -> GradientLearner:
    """Trains on points ``x`` [n, k] and conditions ``cond`` [n, k]; without noise where it ``regresses``."""
    losses = diffusion.denoising_loss(net.apply, training_levels)

    def init(key, batch):
        return net.init(key, batch["x"][:1], jnp.zeros(1), plain(batch["cond"][:1]))

    def loss(params, key, batch):
        x, prompt = batch["x"], plain(batch["cond"])
        if regresses:
            return jnp.mean((regressed(net, params, prompt) - x) ** 2), {}
        return losses(params, key, x, prompt)[0].mean(), {}

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)


@checked
def point_learner(
    net: PointDenoiser, tx: optax.GradientTransformation, concepts: Concepts, count: Count, *, regresses: bool = False
) -> Learner:
    """The same on ``count`` fresh points per step; its "batch" is the ``world`` and the ``telling`` as numbers."""

    def draw(setting, key, step):
        key = stream(key, Stream.EXAMPLES, step)
        return training_points(key, setting["world"], setting["telling"], concepts, count)

    return with_sampler(fed_points(net, tx, regresses=regresses), draw)


def regressed(net: PointDenoiser, params: Any, prompt: Prompt) -> jax.Array:
    """The network as a regression of points on prompts: no noise, one call."""
    return net.apply(params, jnp.zeros_like(prompt.cond), jnp.ones(prompt.cond.shape[0]), prompt)  # pyright: ignore
