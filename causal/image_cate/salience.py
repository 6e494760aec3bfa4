"""Which segments of an image move its cluster probability: gradients of the log odds, averaged over boxes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from causal.image_cate.designs import response_map
from causal.image_cate.model import ClusterModel
from causal.image_cate.posterior import cluster_posterior
from causal.treatment_effects import with_population
from core.checks import Count, NonNegative, checked
from core.learner import Params


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
def model_sensitivity(
    key: Any, model: ClusterModel, params: Params, reference: Array, x: Float[Array, "images h w c"], draws: Count = 20
) -> Sensitivity:
    """Maps of images for the cluster of the largest effect, its probability averaged over draws of the weights.

    Args:
      key: of the draws.
      model: the model.
      params: as trained.
      reference: images (or patches) whose features standardise all others': those of the training.
      x: images asked about.
      draws: of the weights.
    """
    keys, last = jax.random.split(key, draws), cluster_posterior(params).order[-1]
    population = reference.astype(jnp.float32)
    drawn = jax.lax.map(lambda k: with_population(model.network, params, population, rngs={"weights": k}), keys)

    def probability(image):
        one = lambda v, k: jax.nn.softmax(model.outputs(v, k, image[None]).logits[0])[last]  # noqa: E731
        return jax.vmap(one)(drawn, keys).mean()

    return jax.lax.map(lambda image: sensitivity(probability, image, model.network.clusters), x)


@checked
def box_mean(values: Float[Array, "h w"], size: Count) -> Float[Array, "rows columns"]:
    """Means over all squares of a side that lie in the image."""
    total = jax.lax.reduce_window(values, 0.0, jax.lax.add, (size, size), (1, 1), "VALID")
    return total / size**2


@checked
def response_boxes(
    images: Float[np.ndarray, "images h w c"], size: Count = 10
) -> Float[np.ndarray, "images rows cols"]:
    """Box means of the absolute response that simulated effects are made from (:func:`response_map`), of band 0."""
    padded = np.pad(np.abs(response_map(images[..., 0])), ((0, 0), (3, 3), (3, 3)))
    return np.asarray(jax.vmap(lambda r: box_mean(r, size))(jnp.asarray(padded, jnp.float32)))


@checked
def by_segment(values: Float[Array, "h w"], segment: Int[Array, "h w"], segments: Count) -> Float[Array, " segments"]:
    """Means over given segments of the image."""
    total, count = (jax.ops.segment_sum(v.ravel(), segment.ravel(), segments) for v in (values, jnp.ones_like(values)))
    return total / jnp.maximum(count, 1)
