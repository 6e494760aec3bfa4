"""Predictors to compare an invariant subset with; each is a vector of coefficients in R^d, zero at the target."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from causal.linear_sems import Moments
from causal.pac_invariance.icp import every_subset, icp
from causal.pac_invariance.invariance import Selection, Target, on_subset, train
from core.checks import NonNegative, OpenFraction, checked
from core.learner import GradientLearner, gradient_learner


@checked
def pooled(environments: Moments, target: Target, mask: Bool[Array, " d"]) -> Float[Array, " d"]:
    """Least squares on the given features of the pooled data: ERM on all, the oracle on the target's parents."""
    return on_subset(environments.second.mean(axis=0), target, mask).best()


@checked
def anchor(environments: Moments, target: Target, mask: Bool[Array, " d"], gamma: NonNegative) -> Float[Array, " d"]:
    """Anchor regression with the environments as anchors (Rothenhäusler et al., JRSS B 2021).

    argmin E[((1 - P)(Y - X b))^2] + gamma E[(P (Y - X b))^2], P the mean within the environment: gamma = 1 is least
    squares, gamma -> infinity asks for residuals without shift between environments.
    """
    between = jnp.einsum("ei,ej->ij", environments.mean, environments.mean) / environments.mean.shape[0]
    return on_subset(environments.covariance.mean(axis=0) + gamma * between, target, mask).best()


@checked
def irm_learner(target: int, penalty: NonNegative, tx: optax.GradientTransformation) -> GradientLearner:
    """Invariant risk minimisation over linear predictors v with the IRMv1 penalty (Arjovsky et al. 2019).

    mean_e R_e(v) + penalty mean_e (d R_e(s v) / ds at s = 1)^2, with R_e(v) = E(Y - X v)^2 / E Y^2, so that the penalty
    has no unit; the derivative is 2 (v^T H_e v - v^T c_e) / E Y^2. The batch is the second moments of the environments.
    """

    def loss(params, key, M: Float[Array, "env d d"]) -> tuple[Any, dict[str, Any]]:
        v = params["v"].at[target].set(0.0)
        energy = M[:, target, target]
        quadratic, linear = jnp.einsum("i,eij,j->e", v, M, v), M[:, target] @ v
        risks = 1 + (quadratic - 2 * linear) / energy
        slopes = 2 * (quadratic - linear) / energy
        return jnp.mean(risks) + penalty * jnp.mean(slopes**2), {"risk": jnp.mean(risks)}

    return gradient_learner(lambda key, M: {"v": jnp.zeros(M.shape[-1], M.dtype)}, loss, tx, batch_axes=0)


@checked
def safest(
    selection: Selection,
    M: Float[Array, "env d d"],
    target: Target,
    masks: Bool[Array, "subsets d"],
    radius: NonNegative,
) -> Float[Array, " d"]:
    """The predictor of least pooled error among the subsets whose spread is below the radius; of least spread if none.

    This makes a prediction out of the paper's acceptance rule; the choice is ours.
    """
    errors = jax.vmap(lambda w, mask: on_subset(M.mean(axis=0), target, mask).error(w))(selection.predictor, masks)
    good = selection.spread < radius
    best = jnp.where(good.any(), jnp.argmin(jnp.where(good, errors, jnp.inf)), jnp.argmin(selection.spread))
    return selection.predictor[best]


@checked
def survivors(environments: Moments, alpha: OpenFraction) -> dict[str, Bool[Array, " d"]]:
    """Of all others, what ICP finds for the last variable; the pair of least spread; and the pair of least error."""
    d = environments.mean.shape[-1]
    sets = every_subset(d, d - 1)
    pairs = sets[jnp.flatnonzero(sets.sum(axis=1) == 2, size=(d - 1) * (d - 2) // 2)]
    spread = train(environments.covariance, d - 1, pairs).spread
    of_all = environments.covariance.mean(axis=0)
    error = jax.vmap(lambda mask: (at := on_subset(of_all, d - 1, mask)).error(at.best()))(pairs)
    return {
        "ICP": icp(environments, d - 1, sets).causes(sets, alpha),
        "pair of least spread": pairs[jnp.argmin(spread)],
        "pair of least pooled error": pairs[jnp.argmin(error)],
    }
