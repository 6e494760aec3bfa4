"""Meta-learners: how regressions are put together to estimate effects.

S and T come from a network of both outcomes alone (:mod:`causal.treatment_effects.networks`). X, DR and R take its
outcomes and regress a target on the inputs once more; what is regressed, and with which weight, is all they differ in.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from causal.treatment_effects.networks import Target, Units
from causal.treatment_effects.scores import dr_scores

Outcomes = Float[Array, "batch 2"]


def _arms(outcomes: Outcomes, units: Units) -> tuple[Array, Array]:
    shape = (-1, *[1] * (units.y.ndim - 1))
    return outcomes[:, 0].reshape(shape), outcomes[:, 1].reshape(shape)


def effect_of(outcomes: Float[Array, "... 2"]) -> Float[Array, "..."]:
    """S- and T-learner, TARNet: the difference of the two outcomes."""
    return outcomes[..., 1] - outcomes[..., 0]


def x_targets(units: Units, outcomes: Outcomes) -> tuple[Target, Target]:
    """X-learner (Künzel et al., PNAS 2019): imputed effects of the controls, m1 - y, and of the treated, y - m0."""
    m0, m1 = _arms(outcomes, units)
    return (
        Target(units.x, m1 - units.y, units.weight * (1 - units.t)),
        Target(units.x, units.y - m0, units.weight * units.t),
    )


def x_effect(of_controls: Array, of_treated: Array, propensity: Any) -> Array:
    """X-learner: e tau_0 + (1 - e) tau_1."""
    return propensity * of_controls + (1 - propensity) * of_treated


def dr_target(units: Units, outcomes: Outcomes, propensity: Any) -> Target:
    """DR-learner (Kennedy 2020, arXiv 2004.14497): doubly robust scores, from outcomes fitted on other units."""
    m0, m1 = _arms(outcomes, units)
    return Target(units.x, dr_scores(units.t, units.y, m0, m1, propensity), units.weight)


def r_target(units: Units, outcomes: Outcomes, propensity: Any) -> Target:
    """R-learner (Nie and Wager, Biometrika 2021): (y - m)/(t - e) with weight (t - e)^2, m the mean outcome given x.

    Equal to the loss ((y - m) - (t - e) tau(x))^2, with m = e m1 + (1 - e) m0 fitted on other units.
    """
    m0, m1 = _arms(outcomes, units)
    centred = units.t - propensity
    mean = propensity * m1 + (1 - propensity) * m0
    return Target(units.x, (units.y - mean) / centred, units.weight * jnp.square(centred))
