"""Gaussians with diagonal covariance: q = N(mean, diag exp(logvar))."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from core.learner import DATA_AXIS, axis_is_bound, local_share


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


def example_normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Normal numbers for examples along axis 0; under a bound data axis, this replica's of the global batch."""
    return _example_draws(jax.random.normal, key, shape)


def example_bernoulli(key: Key[Array, ""], shape: tuple[int, ...], p: float = 0.5) -> Float[Array, "..."]:
    """Zeros and ones for examples along axis 0; under a bound data axis, this replica's of the global batch."""
    return (_example_draws(jax.random.uniform, key, shape) < p).astype(jnp.float32)


def _example_draws(draw, key, shape):
    if not axis_is_bound():
        return draw(key, shape)
    return local_share(draw(key, (shape[0] * jax.lax.axis_size(DATA_AXIS), *shape[1:])))
