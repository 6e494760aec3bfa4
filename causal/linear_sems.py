r"""Linear structural equation models, families of interventions on them, and their second moments.

X = B X + U with B[i, j] != 0 iff j is a parent of i, so X = A U with A = (I - B)^(-1). The law of the noise is
U = mean + scale z with z standard normal, hence W = E[U U^T] = scale scale^T + mean mean^T and::

    M = E[X X^T] = A W A^T

which is all that least squares without intercept sees. An environment is a SEM of its own; a *family* of interventions
is any pure function ``key -> Sem``, to be vmapped over keys. The ones below are those that papers use.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from core.checks import Count, Fraction, NonNegative, checked
from core.kinds import Range


class Sem(NamedTuple):
    """A linear SEM: of the observed system, or of one environment."""

    B: Float[Array, "d d"]
    """Weights; acyclic, ``B[i, j]`` from j to i."""
    mean: Float[Array, " d"]
    """Of the noise."""
    scale: Float[Array, "d d"]
    """A factor of the noise's covariance, ``scale scale^T``; a zero row is a constant."""

    @property
    def W(self) -> Float[Array, "d d"]:
        """E[U U^T]."""
        return self.scale @ self.scale.T + jnp.outer(self.mean, self.mean)


Family = Callable[[Any], Sem]
"""An intervention drawn from a law: ``key -> Sem``."""


@checked
def linear_sem(B: Float[Array, "d d"], sd: Float[Array, "..."] | float = 1.0) -> Sem:
    """Independent noise of mean zero with the given standard deviations."""
    B = jnp.asarray(B, float)
    d = B.shape[-1]
    return Sem(B, jnp.zeros(d), jnp.diag(jnp.broadcast_to(jnp.asarray(sd, float), (d,))))


def from_pairs(pairs: Callable[[Any], tuple[Array, Array]]) -> Family:
    """A family from ``key -> (B_e, W_e)``, with noise of mean zero and covariance W_e, which may be singular."""

    def draw(key):
        B, W = pairs(key)
        values, vectors = jnp.linalg.eigh(W)
        return Sem(B, jnp.zeros_like(B[0]), vectors * jnp.sqrt(jnp.maximum(values, 0.0)))

    return draw


@checked
def environments(family: Family, key: Key[Array, ""], m: Count) -> Sem:
    """``m`` independent draws, stacked."""
    return jax.vmap(family)(jax.random.split(key, m))


def observational(sem: Sem) -> Family:
    """No intervention."""
    return lambda key: sem


@checked
def hard(sem: Sem, sites: Bool[Array, " d"], sd: NonNegative = 1.0) -> Family:
    """do(X_i = a_i) at every site, a_i ~ N(0, sd^2), constant within the environment."""
    keep = ~sites

    def draw(key):
        values = sd * jax.random.normal(key, sites.shape, sem.B.dtype)
        return Sem(sem.B * keep[:, None], jnp.where(sites, values, sem.mean), sem.scale * keep[:, None])

    return draw


@checked
def soft(sem: Sem, sites: Bool[Array, " d"], sd: NonNegative = 1.0) -> Family:
    """Every weight into a site is multiplied by its own N(0, sd^2) draw."""

    def draw(key):
        factors = sd * jax.random.normal(key, sem.B.shape, sem.B.dtype)
        return sem._replace(B=jnp.where(sites[:, None], factors * sem.B, sem.B))

    return draw


@checked
def rademacher(sem: Sem, target: Int[Array, ""] | int, q: Fraction = 0.5) -> Family:
    """Every weight flips its sign with probability q, but for those into the target, which are made positive."""
    is_target = jnp.arange(sem.B.shape[0]) == target

    def draw(key):
        signs = jnp.where(jax.random.bernoulli(key, q, sem.B.shape), -1.0, 1.0)
        return sem._replace(B=jnp.where(is_target[:, None], jnp.abs(sem.B), signs * sem.B))

    return draw


@checked
def shift(sem: Sem, sites: Bool[Array, " d"], sd: NonNegative = 1.0) -> Family:
    """The noise of every site is moved by a draw of N(0, sd^2)."""
    return lambda key: sem._replace(
        mean=sem.mean + jnp.where(sites, sd * jax.random.normal(key, sites.shape, sem.B.dtype), 0.0)
    )


@checked
def noise(sem: Sem, sites: Bool[Array, " d"], low: NonNegative = 0.25, high: NonNegative = 4.0) -> Family:
    """The noise variance of every site is multiplied by a draw of U(low, high)."""

    def draw(key):
        factors = jax.random.uniform(key, sites.shape, sem.B.dtype, low, high)
        return sem._replace(scale=jnp.where(sites, jnp.sqrt(factors), 1.0)[:, None] * sem.scale)

    return draw


def total_effects(B: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """A = (I - B)^(-1) = (I + B)(I + B^2)(I + B^4) ..., exact since B is nilpotent: sums over directed paths."""
    identity = jnp.eye(B.shape[-1], dtype=B.dtype)
    A, power = identity + B, B
    for _ in range(max(B.shape[-1] - 1, 1).bit_length() - 1):
        power = power @ power
        A = A @ (identity + power)
    return A


class Moments(NamedTuple):
    """What least squares needs of an environment's data, or of its population."""

    second: Float[Array, "d d"]
    """E[X X^T]."""
    mean: Float[Array, " d"]
    n: Float[Array, ""]
    """Observations; infinite for a population."""

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Second moments about the mean: what least squares with an intercept sees."""
        return self.second - self.mean[..., :, None] * self.mean[..., None, :]


def population(sem: Sem) -> Moments:
    """Moments of X = A U."""
    A = total_effects(sem.B)
    return Moments(A @ sem.W @ A.T, A @ sem.mean, jnp.asarray(jnp.inf, sem.B.dtype))


@checked
def sample_moments(key: Key[Array, ""], sem: Sem, n: Float[Array, ""] | float) -> Moments:
    r"""Moments of ``n`` observations without the observations: exact in distribution, at the cost of d x d matrices.

    With z the standardised noise, its sample mean zbar ~ N(0, I/n) is independent of its scatter about the mean, which
    is Wishart with n - 1 degrees of freedom, L L^T with Bartlett's lower triangular L (chi with n - 1 - i degrees of
    freedom on the diagonal, standard normals below). So, with r = scale zbar::

        W_hat = scale (L L^T / n + zbar zbar^T) scale^T + r mean^T + mean r^T + mean mean^T

    Args:
      key: of the draw.
      sem: an environment.
      n: observations, at least d + 2; may be traced.
    """
    d, dtype = sem.B.shape[-1], sem.B.dtype
    n = jnp.asarray(n, dtype)
    normal_key, uniform_key = jax.random.split(key)
    normals = jax.random.normal(normal_key, (d, d + 1 + _PROPOSALS), dtype)
    uniforms = jax.random.uniform(uniform_key, (d, _PROPOSALS), dtype)
    chi = jnp.sqrt(2 * _gamma((n - 1 - jnp.arange(d, dtype=dtype)) / 2, normals[:, d + 1 :], uniforms))
    L = jnp.tril(normals[:, :d], -1) + jnp.diag(chi)
    r = sem.scale @ normals[:, d] / jnp.sqrt(n)
    spread, centre = sem.scale @ L / jnp.sqrt(n), sem.mean + r
    A = total_effects(sem.B)
    return Moments(A @ (spread @ spread.T + jnp.outer(centre, centre)) @ A.T, A @ centre, n)


_PROPOSALS = 8


def _gamma(shape: Float[Array, " d"], normals: Float[Array, "d p"], uniforms: Float[Array, "d p"]):
    """The first accepted proposal of Marsaglia and Tsang (2000), without a loop, which would cost seconds to compile.

    Each is accepted with probability above 0.95 for shapes of at least 1, and above 0.999 from 30 on: that none of them
    is happens once in 10^10 draws, or in 10^24.
    """
    scale = shape[:, None] - 1 / 3
    v = jnp.maximum(1 + normals / jnp.sqrt(9 * scale), 0.0) ** 3
    log_v = jnp.log(jnp.where(v > 0, v, 1.0))
    accepted = (v > 0) & (jnp.log(uniforms) < normals**2 / 2 + scale * (1 - v + log_v))
    return jnp.take_along_axis(scale * v, jnp.argmax(accepted, axis=1)[:, None], axis=1)[:, 0]


@checked
def sample(key: Key[Array, ""], sem: Sem, n: Count) -> Float[Array, "n d"]:
    """``n`` observations."""
    z = jax.random.normal(key, (n, sem.B.shape[-1]), sem.B.dtype)
    return (sem.mean + z @ sem.scale.T) @ total_effects(sem.B).T


def moments_of(x: Float[Array, "n d"], weights: Float[Array, " n"] | None = None) -> Moments:
    """Moments of given observations; weights of 0 and 1 tell padding from data."""
    w = jnp.ones_like(x[:, 0]) if weights is None else weights
    n = w.sum()
    return Moments((x * w[:, None]).T @ x / n, w @ x / n, n)


@checked
def draw_moments(family: Family, key: Key[Array, ""], m: Count, n: Float[Array, ""] | float | None = None) -> Moments:
    """Moments of ``m`` environments, stacked: of ``n`` observations each, or of the populations."""
    env_key, data_key = jax.random.split(key)
    drawn = environments(family, env_key, m)
    if n is None:
        return jax.vmap(population)(drawn)
    return jax.vmap(sample_moments, in_axes=(0, 0, None))(jax.random.split(data_key, m), drawn, n)


@checked
def random_sem(
    key: Key[Array, ""],
    d: Annotated[int, Range(2)],
    degree: NonNegative = 2.0,
    weights: tuple[float, float] = (0.5, 1.5),
    variances: tuple[float, float] = (0.3, 1.2),
) -> Sem:
    """An Erdos-Renyi DAG in a random order of its nodes, of the given expected degree, with weights of either sign."""
    edge_key, weight_key, sign_key, order_key, noise_key = jax.random.split(key, 5)
    edges = jnp.tril(jax.random.bernoulli(edge_key, min(1.0, degree / (d - 1)), (d, d)), -1)
    size = jax.random.uniform(weight_key, (d, d), minval=weights[0], maxval=weights[1])
    B = jnp.where(edges, size * jax.random.rademacher(sign_key, (d, d), size.dtype), 0.0)
    order = jax.random.permutation(order_key, d)
    variance = jax.random.uniform(noise_key, (d,), minval=variances[0], maxval=variances[1])
    return linear_sem(B[order][:, order], jnp.sqrt(variance))
