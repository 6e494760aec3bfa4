"""An interval for the clusters' effects from whole refits: to random halves of the images, each from its own start."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from causal.treatment_effects import Clusters, Units, half_samples
from core.checks import Count, OpenFraction, checked
from core.stats import from_error


class Ensemble(NamedTuple):
    """Clusters' effects of members that were fitted to half-samples, ascending in each; labels match by that order."""

    mu: Float[Array, "members clusters"]

    @property
    def value(self) -> Float[Array, " clusters"]:
        """Means over members."""
        return self.mu.mean(0)

    @property
    def se(self) -> Float[Array, " clusters"]:
        """Standard errors of these means, sd sqrt(1 + 1/members).

        The sd over half-samples is the standard error of an estimate from all data (see :func:`half_samples`), which
        their mean misses by a further sd / sqrt(members).
        """
        return self.mu.std(0, ddof=1) * (1 + 1 / len(self.mu)) ** 0.5

    @checked
    def interval(self, level: OpenFraction = 0.95) -> tuple[Array, Array]:
        """Student's limits with members - 1 degrees of freedom.

        Raises:
          ConfigError: where ``level`` is no number between 0 and 1.
        """
        low, high = from_error(self.value, self.se, level, len(self.mu) - 1)
        return low, high


@checked
def half_sampled(key: Any, units: Units, members: Count) -> Units:
    """Units [runs, images, units] of ``members`` runs for each, [runs * members, ...], on halves of the images.

    An image is there with all of its units or with none; weights are doubled, so that they count as many as before.
    """
    runs, images, _ = units.weight.shape
    half = half_samples(key, Clusters.single(images), runs * members)
    t, y, weight = (jnp.repeat(leaf, members, axis=0) for leaf in units[1:])
    return Units(units.x, t, y, weight * (half * images / (images // 2))[..., None])
