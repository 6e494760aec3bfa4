"""Mixtures of experts of growth curves: latent classes of trajectories, with covariates on class and on change.

Liu & Perera, Extending Mixture of Experts Model to Investigate Heterogeneity of Trajectories: When, Where and How to
Add Which Covariates, Psychological Methods 2022, arXiv 2007.02432.

    data = from_wide(table, outcomes, times, expert=["ex1", "ex2"], gating=["gx1", "gx2"])
    found = fit(Mixture(2), data, jax.random.key(0), starts=100)
    estimates(found, standard_errors(found, data))
"""

from latent.moe_trajectories import forest
from latent.moe_trajectories.curves import BILINEAR, CURVES, EXPONENTIAL, JENSS_BAYLEY, QUADRATIC, Curve, bilinear
from latent.moe_trajectories.fitting import Fit, curvature, descend, draw_starts, fit, scores
from latent.moe_trajectories.frames import (
    estimates,
    from_long,
    from_wide,
    memberships,
    names_of,
    persons,
    standardised,
    trajectories,
)
from latent.moe_trajectories.inference import Errors, Replications, classify, replicate, standard_errors, warnings_of
from latent.moe_trajectories.learners import direct_learner, em_learner, params_of
from latent.moe_trajectories.model import (
    Experts,
    GrowthData,
    Mixture,
    Params,
    arrange,
    log_likelihood,
    person_log_likelihoods,
    posterior,
)
from latent.moe_trajectories.natural import Natural, natural, order_classes, permute_classes
from latent.moe_trajectories.selection import accuracy, criteria, entropy, enumerate_classes, two_step_gating
from latent.moe_trajectories.simulate import Truth, example_truth, simulate, true_params
from latent.moe_trajectories.starts import random_start, start_from
from latent.moe_trajectories.units import Unit, Units, own_params, standard_data, standard_params, units_of

__all__ = [
    "BILINEAR",
    "CURVES",
    "EXPONENTIAL",
    "JENSS_BAYLEY",
    "QUADRATIC",
    "Curve",
    "Errors",
    "Experts",
    "Fit",
    "GrowthData",
    "Mixture",
    "Natural",
    "Params",
    "Replications",
    "Truth",
    "Unit",
    "Units",
    "accuracy",
    "arrange",
    "bilinear",
    "classify",
    "criteria",
    "curvature",
    "descend",
    "direct_learner",
    "draw_starts",
    "em_learner",
    "entropy",
    "enumerate_classes",
    "estimates",
    "example_truth",
    "fit",
    "forest",
    "from_long",
    "from_wide",
    "log_likelihood",
    "memberships",
    "names_of",
    "natural",
    "order_classes",
    "own_params",
    "params_of",
    "permute_classes",
    "person_log_likelihoods",
    "persons",
    "posterior",
    "random_start",
    "replicate",
    "scores",
    "simulate",
    "standard_data",
    "standard_errors",
    "standard_params",
    "standardised",
    "start_from",
    "trajectories",
    "true_params",
    "two_step_gating",
    "units_of",
    "warnings_of",
]
