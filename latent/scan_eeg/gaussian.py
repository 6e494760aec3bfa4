"""Gaussians with diagonal covariance: q = N(mean, diag exp(logvar))."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Gaussian(NamedTuple):
    """Independent normals, one per latent."""

    mean: Float[Array, "*b latents"]
    logvar: Float[Array, "*b latents"]

    def at(self, noise: Float[Array, "*b latents"]) -> Float[Array, "*b latents"]:
        """The point mean + std * noise."""
        return self.mean + jnp.exp(self.logvar / 2) * noise


def kl(q: Gaussian, p: Gaussian) -> Float[Array, "*b latents"]:
    """KL(q || p) of every latent: 1/2 (s_p - s_q + (exp s_q + (mu_q - mu_p)^2) exp(-s_p) - 1)."""
    ratio = q.logvar - p.logvar
    return (jnp.expm1(ratio) - ratio + (q.mean - p.mean) ** 2 * jnp.exp(-p.logvar)) / 2


def kl_to_prior(q: Gaussian) -> Float[Array, "*b latents"]:
    """KL(q || N(0, 1)) of every latent: 1/2 (mu^2 + exp s - s - 1)."""
    return (jnp.expm1(q.logvar) - q.logvar + q.mean**2) / 2
