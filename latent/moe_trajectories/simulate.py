"""Trajectories with known classes: the generator of the paper's example as a function of a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, NonNegative, checked
from latent.moe_trajectories import ldl
from latent.moe_trajectories.curves import spline_from_original
from latent.moe_trajectories.model import Experts, GrowthData, Params


class Truth(NamedTuple):
    """A bilinear mixture of experts on the original scale."""

    means: Float[np.ndarray, "K 3"]
    knots: Float[np.ndarray, " K"]
    covariance: Float[np.ndarray, "K 3 3"]
    """Of the growth factors, what the expert covariates leave unexplained."""
    residual: Float[np.ndarray, " K"]
    effects: Float[np.ndarray, "K 3 2"]
    gating: Float[np.ndarray, "classes-1 3"]
    correlation: float = 0.3
    """Of the two covariates, for the gating and the expert pair alike."""


def example_truth() -> Truth:
    """The authors' example: covariates explain 13 % of the factors' variance in class 1 and 26 % in class 2."""
    strong = np.array([[1.251505, 1.877258], [0.250301, 0.3754515], [0.250301, 0.3754515]])
    effects = np.stack([strong / np.sqrt(2), strong])
    total = np.array([[25, 1.5, 1.5], [1.5, 1, 0.3], [1.5, 0.3, 1]])
    of_covariates = np.array([[1, 0.3], [0.3, 1]])
    left = np.stack([total - b @ of_covariates @ b.T for b in effects])
    gating = np.array([[0.0, np.log(1.5), np.log(1.7)]])
    means = np.array([[100, -5, -2.6], [100, -5, -3.4]])
    return Truth(means, np.array([3.5, 5.5]), left, np.ones(2), effects, gating)


def true_params(truth: Truth) -> Params:
    """The unconstrained parameters of a truth, covariates modelled jointly."""
    classes = len(truth.knots)
    g = jax.vmap(spline_from_original)(jnp.asarray(truth.knots)[:, None])
    rho = truth.correlation
    phi = jnp.broadcast_to(jnp.asarray([[1.0, rho], [rho, 1.0]], g.dtype), (classes, 2, 2))
    none = jnp.zeros((classes, 0), g.dtype)
    return Params(
        jnp.asarray(truth.gating, g.dtype),
        Experts(
            jnp.einsum("kab,kb->ka", g, truth.means),
            jnp.asarray(truth.knots)[:, None],
            ldl.to_triangle(jnp.einsum("kab,kbc,kdc->kad", g, truth.covariance, g)),
            jnp.log(jnp.asarray(truth.residual, g.dtype)),
            jnp.einsum("kab,kbc->kac", g, truth.effects),
            jnp.zeros((classes, 2), g.dtype),
            ldl.to_triangle(phi),
            none,
            none,
            none,
        ),
    )


@checked
def simulate(
    key: Key[Array, ""], truth: Truth, persons: Count, occasions: Count = 10, wobble: NonNegative = 0.25
) -> tuple[GrowthData, Int[Array, " n"]]:
    """Data and true labels: times j +- wobble but for the first and last, two gating and two expert covariates."""
    keys = jax.random.split(key, 6)
    rho = truth.correlation
    root = jnp.asarray([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]])
    xg, xe = (jax.random.normal(k, (persons, 2)) @ root.T for k in keys[:2])
    gating = jnp.concatenate([jnp.zeros((1, 3)), jnp.asarray(truth.gating)])
    labels = jax.random.categorical(keys[2], gating[:, 0] + xg @ gating[:, 1:].T)
    inner = jnp.ones(occasions).at[jnp.array([0, -1])].set(0.0)
    t = jnp.arange(occasions) + inner * jax.random.uniform(keys[3], (persons, occasions), minval=-wobble, maxval=wobble)
    spread = jnp.linalg.cholesky(jnp.asarray(truth.covariance))[labels]
    eta = jnp.asarray(truth.means)[labels] + jnp.einsum("nac,nc->na", jnp.asarray(truth.effects)[labels], xe)
    eta += jnp.einsum("nab,nb->na", spread, jax.random.normal(keys[4], (persons, 3)))
    knot = jnp.asarray(truth.knots)[labels][:, None]
    curve = eta[:, :1] + eta[:, 1:2] * jnp.minimum(t, knot) + eta[:, 2:] * jnp.maximum(t - knot, 0)
    noise = jnp.sqrt(jnp.asarray(truth.residual))[labels][:, None] * jax.random.normal(keys[5], t.shape)
    y = curve + noise
    return GrowthData(t, y, jnp.ones_like(y), xe, jnp.ones_like(xe), xg, jnp.zeros((persons, 0))), labels
