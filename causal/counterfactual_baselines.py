r"""Counterfactuals from diffusion models without a causal code: conditioned on labels, or guided by a classifier.

Label-conditional diffusion inverts with the factual labels and decodes with the new ones. Diff-SCM (Sanchez,
Tsaftaris, CLeaR 2022) inverts without a condition and decodes with the gradient of an anticausal model,
eps - s scale grad log p(y' | x_t). Neither knows the graph: where children should follow, their new labels must be
given. One learner trains what both need: a denoiser whose labels are dropped at times, and a regressor of noisy images.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from causal.causal_diffae import WEIGHTINGS, Decoder, Prediction
from core.checks import Count, Fraction, Natural, checked
from core.learner import GradientLearner, example_keys, gradient_learner, step_key
from latent import diffusion
from latent.diffusion import Conditioned
from latent.unet import sinusoids


@checked
class NoisyRegressor(nn.Module):
    """Labels of a noisy image: p(y | x_t) = N(y(x_t, t), I)."""

    n: Count
    widths: Sequence[Count] = (128, 128)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], time: Float[Array, " b"]) -> Float[Array, "b n"]:
        """The means."""
        h = x.reshape(x.shape[0], -1)
        h = nn.Dense(self.widths[0])(h) + nn.Dense(self.widths[0])(sinusoids(time, 32))
        for width in self.widths[1:]:
            h = nn.Dense(width)(nn.silu(h))
        return nn.Dense(self.n)(nn.silu(h))


@checked
class LabelDiffusion(nn.Module):
    """A denoiser told labels through a perceptron, and the anticausal regressor."""

    denoiser: nn.Module
    """``(x, time, cond) -> raw``."""
    regressor: nn.Module
    widths: Sequence[Count] = (256, 512)
    prediction: Prediction = "eps"
    """As in :class:`causal.causal_diffae.CausalDiffAE`."""

    def setup(self):
        """The perceptron of labels."""
        self.embedding = [nn.Dense(width, use_bias=False) for width in self.widths]

    def __call__(self, x: Float[Array, "b h w c"], time: Float[Array, " b"], labels: Float[Array, "b n"]) -> Any:
        """Both outputs, for initialisation."""
        return self.denoise(x, time, labels), self.regress(x, time)

    def denoise(self, x: Float[Array, "b h w c"], time: Float[Array, " b"], cond: Float[Array, "b n1"]) -> Array:
        """Eps given labels and a last column of ones; a row of zeros stands for no labels, and embeds to zero."""
        h = cond
        for i, dense in enumerate(self.embedding):
            h = dense(nn.silu(h) if i else h)
        return self.denoiser(x, time, h)

    def regress(self, x: Float[Array, "b h w c"], time: Float[Array, " b"]) -> Float[Array, "b n"]:
        """Labels of noisy images."""
        return self.regressor(x, time)


def told(labels: Float[Array, "b n"]) -> Float[Array, "b n1"]:
    """Labels as a condition, told apart from none by a last column of ones."""
    return jnp.concatenate([labels, jnp.ones((labels.shape[0], 1))], axis=1)


@checked
def learner(
    model: LabelDiffusion, levels: diffusion.Levels, tx: optax.GradientTransformation, *, dropped: Fraction = 0.2
) -> GradientLearner:
    """Trains on batches ``{"x", "labels"}`` by |eps - eps^(x_t, t, y)|^2 + |y - y^(x_t, t)|^2, dropping labels."""
    losses = diffusion.denoising_loss(
        functools.partial(model.apply, method="denoise"), levels, model.prediction, WEIGHTINGS[model.prediction]
    )

    def init(key, batch):
        return model.init(key, batch["x"][:1], jnp.zeros(1), told(batch["labels"][:1]))

    def loss(params, key, batch):
        x, labels = batch["x"], batch["labels"]
        keys = jax.random.split(key, 4)
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - dropped))(example_keys(keys[0], x.shape[0]))
        denoising = losses(params, keys[1], x, jnp.where(kept[:, None], told(labels), 0.0))[0].mean()
        level = levels(keys[2], x.shape[0]).level
        found: Any = model.apply(params, diffusion.noised(x, level, keys[3])[0], level.time, method="regress")
        regression = jnp.mean((found - labels) ** 2)
        return denoising + regression, {"denoising": denoising, "regression": regression}

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=0)


@checked
def by_labels(
    decoder: Decoder,
    params: Any,
    grid: diffusion.Grid,
    x: Float[Array, "b h w c"],
    labels: Float[Array, "b n"],
    new_labels: Float[Array, "b n"],
    *,
    iterations: Natural = 2,
) -> Float[Array, "b h w c"]:
    """Inverted with the factual labels, decoded with the new ones; children follow only if theirs are new too."""
    factual = Conditioned(params, told(labels))
    noise = diffusion.invert(grid, Decoder(decoder.model), factual, x, iterations=iterations)
    return diffusion.sample(diffusion.ddim(grid), decoder, Conditioned(params, told(new_labels)), noise)


@checked
def by_classifier(
    decoder: Decoder,
    params: Any,
    grid: diffusion.Grid,
    x: Float[Array, "b h w c"],
    target: Float[Array, "b n"],
    is_wanted: Bool[Array, " n"],
    scale: Any,
    *,
    iterations: Natural = 2,
) -> Float[Array, "b h w c"]:
    """Diff-SCM: inverted without labels, decoded towards the wanted ones by the regressor's gradient."""
    none, plain = Conditioned(params, jnp.zeros_like(told(target))), Decoder(decoder.model)
    noise = diffusion.invert(grid, plain, none, x, iterations=iterations)

    def log_prob(params, query, wanted):
        time = jnp.broadcast_to(jnp.asarray(query.level.time, jnp.float32), query.x.shape[:1])
        found: Any = decoder.model.apply(params, query.x, time, method="regress")
        return -jnp.sum(jnp.where(is_wanted, (found - wanted) ** 2, 0.0), axis=1) / 2

    guided = diffusion.classifier(plain, log_prob)
    if decoder.limits is not None:
        guided = diffusion.clip_x0(guided, *decoder.limits)
    operands = diffusion.Classified(none, params, target, scale)
    return diffusion.sample(diffusion.ddim(grid), guided, operands, noise)
