"""Autoencoders: any networks x -> phi(x) in R^d -> x will do, for the restriction sees codes and actions only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import Count, checked
from core.learner import Params
from core.patches import patches, unpatched


@checked
class Mlp(nn.Module):
    """Dense layers with leaky ReLU between them."""

    outputs: int
    hidden: Sequence[Count] = (64, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
        """The last layer is linear."""
        for i, width in enumerate(self.hidden):
            x = nn.leaky_relu(nn.Dense(width, name=f"dense{i}")(x), 0.01)
        return nn.Dense(self.outputs, name="head")(x)


@checked
class PatchEncoder(nn.Module):
    """Two convolutions over patches that do not overlap, as matrix products, and a dense layer; for square images."""

    outputs: int
    size: Count = 32
    features: Sequence[Count] = (16, 32)
    hidden: Count = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n pixels"]) -> Float[Array, "n outputs"]:
        """The code of flattened images."""
        x = x.reshape(len(x), self.size, self.size, 1)
        for i, width in enumerate(self.features):
            x = nn.leaky_relu(nn.Dense(width, name=f"patch{i}")(patches(x, 4, 4)), 0.01)
        x = nn.leaky_relu(nn.Dense(self.hidden, name="dense")(x.reshape(len(x), -1)), 0.01)
        return nn.Dense(self.outputs, name="head")(x)


@checked
class PatchDecoder(nn.Module):
    """The encoder mirrored."""

    size: Count = 32
    features: Sequence[Count] = (16, 32)
    hidden: Count = 64

    @nn.compact
    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n pixels"]:
        """Flattened images."""
        side = self.size // 4 ** len(self.features)
        x = nn.leaky_relu(nn.Dense(self.hidden, name="dense")(z), 0.01)
        x = nn.Dense(side**2 * self.features[-1], name="unflatten")(x)
        x = nn.leaky_relu(x, 0.01).reshape(len(z), side, side, self.features[-1])
        widths = (*reversed(self.features[:-1]), 1)
        for i, width in enumerate(widths):
            x = unpatched(nn.Dense(16 * width, name=f"patch{i}")(x), 4)
            x = nn.leaky_relu(x, 0.01) if i + 1 < len(widths) else x
        return x.reshape(len(z), -1)


class Coded(NamedTuple):
    """What an autoencoder makes of a batch."""

    code: Float[Array, "n d"]
    decoded: Float[Array, "n m"]
    divergence: Float[Array, ""]
    """Mean KL(q(z|x) || p(z)), 0 without a posterior."""


@checked
class Autoencoder(nn.Module):
    """phi and eta: R^m -> R^d -> R^m."""

    d: Count
    m: Count
    hidden: Sequence[Count] = (64, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "n m"], a: Float[Array, "n k"], noise: Float[Array, "n d"]) -> Coded:
        """A deterministic code."""
        code = Mlp(self.d, self.hidden, name="encoder")(x)
        return Coded(code, Mlp(self.m, self.hidden, name="decoder")(code), jnp.zeros((), x.dtype))


@checked
class ImageAutoencoder(nn.Module):
    """The same for flattened images of 32 x 32."""

    d: Count

    @nn.compact
    def __call__(self, x: Float[Array, "n 1024"], a: Float[Array, "n k"], noise: Float[Array, "n d"]) -> Coded:
        """A deterministic code."""
        code = PatchEncoder(self.d, name="encoder")(x)
        return Coded(code, PatchDecoder(name="decoder")(code), jnp.zeros((), x.dtype))


@checked
class Vae(nn.Module):
    """q(z|x) = N(mu(x), diag exp s(x)), p(z) = N(0, I); with ``auxiliary`` the iVAE of Khemakhem et al. (AISTATS 2020).

    The iVAE has q(z|x, a) and p(z|a) = N(mu(a), diag exp s(a)).
    """

    d: Count
    m: Count
    hidden: Sequence[Count] = (64, 64)
    auxiliary: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n m"], a: Float[Array, "n k"], noise: Float[Array, "n d"]) -> Coded:
        """The posterior mean as code, a decoded sample."""
        seen = jnp.concatenate([x, a], axis=1) if self.auxiliary else x
        mean, logvar = jnp.split(Mlp(2 * self.d, self.hidden, name="encoder")(seen), 2, axis=1)
        prior = Mlp(2 * self.d, self.hidden, name="prior")(a) if self.auxiliary else jnp.zeros((len(x), 2 * self.d))
        prior_mean, prior_logvar = jnp.split(prior, 2, axis=1)
        ratio = jnp.exp(logvar - prior_logvar) + (mean - prior_mean) ** 2 * jnp.exp(-prior_logvar)
        divergence = (ratio - 1 - logvar + prior_logvar).sum(axis=1).mean() / 2
        sample = mean + jnp.exp(logvar / 2) * noise
        return Coded(mean, Mlp(self.m, self.hidden, name="decoder")(sample), divergence)


Coder = Autoencoder | ImageAutoencoder | Vae
"""``apply(params, x, a, noise)`` gives :class:`Coded`; actions and noise are for those that use them."""


def encode(coder: Coder, params: Params, x: Array, a: Array) -> Float[Array, "n d"]:
    """Codes of standardised rows; no noise is drawn."""
    coded: Any = coder.apply(params, x, a, jnp.zeros((len(x), coder.d)))
    return coded.code
