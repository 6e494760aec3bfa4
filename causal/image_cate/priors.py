"""Priors set from the data: of the clusters from batches, of the kernels from a first fit without a prior.

Krishnan, Subedar, Tickoo, Specifying weight priors in Bayesian deep neural networks with empirical Bayes, AAAI 2020,
as the authors of the effect cluster model use it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from causal.image_cate.layers import Normal, posteriors
from causal.image_cate.model import Prior
from causal.treatment_effects import Units
from core.checks import Count, checked
from core.learner import Params


@checked
def cluster_prior(key: Any, units: Units, batch_size: Count, batches: Count = 10_000) -> Prior:
    """Priors mu ~ N(difference in means, (2 s)^2), rho_t ~ N(softplus^-1(median sd of a batch), (2 s)^2).

    The same for all clusters; s is the deviation over random batches, with as many units of each arm.
    """
    y, t, w = (leaf.ravel() for leaf in (units.y, units.t, units.weight))

    def batch(key):
        means, sds = [], []
        for arm, k in enumerate(jax.random.split(key)):
            p = w * (t == arm)
            chosen = y[jax.random.choice(k, y.size, (batch_size // 2,), p=p / p.sum())]
            means.append(chosen.mean())
            sds.append(chosen.std(ddof=1))
        return means[1] - means[0], jnp.stack(sds)

    difference, sds = jax.lax.map(batch, jax.random.split(key, batches), batch_size=min(batches, 500))
    rho = jnp.log(jnp.expm1(jnp.median(sds, axis=0)))
    return {
        ("clusters", "mu"): Normal(difference.mean(), 2 * difference.std()),
        ("clusters", "rho0"): Normal(rho[0], 2 * sds[:, 0].std()),
        ("clusters", "rho1"): Normal(rho[1], 2 * sds[:, 1].std()),
    }


def kernel_prior(params: Params) -> Prior:
    """N(0, 1/inputs) of every kernel: for training in a single stage."""
    return {
        path: Normal(jnp.zeros_like(q.mean), jnp.full_like(q.mean, q.mean.shape[-2] ** -0.5))
        for path, q in _kernels(params)
    }


def empirical_prior(params: Params) -> Prior:
    """From a first fit: every kernel's prior mean is its mean there, its prior sd a tenth of that mean's spread."""

    def of(mean: Float[Array, "... inputs outputs"]) -> Normal:
        spread = mean.std((-2, -1), keepdims=True)
        return Normal(mean, jnp.broadcast_to(jnp.maximum(1e-3, 0.1 * spread), mean.shape))

    return {path: of(q.mean) for path, q in _kernels(params)}


def _kernels(params: Params):
    return [(path, q) for path, q in posteriors(params["params"]).items() if path[0] != "clusters"]
