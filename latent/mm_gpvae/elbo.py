r"""The terms of the evidence lower bound, ELBO = E_q log p(y | z) + E_q log p(x | z) - KL(q || p), one per trial.

Coefficients lie along axis -2 and latents along axis -1 of means and log standard deviations.
"""

import math

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from core.linalg import of_each_matrix

LOG_RATE = (-10.0, 8.0)
"""Where log rates are cut, so that an untrained network cannot overflow."""

Moments = Float[Array, "*trials C D"]


def diagonal_kl(mean: Moments, log_std: Moments, variance: Float[Array, "C D"]) -> Float[Array, "*trials"]:
    """1/2 sum [(mu^2 + e^(2s)) / k - 1 + log k - 2 s], for independent coefficients."""
    terms = (jnp.square(mean) + jnp.exp(2 * log_std)) / variance - 1 + jnp.log(variance) - 2 * log_std
    return jnp.sum(terms, axis=(-2, -1)) / 2


@jax.custom_vjp
def inverse_and_logdet(kernel: Float[Array, "D T T"]) -> tuple[Float[Array, "D T T"], Float[Array, " D"]]:
    """K^-1 and log det K of symmetric positive definite kernels, by Cholesky factors.

    The derivative is written out, d K^-1 = -K^-1 dK K^-1 and d log det K = tr(K^-1 dK): it needs no further
    decomposition, and no two LAPACK calls run at once (see :func:`core.linalg.of_each_matrix`).
    """
    eye = jnp.eye(kernel.shape[-1], dtype=kernel.dtype)
    chol = of_each_matrix(jnp.linalg.cholesky, kernel)
    inverse = of_each_matrix(lambda factor: jsl.cho_solve((factor, True), eye), chol)
    return inverse, 2 * jnp.sum(jnp.log(jnp.diagonal(chol, axis1=-2, axis2=-1)), axis=-1)


def _forward(kernel):
    inverse, logdet = inverse_and_logdet(kernel)
    return (inverse, logdet), inverse


def _backward(inverse, cotangents):
    of_inverse, of_logdet = cotangents
    return (of_logdet[..., None, None] * inverse - inverse @ of_inverse @ inverse,)


inverse_and_logdet.defvjp(_forward, _backward)


def dense_kl(mean: Moments, log_std: Moments, kernel: Float[Array, "D T T"]) -> Float[Array, "*trials"]:
    """1/2 sum_d [tr(K^-1 S) + mu' K^-1 mu - T + log det K - log det S], for correlated bins: T^3 per latent."""
    precision, logdet = inverse_and_logdet(kernel)
    quadratic = jnp.einsum("...td,dtu,...ud->...", mean, precision, mean)
    trace = jnp.einsum("...td,dtt->...", jnp.exp(2 * log_std), precision)
    size = mean.shape[-2] * mean.shape[-1]
    return (trace + quadratic + jnp.sum(logdet) - size) / 2 - jnp.sum(log_std, axis=(-2, -1))


def in_time(basis: Float[Array | np.ndarray, "C T"], coefficients: Moments) -> Float[Array, "*trials T D"]:
    """B' mu."""
    return jnp.einsum("ct,...cd->...td", basis, coefficients)


def variance_in_time(basis: Float[Array | np.ndarray, "C T"], log_std: Moments) -> Float[Array, "*trials T D"]:
    """The diagonal of B' S B, sum_w B_wt^2 exp(2 s_w)."""
    return in_time(jnp.square(basis), jnp.exp(2 * log_std))


def read_out(
    mean: Float[Array, "*trials T D"],
    variance: Float[Array, "*trials T D"],
    W: Float[Array, "D N"],
    d: Float[Array, " N"],
) -> tuple[Float[Array, "*trials T N"], Float[Array, "*trials T N"]]:
    """Mean eta = W z + d and variance v = W^2 var(z) of a linear read-out under q."""
    return mean @ W + d, variance @ jnp.square(W)


def log_mean_rate(eta: Array, v: Array) -> Array:
    """Logarithm of E exp(eta + N(0, v)) = eta + v / 2, cut to :data:`LOG_RATE`."""
    return jnp.clip(eta + v / 2, *LOG_RATE)


def expected_poisson(y: Array, eta: Array, v: Array) -> Float[Array, "*trials"]:
    """E_q log Poisson(y; exp(eta + noise)) = sum [y eta - exp(eta + v/2) - log y!], in closed form."""
    return jnp.sum(y * eta - jnp.exp(log_mean_rate(eta, v)) - gammaln(y + 1.0), axis=(-2, -1))


def expected_gaussian(y: Array, eta: Array, v: Array, noise: Array) -> Float[Array, "*trials"]:
    """E_q log N(y; eta + noise of variance v, noise): for calcium and other continuous channels."""
    terms = (jnp.square(y - eta) + v) / noise + jnp.log(2 * math.pi * noise)
    return -jnp.sum(terms, axis=(-2, -1)) / 2


def gaussian(x: Array, mean: Array, noise: Array) -> Float[Array, "*trials"]:
    """Log-density N(x; mean, noise I), for one sample of what lies behind a deep decoder."""
    return expected_gaussian(x, mean, jnp.zeros((), mean.dtype), noise)
