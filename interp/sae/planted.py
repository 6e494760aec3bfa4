r"""Planted dictionaries: data whose features are known.

x = sum_i a_i D_i + N(0, noise^2), rows of D of norm 1, feature i present with probability p_i (decreasing linearly by a
factor of 9 from first to last, sum p_i = 6), a_i ~ U(0.5, 1.5).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, NonNegative, Positive, checked
from core.errors import ConfigError
from core.learner import Stream, stream


class Planted(NamedTuple):
    """A dictionary and how its features occur."""

    directions: Float[Array, "f d"]
    probabilities: Float[Array, " f"]
    parent: Int[Array, " f"]
    """The feature that must be present for this one to be; -1 for none."""
    noise: Float[Array, ""]


@checked
def planted(
    key: Any, features: Count = 128, d: Count = 32, active: Positive = 6.0, noise: NonNegative = 0.01
) -> Planted:
    """Unit Gaussian directions and independent features, ``active`` of them in an example on average.

    Raises:
      ConfigError: where the commonest feature would have to be present more often than always.
    """
    D = jax.random.normal(key, (features, d))
    p = jnp.linspace(9.0, 1.0, features)
    if active * 9.0 > 5.0 * features:  # the first probability, by the sum of the p
        raise ConfigError(f"planted: {active:g} of {features} features cannot be active on average; lower active")
    probabilities = active * p / jnp.sum(p)
    return Planted(
        D / jnp.linalg.norm(D, axis=1, keepdims=True), probabilities, jnp.full(features, -1), jnp.float32(noise)
    )


@checked
def hierarchy(key: Any, roots: Count = 16, children: Count = 3, d: Count = 32, active: Positive = 3.0) -> Planted:
    """``roots`` features with ``children`` each, of which one in three is present where the root is."""
    flat = planted(key, roots * (1 + children), d)
    parent = jnp.concatenate([jnp.full(roots, -1), jnp.repeat(jnp.arange(roots), children)])
    return flat._replace(probabilities=jnp.where(parent < 0, active / roots, 1 / 3), parent=parent)


@checked
def present(world: Planted, key: Any, count: Count) -> Bool[Array, "count f"]:
    """Which features each of some examples has."""
    drawn = jax.random.uniform(key, (count, world.probabilities.shape[0])) < world.probabilities
    return drawn & jnp.where(world.parent < 0, True, drawn[:, world.parent])


@checked
def draw(world: Planted, key: Any, count: Count) -> tuple[Float[Array, "count d"], Bool[Array, "count f"]]:
    """Examples and the features that they have."""
    which, amount, disturbance = jax.random.split(key, 3)
    has = present(world, which, count)
    amplitudes = jax.random.uniform(amount, has.shape, minval=0.5, maxval=1.5)
    x = jnp.where(has, amplitudes, 0.0) @ world.directions
    return x + world.noise * jax.random.normal(disturbance, x.shape), has


@checked
def sampler(batch_size: Count):
    """For :func:`core.learner.with_sampler`: fresh examples at every step; the data are the world."""

    def sample(world: Planted, key: Any, step: Int[Array, ""]) -> Float[Array, "b d"]:
        return draw(world, stream(key, Stream.EXAMPLES, step), batch_size)[0]

    return sample
