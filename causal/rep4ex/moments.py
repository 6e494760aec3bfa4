r"""The maximum moment restriction on a representation: what is left of phi(X) after A must have no mean given A.

With the least-squares fit of phi(X) on (1, A), residuals r and a Gaussian kernel kappa on actions,

    Q(phi) = E[<r, r'> kappa(A, A')] = 0   iff   E[r | A] = 0.

Every estimator of Q here is the trace of a d x d moment matrix G; S^{-1} G whitens, and tr(S^{-1} G) does not change
under phi -> H phi + c. Saengkyongam et al., ICLR 2024, arXiv 2310.04295; Muandet et al., UAI 2020.

Where the data axis is bound (:mod:`core.learner`), all is of the global batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from core.checks import Count, NonNegative, checked
from core.errors import ConfigError
from core.learner import gather_over_devices, mean_over_devices
from core.linalg import small_inverse

Codes = Float[Array, "n d"]
Actions = Float[Array, "n k"]
Moments = Callable[[Codes, Actions, Float[Array, ""]], Float[Array, "d d"]]
"""``(residuals, actions, bandwidth) -> G``."""


class Regression(NamedTuple):
    """phi(X) = M A + q + V."""

    M: Float[Array, "d k"]
    q: Float[Array, " d"]
    V: Codes


def regress(w: Codes, a: Actions) -> Regression:
    """Least squares of codes on (1, A), differentiable in the codes."""
    mean_w, mean_a = mean_over_devices((w.mean(axis=0), a.mean(axis=0)))
    w0, a0 = w - mean_w, a - mean_a
    gram, cross = mean_over_devices((a0.T @ a0 / len(a), a0.T @ w0 / len(a)))
    M = (small_inverse(gram) @ cross).T
    return Regression(M, mean_w - M @ mean_a, w0 - a0 @ M.T)


def gaussian_kernel(a: Actions, b: Float[Array, "j k"], bandwidth: Float[Array, ""]) -> Float[Array, "n j"]:
    """exp(-|a - b|^2 / (2 h^2))."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return jnp.exp(-jnp.maximum(squares, 0.0) / (2 * bandwidth**2))


@checked
def median_bandwidth(a: Float[np.ndarray, "n k"], most: Count = 500) -> float:
    """The h with h^2 half the median of the squared distances between the first 500 actions.

    Raises:
      ConfigError: where the actions do not vary.
    """
    some = np.asarray(a, float)[:most]
    squares = ((some[:, None] - some) ** 2).sum(-1)[np.triu_indices(len(some), 1)]
    if not len(squares) or np.median(squares) == 0:
        raise ConfigError("the actions do not vary: nothing can be learned of their effects")
    return float(np.sqrt(np.median(squares) / 2))


def v_statistic(r: Codes, a: Actions, bandwidth: Float[Array, ""]) -> Float[Array, "d d"]:
    """n^-2 sum_ij r_i r_j^T K_ij: positive semi-definite, its diagonal terms a bias towards small residuals."""
    r, a = gather_over_devices(r), gather_over_devices(a)
    return r.T @ gaussian_kernel(a, a, bandwidth) @ r / len(r) ** 2


def u_statistic(r: Codes, a: Actions, bandwidth: Float[Array, ""]) -> Float[Array, "d d"]:
    """(n (n - 1))^-1 sum_{i != j} r_i r_j^T K_ij: unbiased, of either sign."""
    r, a = gather_over_devices(r), gather_over_devices(a)
    n = len(r)
    return (r.T @ gaussian_kernel(a, a, bandwidth) @ r - r.T @ r) / (n * (n - 1))


def fourier_statistic(frequencies: Float[Array, "k half"]) -> Moments:
    """The V-statistic in expectation over standard normal frequencies, linear in n.

    n^-2 sum_ij r_i r_j^T K_ij ~ sum_l m_l m_l^T with m_l = n^-1 sum_i r_i psi_l(a_i).
    """

    def moments(r: Codes, a: Actions, bandwidth: Float[Array, ""]) -> Float[Array, "d d"]:
        mean = mean_over_devices(r.T @ fourier_features(frequencies, a, bandwidth) / len(r))
        return mean @ mean.T

    return moments


def fourier_features(
    frequencies: Float[Array, "k half"], a: Actions, bandwidth: Float[Array, ""]
) -> Float[Array, "n features"]:
    """Features psi whose products approximate the Gaussian kernel; those of an action with itself are 1 exactly."""
    phase = a @ frequencies / bandwidth
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=1) / jnp.sqrt(frequencies.shape[1])


def polynomial_statistic(r: Codes, a: Actions, bandwidth: Float[Array, ""]) -> Float[Array, "d d"]:
    """Moments with the squares, products and cubes of actions in place of a kernel."""
    scaled = a / bandwidth
    i, j = np.triu_indices(a.shape[1])
    features = jnp.concatenate([scaled[:, i] * scaled[:, j], scaled**3], axis=1)
    mean = mean_over_devices(r.T @ features / len(r))
    return mean @ mean.T


def raw(r: Codes, w: Codes, G: Float[Array, "d d"]) -> Float[Array, ""]:
    """The trace of G, which a representation can lower by shrinking."""
    return jnp.trace(G)


@checked
def whitened(r: Codes, w: Codes, G: Float[Array, "d d"], ridge: NonNegative = 1e-4) -> Float[Array, ""]:
    """tr(S^-1 G) with S = Cov(r) + ridge Cov(w), both of which follow phi -> H phi + c."""
    centred = w - mean_over_devices(w.mean(axis=0))
    residual, code = mean_over_devices((r.T @ r / len(r), centred.T @ centred / len(w)))
    S = residual + ridge * code
    floor = jnp.finfo(S.dtype).eps * jnp.trace(S) + jnp.finfo(S.dtype).tiny
    return (small_inverse(S + floor * jnp.eye(len(S), dtype=S.dtype)) * G).sum()


Scale = Callable[[Codes, Codes, Float[Array, "d d"]], Float[Array, ""]]


def restriction(
    w: Codes, a: Actions, bandwidth: Float[Array, ""], moments: Moments = v_statistic, scale: Scale = whitened
) -> Float[Array, ""]:
    """Q of a batch's codes."""
    r = regress(w, a).V
    return scale(r, w, moments(r, a, bandwidth))
