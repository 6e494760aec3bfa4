r"""Causal diffusion autoencoders: counterfactual images under a known causal graph.

Komanduri, Zhao, Chen, Wu, Causal Diffusion Autoencoders, ECAI 2024, arXiv 2404.17735. An image x_0 has a code of n
blocks of k numbers, one per causal variable. The encoder gives exogenous u ~ N(mu(x_0), v(x_0)); mechanisms along a
known graph turn u into z, in topological order z_i = f_i(z_parents) + u_i (:mod:`causal.mechanisms`); a diffusion model
denoises, given z. A counterfactual takes three steps: *abduction* of u and of the noise x_T (by inverting the sampler),
*action* (z_i := c_i), *prediction* (descendants recomputed with the same u; x_T decoded with the new z).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from causal.mechanisms import Intervention, do, settled, stacked
from core.checks import Count, Fraction, Natural, checked
from core.conv import Conv
from core.learner import GradientLearner, Loss, example_keys, gradient_learner, mean_over_devices, step_key
from latent import diffusion
from latent.diffusion import Conditioned, Guided
from latent.unet import TimeEmbedding, UNet

Prediction = Literal["eps", "v"]
WEIGHTINGS = {"eps": diffusion.simple, "v": diffusion.velocity}
"""Which leave the error of what is predicted unweighted."""


class Code(NamedTuple):
    """The encoder's posterior over exogenous variables."""

    mean: Float[Array, "b n k"]
    variance: Float[Array, "b n k"]


@checked
class MlpEncoder(nn.Module):
    """For small images."""

    n: Count
    """Variables."""
    block: Count
    """k, the width of a variable's block."""
    widths: Sequence[Count] = (128, 128)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Code:
        """Means and variances of u."""
        h = x.reshape(x.shape[0], -1)
        for width in self.widths:
            h = nn.silu(nn.Dense(width)(h))
        return _code(h, self.n, self.block)


@checked
class ConvEncoder(nn.Module):
    """Stride-two convolutions with GroupNorm, down to a small map."""

    n: Count
    """Variables."""
    block: Count
    """k, the width of a variable's block."""
    widths: Sequence[Count] = (16, 32, 64, 128)
    groups: Count = 8

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Code:
        """Means and variances of u."""
        for width in self.widths:
            x = nn.leaky_relu(nn.GroupNorm(self.groups)(Conv(width, stride=2)(x)))
        return _code(x.reshape(x.shape[0], -1), self.n, self.block)


def _code(h: Array, variables: int, block: int) -> Code:
    shape = (h.shape[0], variables, block)
    mean = nn.Dense(variables * block, name="mean")(h).reshape(shape)
    return Code(mean, (nn.softplus(nn.Dense(variables * block, name="variance")(h)) + 1e-8).reshape(shape))


@checked
class UNetDenoiser(nn.Module):
    """The U-Net of the paper, told the time and a code; with its defaults the published one for 28 x 28 pixels."""

    out_channels: Count = 1
    channels: Sequence[Count] = (128, 256, 256)
    blocks: Count = 3
    attention: Sequence[int] = (0,)
    heads: Count = 4
    groups: Count = 32
    middle_attention: bool = True
    embedding: Count = 512
    frequencies: Count = 128

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], time: Float[Array, " b"], cond: Float[Array, "b d"] | None) -> Array:
        """The raw prediction."""
        emb = TimeEmbedding(self.embedding, self.frequencies)(time, cond)
        return UNet(
            self.out_channels, self.channels, self.blocks, self.attention, self.heads, groups=self.groups,
            middle_attention=self.middle_attention,
        )(x, emb)  # fmt: skip


@checked
class CausalDiffAE(nn.Module):
    """Encoder, mechanisms and denoiser; without mechanisms a diffusion autoencoder (Preechakul et al. 2022)."""

    encoder: nn.Module
    """``x -> Code``."""
    denoiser: nn.Module
    """``(x, time, cond [b, n k]) -> raw``."""
    layer: nn.Module | None = None
    prediction: Prediction = "eps"
    """What the denoiser puts out: eps as in the paper, or v = a eps - s x_0, which a small network learns sooner."""

    def __call__(self, x: Float[Array, "b h w c"], time: Float[Array, " b"]) -> Array:
        """The raw prediction with the code of the image itself."""
        return self.denoise(x, time, self.code(self.encode(x).mean))

    def encode(self, x: Float[Array, "b h w c"]) -> Code:
        """The posterior of u."""
        return self.encoder(x)

    def code(self, u: Float[Array, "b n k"], intervention: Intervention | None = None) -> Float[Array, "b n k"]:
        """Z of exogenous variables, under an intervention if one is given."""
        if self.layer is not None:
            return self.layer(u, intervention)
        return u if intervention is None else settled(u, intervention, range(u.shape[1]))

    def denoise(self, x: Float[Array, "b h w c"], time: Float[Array, " b"], z: Float[Array, "b n k"]) -> Array:
        """The raw prediction with a given code; zeros stand for no code."""
        return self.denoiser(x, time, z.reshape(z.shape[0], -1))


# --- the objective ----------------------------------------------------------------------------------------------------


def kl_to_standard(code: Code) -> Float[Array, " b"]:
    """KL(q(u | x) || N(0, I)), summed over the code."""
    terms = code.variance + code.mean**2 - 1 - jnp.log(code.variance)
    return jnp.sum(terms, axis=(1, 2)) / 2


def label_divergence(z: Float[Array, "b n k"], labels: Float[Array, "b n"]) -> Float[Array, " b"]:
    """sum_i KL(N(z_i, I) || N(y_i 1, I)) = sum_i |z_i - y_i 1|^2 / 2: blocks are pulled to their labels."""
    return jnp.sum((z - labels[..., None]) ** 2, axis=(1, 2)) / 2


def masked_mean(values: Float[Array, " b"], mask: Bool[Array, " b"]) -> Float[Array, ""]:
    """The mean over the examples of a mask; 0, with zero gradient, where it is empty.

    Under a bound data axis each replica divides by the mean count, so that the mean over replicas is the global one.
    """
    count = mean_over_devices(jnp.sum(mask).astype(jnp.float32))
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(count, 1e-6)


@checked
def ramp(step: Any, steps: Natural, largest: Any = 1.0) -> Any:
    """gamma: from 0 at step 0 linearly to its largest value at ``steps``, constant after that."""
    return largest * jnp.minimum(jnp.asarray(step, jnp.float32) / max(steps, 1), 1.0)


@checked
def sample_code(key: Key[Array, ""], code: Code, share: Fraction = 1e-3) -> Float[Array, "b n k"]:
    """U ~ N(mean, share x variance)."""
    return code.mean + jnp.sqrt(share * code.variance) * jax.random.normal(key, code.mean.shape)


@checked
def objective(
    model: CausalDiffAE,
    levels: diffusion.Levels,
    *,
    dropped: Fraction = 0.5,
    share: Fraction = 1e-3,
) -> Loss:
    """|eps - eps^(x_t, t, z)|^2 (or that of v) + gamma (KL(q(u | x) || N(0, I)) + label divergence of z).

    The first term is a mean over pixels, the divergences are sums over the code and means over the examples that keep
    theirs. Examples without labels, and a share ``dropped`` of the others, are given no code (classifier-free
    training) and no divergence.

    Args:
      model: any.
      levels: which noise levels to train on.
      dropped: probability of leaving out the code.
      share: factor of the posterior variance with which codes are drawn.

    Returns:
      A loss of batches ``{"x", "labels" [b, n], "labelled" [b], "gamma" [] or [2]}``. Two numbers are apart for the
      two divergences: (1, 0) trains an autoencoder whose blocks are not aligned with labels.
    """
    losses = diffusion.denoising_loss(
        functools.partial(model.apply, method="denoise"), levels, model.prediction, WEIGHTINGS[model.prediction]
    )

    def loss(params, key, batch):
        code_key, drop_key, noise_key = jax.random.split(key, 3)
        code: Any = model.apply(params, batch["x"], method="encode")
        u = jax.vmap(sample_code, in_axes=(0, 0, None))(example_keys(code_key, code.mean.shape[0]), code, share)
        z: Any = model.apply(params, u, method="code")
        kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - dropped))(example_keys(drop_key, code.mean.shape[0]))
        kept &= batch["labelled"]
        cond = jnp.where(kept[:, None, None], z, 0.0)
        denoising = jnp.mean(losses(params, noise_key, batch["x"], cond)[0])
        prior = masked_mean(kl_to_standard(code), kept)
        in_order: Any = model.apply(params, code.mean, method="code")
        label = masked_mean(label_divergence(in_order, batch["labels"]), kept)
        total = denoising + jnp.sum(batch["gamma"] * jnp.stack([prior, label]))
        return total, {"denoising": denoising, "prior": prior, "label": label}

    return loss


@checked
def learner(
    model: CausalDiffAE, levels: diffusion.Levels, tx: optax.GradientTransformation, *, dropped: Fraction = 0.5
) -> GradientLearner:
    """Trains on batches of :func:`objective`."""

    def init(key, batch):
        return model.init(key, batch["x"][:1], jnp.zeros(1))

    loss = objective(model, levels, dropped=dropped)
    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=BATCH_AXES)


BATCH_AXES = {"x": 0, "labels": 0, "labelled": 0, "gamma": None}


# --- counterfactuals --------------------------------------------------------------------------------------------------

Abduction = Literal["ddim", "ddim_fixed_point", "noise"]
"""Where x_T comes from: DDIM inversion, its fixed point, or fresh noise (style is then not abducted)."""


class Abducted(NamedTuple):
    """What is inferred of an image before anything is changed."""

    u: Float[Array, "b n k"]
    noise: Float[Array, "b h w c"]
    """x_T."""


@checked
@dataclasses.dataclass(frozen=True)
class Decoder:
    """A model as a denoiser of diffusion; equal models are equal, so that compiled programs are found again."""

    model: Any
    """A module with a method ``denoise`` and a field ``prediction``."""
    limits: tuple[float, float] | None = None
    """Range to which estimates of x_0 are clipped."""
    guided: bool = False
    """Takes :class:`latent.diffusion.Guided` operands, :class:`latent.diffusion.Conditioned` otherwise."""

    def __call__(self, operands: Any, query: diffusion.Query) -> diffusion.Prediction:
        """The estimates of x_0 and of the noise."""
        denoise = diffusion.denoiser(functools.partial(self.model.apply, method="denoise"), self.model.prediction)
        if self.guided:
            denoise = diffusion.cfg(denoise)
        if self.limits is not None:
            denoise = diffusion.clip_x0(denoise, *self.limits)
        return denoise(operands, query)


@checked
def abduct(
    model: CausalDiffAE,
    params: Any,
    grid: diffusion.Grid,
    x: Float[Array, "b h w c"],
    mode: Abduction = "ddim_fixed_point",
    *,
    key: Any = None,
    iterations: Natural = 3,
) -> Abducted:
    """Step one: u is the posterior's mean, x_T the noise which the factual code decodes to the image.

    Raises:
      ValueError: where fresh noise is asked for without a key.
    """
    code: Any = model.apply(params, x, method="encode")
    if mode == "noise":
        if key is None:
            raise ValueError("abduction by fresh noise needs a key")
        return Abducted(code.mean, diffusion.starting_noise(key, x.shape))
    operands = Conditioned(params, model.apply(params, code.mean, method="code"))
    how = "explicit" if mode == "ddim" else "fixed_point"
    noise = diffusion.invert(grid, Decoder(model), operands, x, how, iterations=iterations)
    return Abducted(code.mean, noise)


@checked
def predict(
    model: CausalDiffAE,
    params: Any,
    grid: diffusion.Grid,
    abducted: Abducted,
    intervention: Intervention | None = None,
    *,
    weight: Any = None,
    limits: tuple[float, float] | None = (-1.0, 1.0),
) -> Float[Array, "b h w c"]:
    """Steps two and three: descendants recomputed from the same u, x_T decoded with the new code by DDIM.

    Args:
      model: the model.
      params: its parameters.
      grid: the grid of the abduction.
      abducted: what :func:`abduct` found; serves any number of interventions.
      intervention: None decodes the factual code.
      weight: of classifier-free guidance, at twice the cost; 0 ignores the code, above 1 exaggerates it. None is 1.
      limits: range of the data, to which estimates of x_0 are clipped; None clips nothing.
    """
    z: Any = model.apply(params, abducted.u, intervention, method="code")
    operands = Conditioned(params, z) if weight is None else Guided(Conditioned(params, z), weight)
    decoder = Decoder(model, limits, weight is not None)
    return diffusion.sample(diffusion.ddim(grid), decoder, operands, abducted.noise)


def predict_all(
    model: CausalDiffAE,
    params: Any,
    grid: diffusion.Grid,
    abducted: Abducted,
    interventions: Intervention,
    **settings: Any,
) -> Float[Array, "m b h w c"]:
    """M interventions ([m, b, n], see :func:`causal.mechanisms.stacked`) on each image, as one batch of decodes."""
    m, b, n = interventions.is_set.shape
    repeated = jax.tree.map(lambda leaf: jnp.tile(leaf, (m, *[1] * (leaf.ndim - 1))), abducted)
    flat = jax.tree.map(lambda leaf: leaf.reshape(m * b, n), interventions)
    return predict(model, params, grid, repeated, flat, **settings).reshape(m, *abducted.noise.shape)


@checked
def null_intervention(
    model: CausalDiffAE, params: Any, grid: diffusion.Grid, x: Float[Array, "b h w c"], iterations: Natural = 2
) -> Float[Array, "b h w c"]:
    """The images after nothing was changed: an exact model gives them back."""
    return predict(model, params, grid, abduct(model, params, grid, x, iterations=iterations))


@checked
def inversion_error(
    model: CausalDiffAE, params: Any, grid: diffusion.Grid, x: Float[Array, "b h w c"], mode: diffusion.InversionMode
) -> Float[Array, ""]:
    """Squared error, in [0, 1] units, of a null intervention without clipping, by mode of inversion."""
    code: Any = model.apply(params, x, method="encode")
    operands = Conditioned(params, model.apply(params, code.mean, method="code"))
    decoder = Decoder(model)
    noise = diffusion.invert(grid, decoder, operands, x, mode)
    plan = diffusion.heun(grid) if mode == "heun" else diffusion.ddim(grid)
    return jnp.mean((diffusion.sample(plan, decoder, operands, noise) - x) ** 2) / 4


@checked
def traverse(
    model: CausalDiffAE,
    params: Any,
    grid: diffusion.Grid,
    x: Float[Array, "b h w c"],
    places: Sequence[float],
    n: Count = 2,
) -> Float[Array, "n places b h w c"]:
    """Images with each of n variables, one after another, set to each of some places."""
    settings = [do(n, {variable: place}) for variable in range(n) for place in places]
    found = abduct(model, params, grid, x, iterations=2)
    images = predict_all(model, params, grid, found, stacked(settings, len(x)))
    return images.reshape(n, len(places), *x.shape)
