r"""Gaussian processes in a pruned real Fourier basis: z = B' z~, with independent coefficients z~_w ~ N(0, k_w).

On a circle of n >= T points and for frequencies w in {0, 1..m, -m..-1}::

    B[w, t] = cos(2 pi w t / n) / sqrt(n / 2)   w > 0
              sin(2 pi w t / n) / sqrt(n / 2)   w < 0
              1 / sqrt(n)                       w = 0
    k_w     = sqrt(2 pi) rho l exp(-(2 pi w / n)^2 l^2 / 2) + eps

so that B' diag(k) B is the RBF kernel summed over the circle's windings, and plain RBF where n is T and a few lengths.
Gondur et al., ICLR 2024, section on Fourier-domain parameters, in the form of their released code.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from core.checks import Count, NonNegative, Positive, checked
from core.errors import ConfigError

JITTER = 1e-2
"""eps: white noise that the released code adds to every prior variance."""
CONDITION = 1e8
"""c: frequencies beyond this condition number of the shortest kernel are pruned."""


class Basis(NamedTuple):
    """B and its frequencies."""

    matrix: Float[np.ndarray, "F T"]
    frequencies: Float[np.ndarray, " F"]
    circle: int
    """n."""


@checked
def highest_frequency(circle: Count, shortest: Positive | None = None, condition: Positive = CONDITION) -> int:
    """That is m = min(floor(n sqrt(log(c) / 2) / (pi l_min)), floor((n - 1) / 2)); the latter without pruning."""
    whole = (circle - 1) // 2
    if shortest is None:
        return whole
    return min(math.floor(circle / (math.pi * shortest) * math.sqrt(0.5 * math.log(condition))), whole)


@checked
def fourier_basis(
    bins: Count, circle: Count, shortest: Positive | None = None, condition: Positive = CONDITION
) -> Basis:
    """The basis of ``bins`` time bins on a circle of ``circle`` points.

    Args:
      bins: T.
      circle: n; T + 4 l is within 2e-4 of the plain RBF kernel, T + 6 l within 1e-7. The released code has 1.2 T.
      shortest: l_min, the shortest length scale in bins that must be representable; None prunes nothing.
      condition: c.

    Raises:
      ConfigError: where the circle is shorter than the trial.
    """
    if circle < bins:
        raise ConfigError(f"the circle must hold the trial: circle = {circle} is below bins = {bins}; try T + 4 l_min")
    m = highest_frequency(circle, shortest, condition)
    w = np.concatenate([np.arange(m + 1), np.arange(-m, 0)]).astype(float)
    phase = 2 * np.pi / circle * w[:, None] * np.arange(bins)
    waves = np.where(w[:, None] >= 0, np.cos(phase), np.sin(phase)) / math.sqrt(circle / 2)
    waves[0] /= math.sqrt(2)
    return Basis(waves, w, circle)


def spectrum(
    basis: Basis, lengths: Float[Array, " D"], rho: float | Array = 1.0, jitter: float = JITTER
) -> Float[Array, "F D"]:
    """Prior variances k of the coefficients of each latent."""
    omega = 2 * np.pi / basis.circle * basis.frequencies[:, None]
    return math.sqrt(2 * math.pi) * rho * lengths * jnp.exp(-jnp.square(omega * lengths) / 2) + jitter


@checked
def rbf(
    bins: Count, lengths: Float[Array, " D"], rho: float | Array = 1.0, jitter: NonNegative = 0.0
) -> Float[Array, "D T T"]:
    """The kernel rho exp(-(t - t')^2 / (2 l^2)) + jitter I, of each latent."""
    lag = np.arange(bins)[:, None] - np.arange(bins)
    kernel = rho * jnp.exp(-jnp.square(lag / lengths[:, None, None]) / 2)
    return kernel + jitter * jnp.eye(bins)


@checked
def windings(
    bins: Count, circle: Count, length: Positive, rho: NonNegative = 1.0, turns: Count = 8
) -> Float[np.ndarray, "T T"]:
    """The periodised kernel sum_j rho exp(-(t - t' + j n)^2 / (2 l^2)) in double precision."""
    lag = np.arange(bins)[:, None] - np.arange(bins)
    j = np.arange(-turns, turns + 1)[:, None, None]
    return rho * np.exp(-np.square(lag + j * circle) / (2 * length**2)).sum(axis=0)


@checked
def windows(recording: Float[Array, "time ..."], bins: Count, hop: Count) -> Float[Array, "chunks T ..."]:
    """A long recording as overlapping trials of ``bins`` bins, ``hop`` apart; a rest shorter than a hop is left out."""
    starts = np.arange(0, recording.shape[0] - bins + 1, hop)
    return recording[starts[:, None] + np.arange(bins)]


@checked
def stitch(chunks: Float[Array, "chunks T D"], hop: Count) -> Float[Array, "time D"]:
    """What :func:`windows` cut, put together again: a mean over overlaps which fades towards a chunk's ends."""
    count, bins, _ = chunks.shape
    fade = jnp.minimum(jnp.arange(bins) + 1, bins - jnp.arange(bins)).astype(chunks.dtype)
    places = (np.arange(count)[:, None] * hop + np.arange(bins)).ravel()
    length = (count - 1) * hop + bins
    total = jax.ops.segment_sum((chunks * fade[:, None]).reshape(-1, chunks.shape[-1]), places, length)
    weight = jax.ops.segment_sum(jnp.tile(fade, count), places, length)
    return total / weight[:, None]
