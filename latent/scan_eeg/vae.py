"""The beta-VAE over event-related potentials, and how many of them are trained as one program.

    q(z|x) = N(mu(x), diag exp s(x)),   p(z) = N(0, I),   p(x|z) = N(dec(z), I)
    loss   = E_q[ 1/2 |x - dec(z)|^2 ] + beta KL(q(z|x) || p(z))

summed over channels, samples and latents, averaged over the batch. Honke et al. 2020, arXiv 2010.15274; Higgins et al.,
beta-VAE, ICLR 2017. beta is part of the batch, so that a grid of seeds and betas is one vmapped program.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from core import pools
from core.checks import Count, Natural, checked
from core.errors import ConfigError
from core.learner import (
    GradientLearner,
    Learner,
    Params,
    Stream,
    example_keys,
    gradient_learner,
    step_key,
    stream,
)
from core.pools import Pool
from latent.scan_eeg.gaussian import Gaussian, kl_to_prior

Padding = Literal["SAME", "VALID"]


@checked
class StridedConv(nn.Module):
    """y_t = b + sum_k W_k x_{s t + k - p} along time, s dividing the kernel.

    One matrix product over slices of blocks of s samples: XLA's convolutions are slow inside loops on the CPU, and with
    a kernel per model (vmapped seeds) become grouped ones.
    """

    features: Count
    kernel: Count = 6
    stride: Count = 2
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b time c"]) -> Float[Array, "b steps features"]:
        """The convolved signal; its length must be a multiple of the stride."""
        batch, time, channels = x.shape
        blocks = _blocks(self.kernel, self.stride, time)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.kernel, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        pad = _pad(self.kernel, self.stride, self.padding)
        x = jnp.pad(x, ((0, 0), (pad, pad), (0, 0))).reshape(batch, -1, self.stride * channels)
        steps = x.shape[1] - blocks + 1
        patches = jnp.concatenate([x[:, i : i + steps] for i in range(blocks)], axis=-1)
        return patches @ kernel.reshape(-1, self.features) + bias


@checked
class StridedTranspose(nn.Module):
    """The adjoint of :class:`StridedConv` as a layer: y_{s t + k - p} += W_k x_t."""

    features: Count
    kernel: Count = 6
    stride: Count = 2
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b steps c"]) -> Float[Array, "b time features"]:
        """The signal at ``stride`` times the rate."""
        batch, steps, channels = x.shape
        blocks = _blocks(self.kernel, self.stride, self.stride)
        start = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=1, batch_axis=())
        kernel = self.param("kernel", start, (self.kernel, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        spread = x @ kernel.transpose(1, 0, 2).reshape(channels, -1)
        spread = spread.reshape(batch, steps, blocks, self.stride * self.features)
        added = sum(jnp.pad(spread[:, :, i], ((0, 0), (i, blocks - 1 - i), (0, 0))) for i in range(blocks))
        pad = _pad(self.kernel, self.stride, self.padding)
        whole = jnp.reshape(added, (batch, -1, self.features))
        return whole[:, pad : whole.shape[1] - pad] + bias


def _blocks(kernel: int, stride: int, time: int) -> int:
    if kernel % stride or time % stride:
        raise ConfigError(f"kernel {kernel} and length {time} must be multiples of stride {stride}; crop or resample")
    return kernel // stride


def _pad(kernel: int, stride: int, padding: Padding) -> int:
    return (kernel - stride) // 2 if padding == "SAME" else 0


@checked
class Encoder(nn.Module):
    """Two convolutions, a dense layer and a linear head; also the trunk of the supervised network."""

    outputs: int
    features: Sequence[Count] = (32, 32)
    hidden: Count = 128
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b channels time"]) -> Float[Array, "b outputs"]:
        """What the head says."""
        x = x.transpose(0, 2, 1)
        for i, features in enumerate(self.features):
            x = nn.relu(StridedConv(features, padding=self.padding, name=f"conv{i + 1}")(x))
        x = x.transpose(0, 2, 1).reshape(x.shape[0], -1)
        return nn.Dense(self.outputs, name="head")(nn.relu(nn.Dense(self.hidden, name="dense")(x)))


@checked
class Decoder(nn.Module):
    """The encoder mirrored, with a linear output."""

    channels: Count
    time: Count
    features: Sequence[Count] = (32, 32)
    hidden: Count = 128
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, z: Float[Array, "b latents"]) -> Float[Array, "b channels time"]:
        """The mean of p(x|z)."""
        steps = self.time
        for _ in self.features:
            steps = steps // 2 if self.padding == "SAME" else (steps - 6) // 2 + 1
        x = nn.relu(nn.Dense(self.hidden, name="dense")(z))
        x = nn.relu(nn.Dense(steps * self.features[-1], name="unflatten")(x))
        x = x.reshape(z.shape[0], self.features[-1], steps).transpose(0, 2, 1)
        widths = (*reversed(self.features[:-1]), self.channels)
        for i, features in enumerate(widths):
            x = StridedTranspose(features, padding=self.padding, name=f"conv{i + 1}")(x)
            x = nn.relu(x) if i + 1 < len(widths) else x
        return x.transpose(0, 2, 1)


@checked
class BetaVae(nn.Module):
    """Encoder and decoder; ``features=(32, 6), padding="VALID"`` is the network of the re-implementations."""

    channels: Count = 6
    time: Count = 256
    latents: Count = 10
    features: Sequence[Count] = (32, 32)
    hidden: Count = 128
    padding: Padding = "SAME"

    def setup(self):
        """Declares both networks."""
        self.encoder = Encoder(2 * self.latents, self.features, self.hidden, self.padding)
        self.decoder = Decoder(self.channels, self.time, self.features, self.hidden, self.padding)

    def encode(self, x: Float[Array, "b channels time"]) -> Gaussian:
        """q(z|x)."""
        return Gaussian(*jnp.split(self.encoder(x), 2, axis=-1))

    def decode(self, z: Float[Array, "b latents"]) -> Float[Array, "b channels time"]:
        """The mean of p(x|z)."""
        return self.decoder(z)

    def reconstruct(self, x: Float[Array, "b channels time"]) -> Float[Array, "b channels time"]:
        """What is decoded from the mean of q(z|x)."""
        return self.decode(self.encode(x).mean)

    def __call__(self, x, noise: Float[Array, "b latents"]) -> tuple[Gaussian, Float[Array, "b channels time"]]:
        """q(z|x) and the decoded sample."""
        posterior = self.encode(x)
        return posterior, self.decode(posterior.at(noise))


class Erps(NamedTuple):
    """A batch: what is encoded, what is to be decoded, and how strictly."""

    x: Float[Array, "b channels time"]
    target: Float[Array, "b channels time"]
    """``x`` itself, or a cleaner recording of the same brain."""
    beta: Float[Array, ""]
    temperature: Float[Array, ""]
    """Scale of the noise in the latents: 1, or 0 for an autoencoder (with beta = 0)."""


BATCH_AXES = Erps(0, 0, None, None)  # pyright: ignore[reportArgumentType]


def beta_vae_loss(
    posterior: Gaussian, decoded: Float[Array, "b channels time"], target: Float[Array, "b channels time"], beta: Any
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss and its two parts, means over the batch; at beta = 1 the negative ELBO up to (n/2) log 2 pi."""
    reconstruction = jnp.mean(jnp.sum((target - decoded) ** 2, axis=(1, 2))) / 2
    divergence = jnp.mean(jnp.sum(kl_to_prior(posterior), axis=-1))
    return reconstruction + beta * divergence, {"reconstruction": reconstruction, "kl": divergence}


def vae_learner(model: BetaVae, tx: optax.GradientTransformation) -> GradientLearner:
    """Trains a beta-VAE on :class:`Erps`."""

    def init(key, batch: Erps):
        return model.init(key, batch.x[:1], jnp.zeros((1, model.latents)))

    def loss(params: Params, key, batch: Erps):
        noise = jax.vmap(lambda k: jax.random.normal(k, (model.latents,)))(example_keys(key, batch.x.shape[0]))
        made: Any = model.apply(params, batch.x, batch.temperature * noise)
        posterior, decoded = made
        return beta_vae_loss(posterior, decoded, batch.target, batch.beta)

    return gradient_learner(init, loss, tx, key_of=step_key, batch_axes=BATCH_AXES)


def pool(
    recordings: Float[Array, "worlds n channels time"], world: Int[Array, " models"], beta: Float[Array, " models"]
) -> Pool:
    """Models and what they are trained on: which of the sets of recordings and which beta each has, 0 for no noise."""
    return Pool(recordings, jnp.asarray(world), (beta, jnp.asarray(beta > 0, jnp.float32)))


@checked
def pool_learner(
    model: BetaVae, tx: optax.GradientTransformation, batch_size: Count, models: Count, at_once: Count | None = None
) -> Learner:
    """Trains beta-VAEs of different seeds, betas and recordings as one program, on a :func:`pool`.

    Args:
      model: the networks, of one size.
      tx: the optimiser.
      batch_size: recordings per step, drawn in shuffled epochs.
      models: how many.
      at_once: how many are vmapped, see :func:`core.learner.replicate_seeds`.
    """
    return pools.pool_learner(
        vae_learner(model, tx), lambda x, own: Erps(x, x, *own), runs=models, batch_size=batch_size,
        batch_axes=BATCH_AXES, at_once=at_once,
    )  # fmt: skip


class Trials(NamedTuple):
    """Recordings for training a denoiser."""

    single: Float[Array, "n trials channels time"]
    erp: Float[Array, "n channels time"]
    beta: Float[Array, ""]


@checked
def bootstrap_sampler(batch_size: Count) -> Callable[[Trials, Any, Any], Erps]:
    """ERPs of few trials as input, the full one as target: n ~ U{1..N} of N trials, drawn with replacement."""

    def sample(data: Trials, key, step) -> Erps:
        row_key, trial_key, count_key = jax.random.split(stream(key, Stream.EXAMPLES, step), 3)
        people, most = data.single.shape[:2]
        rows = jax.random.randint(row_key, (batch_size,), 0, people)
        drawn = jax.random.randint(trial_key, (batch_size, most), 0, most)
        count = jax.random.randint(count_key, (batch_size, 1), 1, most + 1)
        weight = (jnp.arange(most) < count) / count
        x = jnp.einsum("bn,bnct->bct", weight, data.single[rows[:, None], drawn])
        return Erps(x, data.erp[rows], data.beta, jnp.float32(1))

    return sample


@checked
def traversal(
    decode: Callable[[Array], Array], mean: Float[Array, " latents"], latent: Natural, values: Float[Array, " n"]
):
    """[n, channels, time]: what is decoded as one latent moves and the others stay."""
    return decode(jnp.tile(mean, (values.shape[0], 1)).at[:, latent].set(values))


class Labelled(NamedTuple):
    """A batch for the supervised network."""

    x: Float[Array, "b channels time"]
    labels: Int[Array, "b labels"]
    weight: Float[Array, "b labels"]
    """Of every example in the loss of every label, 1 / (2 share of its class) for balanced classes."""


def balanced_weight(labels: Int[Array, "n labels"]) -> Float[Array, "n labels"]:
    """1 / (2 share of the example's class)."""
    share = jnp.mean(labels, axis=0)
    return 0.5 / jnp.maximum(jnp.where(labels == 1, share, 1 - share), 1e-6)


def supervised_learner(model: Encoder, tx: optax.GradientTransformation) -> GradientLearner:
    """The encoder's network trained on the labels themselves, one logit each."""

    def loss(params: Params, key, batch: Labelled):
        logits = model.apply(params, batch.x)
        entropy = optax.sigmoid_binary_cross_entropy(logits, batch.labels)
        return jnp.mean(jnp.sum(batch.weight * entropy, axis=-1)), {}

    return gradient_learner(lambda key, batch: model.init(key, batch.x[:1]), loss, tx, batch_axes=0)
