"""Which segments of an image move its cluster probability: gradients of the log odds, averaged over boxes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from core.checks import Count, NonNegative, checked


class Sensitivity(NamedTuple):
    """Maps over an image, smaller than it by the box less one."""

    magnitude: Float[Array, "rows columns"]
    direction: Float[Array, "rows columns"]
    """Positive where brighter pixels make the cluster more probable."""


@checked
def smoothed_log_odds(p: Float[Array, "..."], clusters: Count, smoothing: NonNegative = 0.01) -> Float[Array, "..."]:
    """log(pt / (1 - pt)) with pt = (1 - smoothing) p + smoothing / K: finite where p is 0 or 1."""
    pt = (1 - smoothing) * p + smoothing / clusters
    return jnp.log(pt) - jnp.log1p(-pt)


@checked
def sensitivity(
    probability: Callable[[Array], Array],
    image: Float[Array, "h w c"],
    clusters: Count = 2,
    box: Count = 10,
    smoothing: NonNegative = 0.01,
) -> Sensitivity:
    """Gradients of the log odds of a cluster's predictive probability, after the authors' code of 2023.

    Magnitude: box mean of sqrt(sum_c (G_c + 1e-7)^2); direction: box mean of mean_c G_c.

    Args:
      probability: image to the cluster's probability, averaged over draws of the weights.
      image: at which.
      clusters: how many there are.
      box: side of the segments.
      smoothing: see :func:`smoothed_log_odds`.
    """
    G = jax.grad(lambda m: smoothed_log_odds(probability(m), clusters, smoothing))(image)
    return Sensitivity(box_mean(jnp.sqrt(jnp.square(G + 1e-7).sum(-1)), box), box_mean(G.mean(-1), box))


@checked
def box_mean(values: Float[Array, "h w"], size: Count) -> Float[Array, "rows columns"]:
    """Means over all squares of a side that lie in the image."""
    total = jax.lax.reduce_window(values, 0.0, jax.lax.add, (size, size), (1, 1), "VALID")
    return total / size**2


@checked
def by_segment(values: Float[Array, "h w"], segment: Int[Array, "h w"], segments: Count) -> Float[Array, " segments"]:
    """Means over given segments of the image."""
    total, count = (jax.ops.segment_sum(v.ravel(), segment.ravel(), segments) for v in (values, jnp.ones_like(values)))
    return total / jnp.maximum(count, 1)
