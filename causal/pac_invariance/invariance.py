r"""Representations, their best predictors, how far a pair is from invariant, and which subsets pass on a sample.

A representation is Phi in R^{k x d} applied to all of X, its column of the target zero. In an environment with second
moments M the squared error of a predictor w on Phi X is the quadratic w^T H w - 2 w^T c + M[t, t] with
H = Phi M Phi^T and c = Phi M[:, t], least at w_e = H^+ c. A subset of the features is Phi = diag(mask), and
then w lives in R^d with zeros outside of the subset: all subsets are one batch of masks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, checked, require_indices
from core.linalg import minimum_norm

Target = int | Int[Array, ""]


class Quadratic(NamedTuple):
    """The squared error of predictors on a representation, in one environment."""

    H: Float[Array, "k k"]
    c: Float[Array, " k"]
    energy: Float[Array, ""]
    """E[X_t^2]."""

    def error(self, w: Float[Array, " k"]) -> Float[Array, ""]:
        """E(X_t - w^T Phi X)^2."""
        return w @ self.H @ w - 2 * w @ self.c + self.energy

    def best(self) -> Float[Array, " k"]:
        """w_e, of minimum norm where it is not unique."""
        return minimum_norm(self.H, self.c)


def on_representation(M: Float[Array, "d d"], target: Target, Phi: Float[Array, "k d"]) -> Quadratic:
    """A general linear representation."""
    return Quadratic(Phi @ M @ Phi.T, Phi @ M[:, target], M[target, target])


def on_subset(M: Float[Array, "d d"], target: Target, mask: Bool[Array, " d"]) -> Quadratic:
    """A subset of the features: Phi = diag(mask)."""
    return Quadratic(jnp.where(mask[:, None] & mask, M, 0.0), jnp.where(mask, M[:, target], 0.0), M[target, target])


def coef(w: Float[Array, " k"], at: Quadratic) -> Float[Array, ""]:
    """||w_e - w|| / ||w||."""
    return relative(at.best(), w)


def relative(found: Float[Array, " k"], w: Float[Array, " k"]) -> Float[Array, ""]:
    """||found - w|| / ||w||; infinite for w = 0 unless both are."""
    distance, size = jnp.linalg.norm(found - w), jnp.linalg.norm(w)
    return jnp.where(size > 0, distance / jnp.where(size > 0, size, 1.0), jnp.where(distance > 0, jnp.inf, 0.0))


def grad(w: Float[Array, " k"], at: Quadratic) -> Float[Array, ""]:
    """||H w - c||, half the norm of the error's gradient; its square is a polynomial in the parameters of the SEM."""
    return jnp.linalg.norm(at.H @ w - at.c)


def risk(w: Float[Array, " k"], at: Quadratic) -> Float[Array, ""]:
    """(w - w_e)^T H (w - w_e), the excess squared error."""
    away = w - at.best()
    return away @ at.H @ away


Gauge = Callable[[Any, Quadratic], Array]
GAUGES: dict[str, Gauge] = {"coef": coef, "grad": grad, "risk": risk}
"""Ways to measure how far (Phi, w) is from invariant in an environment. The paper's own choice is not known to us."""


@checked
def feature_masks(d: Count, target: int) -> Bool[Array, "subsets d"]:
    """All non-empty subsets of the features, in binary order of the features."""
    require_indices("target", target, d, "variables")
    features = jnp.asarray([i for i in range(d) if i != target], int)
    codes = jnp.arange(1, 2 ** (d - 1))
    chosen = (codes[:, None] >> jnp.arange(d - 1)) & 1
    return jnp.zeros((len(codes), d), bool).at[:, features].set(chosen == 1)


@checked
def best_on_subsets(
    M: Float[Array, "d d"], target: Target, masks: Bool[Array, "subsets d"], chunk: Count | None = None
) -> Float[Array, "subsets d"]:
    """Least squares on every subset; in chunks of masks one after another where ``chunk`` is given."""
    return jax.lax.map(lambda mask: on_subset(M, target, mask).best(), masks, batch_size=chunk or len(masks))


@checked
def violations(
    w: Float[Array, "subsets d"],
    M: Float[Array, "env d d"],
    target: Target,
    masks: Bool[Array, "subsets d"],
    gauge: Gauge = coef,
) -> Float[Array, "env subsets"]:
    """The gauge of each subset's predictor in every environment."""
    each = jax.vmap(lambda w, mask, M: gauge(w, on_subset(M, target, mask)), in_axes=(0, 0, None))
    return jax.vmap(each, in_axes=(None, None, 0))(w, masks, M)


def rms_spread(b: Float[Array, "env d"], weights: Float[Array, " env"], diagonal: bool = True) -> Float[Array, ""]:
    """The mean distance between the coefficients of two environments.

    Args:
      b: coefficients.
      weights: 1 for the environments that count, 0 for padding.
      diagonal: average over all m^2 ordered pairs, as the paper's code does, or over the m (m - 1) of distinct ones.
    """
    distances = jnp.linalg.norm(b[:, None] - b[None], axis=-1)
    m = weights.sum()
    return weights @ distances @ weights / (m * (m - (0 if diagonal else 1)))


class Selection(NamedTuple):
    """What the training environments say of every subset."""

    predictor: Float[Array, "subsets d"]
    """The mean over environments of their least-squares coefficients."""
    spread: Float[Array, " subsets"]
    """The mean distance between environments, relative to the predictor's norm."""


@checked
def train(
    M: Float[Array, "env d d"],
    target: Target,
    masks: Bool[Array, "subsets d"],
    weights: Float[Array, " env"] | None = None,
    diagonal: bool = True,
) -> Selection:
    """Least squares per environment and subset; a subset is accepted where ``spread`` is below the radius."""
    weights = jnp.ones(M.shape[0], M.dtype) if weights is None else weights
    b = jax.vmap(lambda M: best_on_subsets(M, target, masks))(M)
    predictor = jnp.einsum("e,esd->sd", weights, b) / weights.sum()
    rms = jax.vmap(lambda b: rms_spread(b, weights, diagonal), in_axes=1)(b)
    return Selection(predictor, rms / jnp.linalg.norm(predictor, axis=-1))


def transfer(Phi: Float[Array, "k p"], mixing: Float[Array, "q p"]) -> Float[Array, "k q"]:
    """The representation of observations o = mixing x that equals Phi on the latents, Phi mixing^+."""
    return Phi @ jnp.linalg.pinv(mixing)


@checked
def observe(
    M: Float[Array, "d d"], target: int, mixing: Float[Array, "q p"], noise_variance: Float[Array, ""] | float = 0.0
) -> Float[Array, "q1 q1"]:
    """Second moments of (o, X_t) for o = mixing X_F + n, features F in order and the target last.

    Without noise invariance carries over in both directions where ``mixing`` has full column rank: Phi on X_F is
    Phi mixing^+ on o, and Psi on o is Psi mixing on X_F, with the same predictors. Noise breaks it (errors in
    variables).
    """
    q, d = mixing.shape[0], M.shape[-1]
    require_indices("target", target, d, "variables")
    features = jnp.asarray([i for i in range(d) if i != target], int)
    whole = jnp.zeros((q + 1, d), M.dtype).at[:q, features].set(mixing).at[q, target].set(1.0)
    return whole @ M @ whole.T + jnp.diag(jnp.append(jnp.full(q, noise_variance, M.dtype), 0.0))
