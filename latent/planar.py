"""Data in the plane for trying generative models, and how far samples are from them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real

from core.checks import Count, checked
from core.errors import ConfigError


@checked
def ring(key: Key[Array, ""], count: Count) -> Float[Array, "count 2"]:
    """Eight Gaussians of deviation 0.1 on a circle of radius 1.5."""
    which, noise = jax.random.split(key)
    angle = jax.random.randint(which, (count,), 0, 8) * (jnp.pi / 4)
    return 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) + 0.1 * jax.random.normal(noise, (count, 2))


@checked
def sliced_wasserstein(
    a: Real[np.ndarray, "n d"], b: Real[np.ndarray, "m d"], directions: Real[np.ndarray, "d p"]
) -> float:
    """Mean over directions of the first Wasserstein distance of the projections.

    Raises:
      ConfigError: where the samples are not of one size.
    """
    if len(a) != len(b):
        raise ConfigError(f"sliced_wasserstein: a has {len(a)} rows and b {len(b)}; draw as many")
    return float(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())
