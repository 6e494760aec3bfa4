"""Pairs of views by their second moments, and generators of three kinds of pairs.

The losses of linear networks depend on the data through E[x x^T] and E[x y^T] alone: the population is a pair of
matrices, and a mini-batch is the pair of its sample means.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from core.checks import Count, NonNegative, checked
from core.kinds import Range


class Moments(NamedTuple):
    """Second moments of zero-mean views x and y."""

    xx: Float[Array, "d d"]
    """E[x x^T]."""
    xy: Float[Array, "d d"]
    """E[x y^T]."""


class Features(NamedTuple):
    """Simultaneously diagonalisable views: one row per feature."""

    lam: Float[Array, " d"]
    """Covariance of the feature between the views."""
    rho: Float[Array, " d"]
    """Regression coefficient of y on x: covariance over variance."""

    def moments(self, basis: Float[Array, "d d"] | None = None) -> Moments:
        """The moments in the eigenbasis, or with eigenvectors as the columns of ``basis``."""
        q = jnp.eye(self.lam.shape[0]) if basis is None else basis
        return Moments((q * (self.lam / self.rho)) @ q.T, (q * self.lam) @ q.T)


@checked
def static_features(signal: Float[Array, " d"], noise: Float[Array, " d"]) -> Features:
    """Views x = z + n and y = z + n' of one latent z with variances ``signal`` and independent noise.

    lambda = g and rho = g / (g + s): what is noisy has a low regression coefficient.
    """
    return Features(signal, signal / (signal + noise))


@checked
def dynamic_features(variance: Float[Array, " d"], autocorrelation: Float[Array, " d"], lag: Count = 1) -> Features:
    """Views x = z_t and y = z_{t+lag} of stationary first-order autoregressions.

    lambda = gamma^k g and rho = gamma^k: slow features have a high regression coefficient whatever their variance.
    """
    rho = autocorrelation**lag
    return Features(variance * rho, rho)


@checked
def masked_moments(
    key: Key[Array, ""], d: Annotated[int, Range(2)], factors: Count, noise: NonNegative = 0.3
) -> Moments:
    """Views are a random half of the coordinates of a factor model and the other half, each filled with zeros.

    The two covariances do not commute. Averaged over masks, with h = d / 2 coordinates on each side: two coordinates
    are both in x with probability h (h - 1) / (d (d - 1)), and the first in x, the second in y with h^2 / (d (d - 1)).
    """
    loadings = jax.random.normal(key, (d, factors)) / jnp.sqrt(factors)
    covariance = loadings @ loadings.T + noise * jnp.eye(d)
    h = d / 2
    eye = jnp.eye(d)
    both = eye / 2 + (1 - eye) * h * (h - 1) / (d * (d - 1))
    apart = (1 - eye) * h**2 / (d * (d - 1))
    return Moments(covariance * both, covariance * apart)


@checked
def sample_moments(moments: Moments, key: Key[Array, ""], n: Count) -> Moments:
    """The sample moments of ``n`` Gaussian pairs whose views share the covariance E[x x^T].

    y = B x + e with B = E[y x^T] E[x x^T]^-1 and e of the covariance that is left.
    """
    x_key, e_key = jax.random.split(key)
    d = moments.xx.shape[0]
    x = jax.random.normal(x_key, (n, d)) @ _root(moments.xx)
    regression = jnp.linalg.solve(moments.xx, moments.xy)
    left = moments.xx - regression.T @ moments.xy
    y = x @ regression + jax.random.normal(e_key, (n, d)) @ _root(left)
    return Moments(x.T @ x / n, x.T @ y / n)


@checked
def principal_directions(moments: Moments) -> tuple[Float[Array, "d d"], Features]:
    """Eigenvectors of the symmetric part of the cross-covariance, as columns, with lambda and rho along each.

    Where covariances do not commute these are no features that evolve alone; lambda is at least 1e-6.
    """
    lam, basis = jnp.linalg.eigh((moments.xy + moments.xy.T) / 2)
    variance = jnp.einsum("ik,ij,jk->k", basis, moments.xx, basis)
    lam = jnp.maximum(lam, 1e-6)
    return basis, Features(lam, lam / variance)


def _root(covariance: Float[Array, "d d"]) -> Float[Array, "d d"]:
    values, vectors = jnp.linalg.eigh(covariance)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


@checked
def random_basis(key: Key[Array, ""], d: Count) -> Float[Array, "d d"]:
    """A uniformly random orthogonal matrix."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, d)))
    return q * jnp.sign(jnp.diag(r))
