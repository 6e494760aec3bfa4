r"""Gaussian-process factor analysis with exact inference, in Fourier coordinates.

y_t = C z_t + d + e_t, e_t ~ N(0, diag(R)), z = B' z~. With whitened coefficients the posterior has precision
M = I + K^(1/2) (B B' (x) C' R^-1 C) K^(1/2), the same for all trials, of size F D whatever T and N.
Yu et al., Gaussian-process factor analysis, NIPS 2008; with a full covariance this is the optimum of the Fourier bound.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import optax
from jaxtyping import Array, Float

from core.checks import Count, NonNegative, Positive, checked
from core.learner import GradientLearner, gradient_learner
from latent.mm_gpvae.fourier import JITTER, Basis, spectrum


class Gpfa(NamedTuple):
    """Parameters; what must be positive is kept as a logarithm."""

    C: Float[Array, "N D"]
    d: Float[Array, " N"]
    log_r: Float[Array, " N"]
    log_length: Float[Array, " D"]


class Inferred(NamedTuple):
    """The exact posterior of the coefficients and the likelihood of each trial."""

    mean: Float[Array, "trials F D"]
    root: Float[Array, "FD FD"]
    """L with L L' = M; the covariance is K^(1/2) M^-1 K^(1/2)."""
    log_marginal: Float[Array, " trials"]


@checked
def infer(basis: Basis, params: Gpfa, y: Float[Array, "trials T N"], jitter: NonNegative = JITTER) -> Inferred:
    """p(z~ | y) and log p(y)."""
    B, k = jnp.asarray(basis.matrix, y.dtype), spectrum(basis, jnp.exp(params.log_length), jitter=jitter)
    frequencies, latents = k.shape
    root_k, scaled = jnp.sqrt(k), params.C / jnp.exp(params.log_r)[:, None]
    residual = y - params.d
    gram = jnp.einsum("ft,gt,nd,ne->fdge", B, B, params.C, scaled, optimize=True)
    M = (root_k[:, :, None, None] * gram * root_k).reshape(frequencies * latents, -1)
    root = jnp.linalg.cholesky(M + jnp.eye(M.shape[0], dtype=M.dtype))
    h = root_k * jnp.einsum("ft,btn,nd->bfd", B, residual, scaled)
    half = jsl.solve_triangular(root, h.reshape(len(y), -1).T, lower=True)
    mean = jsl.solve_triangular(root.T, half, lower=False).T.reshape(len(y), frequencies, latents)
    energy = jnp.sum(jnp.square(residual) / jnp.exp(params.log_r), axis=(1, 2)) - jnp.sum(jnp.square(half), axis=0)
    logdet = 2 * jnp.sum(jnp.log(jnp.diagonal(root))) + y.shape[1] * jnp.sum(params.log_r)
    constant = y.shape[1] * y.shape[2] * math.log(2 * math.pi)
    return Inferred(root_k * mean, root, -(constant + logdet + energy) / 2)


def latents(basis: Basis, params: Gpfa, y: Float[Array, "trials T N"]) -> Float[Array, "trials T D"]:
    """Posterior means in time."""
    return jnp.einsum("ft,bfd->btd", basis.matrix, infer(basis, params, y).mean)


@checked
def gpfa_learner(
    basis: Basis, dimensions: Count, tx: optax.GradientTransformation, first_length: Positive = 15.0
) -> GradientLearner:
    """Maximises the marginal likelihood of (square-rooted) counts [trials, T, N]."""

    def init(key: Any, y: Float[Array, "trials T N"]) -> Gpfa:
        variance = y.var(axis=(0, 1)) + 1e-2
        C = 0.3 * jnp.sqrt(variance)[:, None] * jax.random.normal(key, (y.shape[2], dimensions))
        return Gpfa(C, y.mean(axis=(0, 1)), jnp.log(variance), jnp.full(dimensions, math.log(first_length), y.dtype))

    def loss(params: Gpfa, key: Any, y: Float[Array, "trials T N"]):
        return -infer(basis, params, y).log_marginal.mean() / y.shape[1], {}

    return gradient_learner(init, loss, tx, batch_axes=0)
