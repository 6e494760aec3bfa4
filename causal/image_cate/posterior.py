"""What a fitted effect cluster model predicts: clusters and effects of images, and their transport to other places."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from causal.image_cate.layers import posteriors
from causal.image_cate.model import ClusterModel, draw_effects, mixture_log_density
from causal.image_cate.network import Outputs
from causal.treatment_effects import Units, with_population
from core.checks import Count, checked
from core.learner import Params


class Posterior(NamedTuple):
    """The clusters' parameters after training, clusters in ascending order of their effect."""

    order: Array
    """Where each stood before."""
    mu: Array
    mu_sd: Array
    """Of the mean-field posterior."""
    sigma0: Array
    sigma1: Array


def cluster_posterior(params: Params) -> Posterior:
    """Means and sds of the clusters' parameters."""
    q = posteriors(params["params"]["clusters"])[("mu",)]
    effects, order = draw_effects(params), jnp.argsort(q.mean)
    return Posterior(order, q.mean[order], q.sd[order], effects.sigma0[order], effects.sigma1[order])


class Predicted(NamedTuple):
    """Draws of what the networks and clusters say of images; clusters in ascending order of their effect."""

    p: Float[Array, "draws images clusters"]
    """p(z | image)."""
    effect: Float[Array, "draws images"]
    """Image CATE, sum_z p(z | image) mu_z."""
    baseline: Float[Array, "draws images"]


@checked
def predict(
    model: ClusterModel,
    params: Params,
    reference: Array,
    key: Any = None,
    draws: Count = 20,
    x: Array | None = None,
    chunk: Count = 256,
) -> Predicted:
    """The posterior predictive of images.

    Args:
      model: the model.
      params: as trained.
      reference: images (or patches) whose features standardise all others': those of the training.
      key: of the draws; the posterior means are used where it is None.
      draws: of weights and clusters' parameters.
      x: images (or patches) asked about, in chunks, so that memory does not depend on how many there are; the
        reference itself if None.
      chunk: images at once.
    """
    order = jnp.argsort(posteriors(params["params"]["clusters"])[("mu",)].mean)

    def draw(key) -> Predicted:
        network_key, cluster_key = (None, None) if key is None else jax.random.split(key)
        rngs = {} if network_key is None else {"weights": network_key}
        own: Any = model.network.apply(params, reference.astype(jnp.float32), mutable=["population"], rngs=rngs)
        mu = draw_effects(params, cluster_key).mu
        if x is None:
            return _predicted(own[0], mu, order)
        variables = {**params, **own[1]}

        def of(image):
            found = _predicted(model.outputs(variables, network_key, image[None].astype(jnp.float32)), mu, order)
            return jax.tree.map(lambda leaf: leaf[0], found)

        return jax.lax.map(of, x, batch_size=chunk)

    if key is None:
        return jax.tree.map(lambda leaf: leaf[None], draw(None))
    return jax.lax.map(draw, jax.random.split(key, draws))


def _predicted(found: Outputs, mu: Array, order: Array) -> Predicted:
    p = jax.nn.softmax(found.logits)
    effects = mu if found.effects is None else mu + found.effects
    return Predicted(p[:, order], (p * effects).sum(-1), found.baseline)


def held_out_log_likelihood(model: ClusterModel, params: Params, reference: Array, units: Units) -> Float[Array, ""]:
    """Mean log density of the outcomes of units at the posterior means."""
    variables = with_population(model.network, params, reference.astype(jnp.float32))
    each = mixture_log_density(
        model.outputs(variables, None, units.x.astype(jnp.float32)), draw_effects(params), units.t, units.y
    )
    return (units.weight * each).sum() / units.weight.sum()


class Mixture(NamedTuple):
    """Normal mixtures, along the last axis."""

    weight: Float[Array, "... clusters"]
    mean: Float[Array, "... clusters"]
    sd: Float[Array, "... clusters"]

    def cdf(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """P(X <= x)."""
        return (self.weight * norm.cdf(x[..., None], self.mean, self.sd)).sum(-1)

    def moments(self) -> tuple[Array, Array]:
        """Mean and sd."""
        mean = (self.weight * self.mean).sum(-1)
        square = (self.weight * (self.sd**2 + (self.mean - mean[..., None]) ** 2)).sum(-1)
        return mean, jnp.sqrt(square)


def quantile(mixture: Mixture, u: Float[Array, "..."] | float, iterations: int = 60) -> Float[Array, "..."]:
    """The x with CDF(x) = u by bisection, which starts from the least and the largest quantile of the components."""
    u = jnp.broadcast_to(jnp.asarray(u, mixture.mean.dtype), mixture.mean.shape[:-1])
    each = norm.ppf(u[..., None], mixture.mean, mixture.sd)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = mixture.cdf(middle) < u
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, iterations, halve, (each.min(-1), each.max(-1)))
    return (low + high) / 2


class Transported(NamedTuple):
    """Effects at images without an experiment."""

    p: Float[Array, "images clusters"]
    p_sd: Float[Array, "images clusters"]
    mean: Float[Array, " images"]
    sd: Float[Array, " images"]
    quantiles: Float[Array, "images levels"]


@checked
def transport(
    p: Float[Array, "draws images clusters"],
    found: Posterior,
    levels: tuple[float, ...] = (0.05, 0.5, 0.95),
    individual: bool = True,
    chunk: Count = 1024,
) -> Transported:
    """The predictive distribution of the effect, sum_z p(z | m) N(m_z, v_z), in chunks of images.

    Args:
      p: draws of p(z | image), see :func:`predict`.
      found: the clusters' parameters.
      levels: of the quantiles.
      individual: whether of a person's effect, v_z = sd_z^2 + sigma0_z^2 + sigma1_z^2, or of the mean effect, sd_z^2.
      chunk: images at once.
    """
    noise = found.sigma0**2 + found.sigma1**2 if individual else 0.0
    sd = jnp.sqrt(found.mu_sd**2 + noise)

    def of(p: Float[Array, "draws clusters"]) -> Transported:
        weight = p.mean(0)
        mixture = Mixture(weight, found.mu, sd)
        at = jax.vmap(lambda u: quantile(mixture, u))(jnp.asarray(levels, sd.dtype))
        return Transported(weight, p.std(0), *mixture.moments(), at)

    images = p.shape[1]
    size = min(chunk, images)
    each = jax.vmap(of, in_axes=1)
    chunks = jax.lax.map(
        lambda k: each(jax.lax.dynamic_slice_in_dim(p, k * size, size, axis=1)), jnp.arange(images // size)
    )
    moved = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), chunks)
    rest = each(p[:, images - images % size :])
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), moved, rest) if images % size else moved
