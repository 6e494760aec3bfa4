"""Intervals for the clusters' effects: the mean-field posterior's, and clustered ones that hold what it leaves out.

A mean-field posterior takes the mixing probabilities and every other parameter as independent of mu. The sandwich here
treats the output layers of both networks and the clusters' parameters as one M-estimator, given the learned features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from causal.image_cate.layers import posteriors
from causal.image_cate.model import ClusterModel, Effects, draw_effects, mixture_log_density
from causal.image_cate.network import Outputs
from causal.image_cate.posterior import cluster_posterior
from causal.treatment_effects import Estimate, Units
from core.checks import Natural, NonNegative, checked
from core.learner import Params


class Heads(NamedTuple):
    """Output layers, a bias last, and the clusters' parameters."""

    logits: Float[Array, "width+1 clusters-1"]
    baseline: Float[Array, " width+1"]
    mu: Float[Array, " clusters"]
    log_sigma0: Float[Array, " clusters"]
    log_sigma1: Float[Array, " clusters"]


class Features(NamedTuple):
    """What the output layers see of every image: of the clusters' network and of the baseline's."""

    clusters: Float[Array, "images width"]
    baseline: Float[Array, "images width"]


def last_layers(
    model: ClusterModel, params: Params, reference: Array, x: Array | None = None
) -> tuple[Heads, Features]:
    """Output layers of a model of the first kind and what they see, at the posterior means.

    Args:
      model: the model.
      params: as trained.
      reference: images whose features standardise all others': those of the training.
      x: images whose features are returned; those of the reference if None.
    """
    kept: Any = model.network.apply(params, reference.astype(jnp.float32), method="features", mutable=["population"])
    seen: Any = kept[0]
    if x is not None:
        seen = model.network.apply({**params, **kept[1]}, x.astype(jnp.float32), method="features")
    own, q, effects = params["params"], posteriors(params["params"]), draw_effects(params)
    weights = [jnp.concatenate([q[(f"heads_{i}",)].mean, own[f"heads_{i}"]["bias"][None]]) for i in range(2)]
    features = Features(seen[0], seen[-1])
    heads = Heads(weights[0], weights[1][:, 0], effects.mu, jnp.log(effects.sigma0), jnp.log(effects.sigma1))
    return heads, features


def head_log_likelihood(heads: Heads, features: Features, units: Units) -> Float[Array, " images"]:
    """Weighted sum over the units of every image."""
    one = jnp.ones((len(features.clusters), 1))
    logits = jnp.concatenate([features.clusters, one], axis=1) @ heads.logits
    baseline = jnp.concatenate([features.baseline, one], axis=1) @ heads.baseline
    outputs = Outputs(jnp.concatenate([0 * one, logits], axis=1), baseline, None)
    effects = Effects(heads.mu, jnp.exp(heads.log_sigma0), jnp.exp(heads.log_sigma1))
    return (units.weight * mixture_log_density(outputs, effects, units.t, units.y)).sum(1)


@checked
def refit(
    heads: Heads, features: Features, units: Units, ridge: NonNegative = 1e-3, iterations: Natural = 30
) -> tuple[Heads, Float[Array, "k k"]]:
    """Maximises the penalised likelihood by damped Newton steps; returns the heads and the clustered covariance.

    Images are the clusters: H^-1 (sum_i s_i s_i') H^-1 of the flattened heads, s_i the score of image i.
    """
    start, unravel = ravel_pytree(heads)
    n = len(features.clusters)

    def each(theta):
        return head_log_likelihood(unravel(theta), features, units) / n

    def objective(theta):
        return ridge * jnp.sum((theta - start) ** 2) / 2 - each(theta).sum()

    def newton(_, theta):
        H, g = jax.hessian(objective)(theta), jax.grad(objective)(theta)
        values, vectors = jnp.linalg.eigh(H)
        step = vectors @ ((vectors.T @ g) / jnp.maximum(jnp.abs(values), 1e-4))
        tried = jax.vmap(lambda rate: objective(theta - rate * step))(rates)
        best = jnp.argmin(jnp.where(jnp.isfinite(tried), tried, jnp.inf))
        return jnp.where(tried[best] < objective(theta), theta - rates[best] * step, theta)

    rates = 0.5 ** jnp.arange(8.0)
    theta = jax.lax.fori_loop(0, iterations, newton, start)
    bread = jnp.linalg.pinv(jax.hessian(objective)(theta))
    influence = jax.jacrev(each)(theta) @ bread
    return unravel(theta), influence.T @ influence


def sandwich(heads: Heads, features: Features, units: Units, **settings: Any) -> Estimate:
    """Effects mu of the clusters after the refit, ascending, with clustered standard errors."""
    fitted, covariance = refit(heads, features, units, **settings)
    at = heads.logits.size + heads.baseline.size + jnp.arange(len(heads.mu))
    order = jnp.argsort(fitted.mu)
    return Estimate(fitted.mu[order], jnp.sqrt(jnp.diagonal(covariance))[at][order])


def offered(model: ClusterModel, params: Params, own: Units, other: Units) -> dict[str, Estimate]:
    """Effects mu of the clusters with every standard error that one fit offers, by name.

    Args:
      model: the model.
      params: as trained.
      own: units of the training.
      other: units of images not trained on.
    """
    posterior, (heads, features) = cluster_posterior(params), last_layers(model, params, own.x)
    seen = features if other.x is own.x else last_layers(model, params, own.x, other.x)[1]
    return {
        "mean-field": Estimate(posterior.mu, posterior.mu_sd),
        "sandwich": sandwich(heads, features, own),
        "sandwich, other images": sandwich(heads, seen, other),
    }
