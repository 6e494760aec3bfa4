"""Scores whose mean over any set of units is the average effect there, and the value of treating by a rule."""

from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from causal.treatment_effects.inference import Clusters, Column, Estimate, mean
from core.checks import FINITE, NonNegative, checked
from core.kinds import Range

Values = Annotated[Real[Array, "..."], FINITE]


@checked
def dr_scores(
    t: Values,
    y: Values,
    m0: Values,
    m1: Values,
    propensity: Annotated[Real[Array, "..."] | float, Range(above=0, below=1)],
) -> Float[Array, "..."]:
    """G_i = m1_i - m0_i + T_i/e (Y_i - m1_i) - (1-T_i)/(1-e) (Y_i - m0_i).

    Unbiased whatever m0 and m1 are where the propensity is known and they were fitted on other units.

    Raises:
      ConfigError: where a propensity is not between 0 and 1: a unit without a chance of one arm has no such score.
    """
    return m1 - m0 + t / propensity * (y - m1) - (1 - t) / (1 - propensity) * (y - m0)


@checked
def policy_value(treat: Bool[Array, " n"], scores: Column, clusters: Clusters, cost: float = 0.0) -> Estimate:
    """Gain per unit of the population over treating nobody, when those chosen are treated at a cost each."""
    return mean(jnp.where(treat, scores - cost, 0.0), clusters)


@checked
def affordable(
    priority: Column, budget: NonNegative, cost: Annotated[Real[Array, " n"] | float, Range(above=0)] = 1.0
) -> Bool[Array, " n"]:
    """Who is treated when units are taken by priority per cost, if positive, for as long as the mean cost permits.

    Args:
      priority: the expected effect.
      budget: mean cost per unit of the population.
      cost: of treating each.
    """
    cost = jnp.broadcast_to(jnp.asarray(cost, priority.dtype), priority.shape)
    order = jnp.argsort(-priority / cost)
    spent = jnp.cumsum(cost[order]) / priority.shape[0]
    return jnp.zeros(priority.shape, bool).at[order].set(spent <= budget * (1 + 1e-6)) & (priority > 0)
