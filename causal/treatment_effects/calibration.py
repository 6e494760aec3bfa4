"""Whether estimated effects are right on average and go with the true ones."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from causal.treatment_effects.inference import Clusters, Column, Estimate, least_squares
from core.checks import Count, checked, require_indices


class Calibration(NamedTuple):
    """The best linear predictor of the effect given its estimate (Chernozhukov et al., arXiv 1712.04802)."""

    mean: Estimate
    """Average effect."""
    slope: Estimate
    """Of the effect on its estimate: 1 where it is calibrated, 0 where it says nothing."""


@checked
def calibration(effects: Column, scores: Column, clusters: Clusters) -> Calibration:
    """Regresses scores on (1, estimate - its mean)."""
    X = jnp.stack([jnp.ones_like(effects), effects - effects.mean()], axis=1)
    fitted = least_squares(X, scores, clusters)
    return Calibration(fitted.estimate(0), fitted.estimate(1))


@checked
def quantile_groups(effects: Column, groups: Count = 5) -> Int[Array, " n"]:
    """Numbers of equally large groups by estimated effect, the smallest first; ties in the order of the units."""
    rank = jnp.argsort(jnp.argsort(effects, stable=True), stable=True)
    return rank * groups // effects.shape[0]


@checked
def group_effects(group: Int[Array, " n"], scores: Column, clusters: Clusters, groups: Count = 5) -> Estimate:
    """The average effect in every group.

    Raises:
      ConfigError: where a group's number is not 0 to groups - 1.
    """
    require_indices("group", group, groups, "groups")
    member = (group[:, None] == jnp.arange(groups)).astype(scores.dtype)
    fitted = least_squares(member, scores, clusters)
    return Estimate(fitted.coefficients, jnp.sqrt(jnp.diagonal(fitted.covariance)))
