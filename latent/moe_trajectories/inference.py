"""Standard errors from exact derivatives, carried back to the original scale; what to distrust in a solution.

With H the Hessian of -log L at the optimum, s_i a person's score and D the derivative of the parameters as reported by
those as estimated (knot included, since F(gamma) enters every growth factor)::

    V_model    = D H^{-1} D'                               (OpenMx)
    V_sandwich = D H^{-1} (sum_i s_i s_i') H^{-1} D'       (Mplus' MLR)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from core.checks import Count, checked
from core.compilation import jit_unrolled
from core.errors import ConfigError
from core.linalg import of_each_matrix
from latent.moe_trajectories import fitting, ldl, model
from latent.moe_trajectories.fitting import Curvature, Fit
from latent.moe_trajectories.model import Arranged, GrowthData, Mixture, Params
from latent.moe_trajectories.natural import Natural, natural
from latent.moe_trajectories.units import Units, standard_data


class Errors(NamedTuple):
    """Estimates on the original scale with two kinds of standard errors, each shaped as the estimates."""

    estimate: Natural
    model: Natural
    sandwich: Natural
    hessian: Float[np.ndarray, "P P"]
    """Of -log L by the standard parameters, see :class:`Fit`; as the gradient."""
    gradient: Float[np.ndarray, " P"]


class Replications(NamedTuple):
    """Fits of many data sets: flattened :class:`Natural` estimates and standard errors."""

    params: Params
    log_likelihood: Float[Array, " R"]
    decrement: Float[Array, " R"]
    evaluations: Float[Array, " R"]
    estimate: Float[Array, "R Q"]
    error: Float[Array, "R Q"]
    posterior: Float[Array, "R K n"]


def _reported(mixture: Mixture, params: Params, arranged: Arranged, units: Units | None = None):
    """Reported parameters and their derivative by the estimated ones."""
    x, unravel = ravel_pytree(params)
    report = lambda x: ravel_pytree(natural(mixture, unravel(x), arranged.xg, units))[0]  # noqa: E731
    along = lambda v: jax.jvp(report, (x,), (v,))[1]  # noqa: E731
    return report(x), jax.vmap(along, out_axes=-1)(jnp.eye(x.size, dtype=x.dtype))


@functools.partial(jax.jit, static_argnums=0)
def _errors(mixture: Mixture, params: Params, arranged: Arranged, at: Curvature, units: Units | None = None):
    estimate, derivative = _reported(mixture, params, arranged, units)
    meat = fitting.scores(mixture, params, arranged)
    bread = jnp.linalg.inv(at.hessian)
    by_model = _deviations(derivative, bread)
    by_sandwich = _deviations(derivative, bread @ (meat.T @ meat) @ bread)
    return estimate, by_model, by_sandwich


def _deviations(derivative, covariance):
    """Square roots of the diagonal of D V D'; NaN where it is negative."""
    variances = jnp.einsum("qp,pr,qr->q", derivative, covariance, derivative)
    return jnp.sqrt(jnp.where(variances < 0, jnp.nan, variances))


@checked
def standard_errors(fit: Fit, data: GrowthData) -> Errors:
    """Estimates on the original scale, in the data's own units, with their standard errors, in float64 on the host.

    Raises:
      ConfigError: where growth factors at time 0 are beyond float64, because times are far from it.
    """
    with jax.enable_x64(True):
        arranged, params = _of_fit(fit, data), fitting.double(fit.standard)
        at = fitting.curvature(fit.mixture, params, arranged)
        flat = _errors(fit.mixture, params, arranged, at, fit.units)
        unravel = ravel_pytree(_natural(fit.mixture, params, arranged.xg, fit.units))[1]
        estimate, by_model, by_sandwich = (jax.tree.map(np.asarray, unravel(v)) for v in flat)
    if not np.isfinite(estimate.means).all():
        raise ConfigError(
            f"the growth factors are values and rates at time 0, which are beyond float64 under a "
            f"{fit.mixture.curve.name} curve with times around {float(fit.units.time.origin):.6g}; give times since a "
            "nearer origin, such as the first measurement (log L, classes and trajectories are the same)"
        )
    return Errors(estimate, by_model, by_sandwich, np.asarray(at.hessian), np.asarray(at.gradient))


_natural = jax.jit(natural, static_argnums=0)


@jax.jit
def _standard(units: Units, data: GrowthData) -> Arranged:
    return model.arrange(standard_data(units, data))


def _of_fit(fit: Fit, data: GrowthData) -> Arranged:
    """Data in the units of a fit."""
    model.require_sound(data)
    ce, cg = fit.params.experts.B.shape[2], fit.params.gating.shape[1] - 1
    if (data.xe.shape[1], data.xg.shape[1]) != (ce, cg):
        raise ConfigError(
            f"data have {data.xe.shape[1]} expert and {data.xg.shape[1]} gating covariates, the fit {ce} and {cg}"
        )
    return _standard(*fitting.double((fit.units, data)))


@checked
def replicate(
    mixture: Mixture, first: Params, arranged: Arranged, *, lanes: Count = 16, errors: bool = True
) -> Replications:
    """Fits stacked data sets, each from its own start, in one program, with model-based standard errors in another."""
    params, found = fitting.descend(mixture, first, arranged, lanes=lanes, stacked=True)
    estimate, error, posterior = _reports(mixture, params, arranged, errors)
    return Replications(params, -found.value, found.decrement, found.evaluations, estimate, error, posterior)


@functools.partial(jit_unrolled, static_argnums=(0, 3))
def _reports(mixture: Mixture, params: Params, arranged: Arranged, errors: bool):
    """Estimates, their standard errors (NaN where they are not wanted) and posteriors of stacked data sets."""

    def report(pair):
        at, data = pair
        estimate, derivative = _reported(mixture, at, data)
        hessian = fitting.derivatives(mixture, at, data).hessian if errors else jnp.zeros((0, 0))
        return estimate, derivative, hessian, model.posterior(mixture, at, data)

    estimate, derivative, hessian, posterior = jax.lax.map(report, (params, arranged))
    if errors:
        error = jax.vmap(_deviations)(derivative, of_each_matrix(jnp.linalg.inv, hessian))
    else:
        error = jnp.full_like(estimate, jnp.nan)
    return estimate, error, posterior


@checked
def warnings_of(fit: Fit, data: GrowthData, errors: Errors | None = None) -> list[str]:
    """What to distrust: an indefinite Hessian, near-singular covariances, small classes, knots at the edge."""
    found = []
    experts, mixture = fit.standard.experts, fit.mixture
    if errors is not None and np.linalg.eigvalsh(errors.hessian).min() <= 0:
        found.append("the Hessian is not positive definite: standard errors mean nothing; use more starts")
    with jax.enable_x64(True):
        psi = np.asarray(ldl.from_triangle(jnp.asarray(experts.psi, jnp.float64)))
        shares = np.asarray(_posterior(mixture, fitting.double(fit.standard), _of_fit(fit, data)).mean(1))
    times = np.asarray(data.t)[np.asarray(data.observed) > 0]
    low, high = np.quantile(times, [0.05, 0.95])
    for k in range(mixture.classes):
        if np.linalg.eigvalsh(psi[k]).min() < 1e-4:
            found.append(f"class {k + 1}: the covariance of its growth factors is nearly singular")
        if shares[k] < 0.05:
            found.append(f"class {k + 1} holds {shares[k]:.1%} of the persons")
        knot = fit.params.experts.gamma[k, 0] if "knot" in mixture.curve.shapes else low
        if not low <= knot <= high:
            found.append(f"class {k + 1}: its knot {knot:.4g} lies outside of 90 % of the times")
    return found


_posterior = jax.jit(model.posterior, static_argnums=0)


@checked
def classify(fit: Fit, data: GrowthData) -> np.ndarray:
    """Posterior probabilities of the classes, [n, K]."""
    with jax.enable_x64(True):
        return np.asarray(_posterior(fit.mixture, fitting.double(fit.standard), _of_fit(fit, data))).T
