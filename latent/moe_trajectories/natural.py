"""Parameters on the original scale, where users read them, and the order of the classes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent.moe_trajectories import ldl
from latent.moe_trajectories.model import Mixture, Params, log_gates
from latent.moe_trajectories.units import Units, moved_shapes, own_params


class Natural(NamedTuple):
    """Parameters on the original scale of the field."""

    means: Float[Array | np.ndarray, "K p"]
    """alpha: means of the growth factors at xe = 0."""
    shape: Float[Array | np.ndarray, "K s"]
    """The knot."""
    covariance: Float[Array | np.ndarray, "K p p"]
    """Psi: what covariates leave unexplained."""
    residual: Float[Array | np.ndarray, " K"]
    effects: Float[Array | np.ndarray, "K p ce"]
    covariate_means: Float[Array | np.ndarray, "K ce"]
    covariate_covariance: Float[Array | np.ndarray, "K ce ce"]
    varying_effect: Float[Array | np.ndarray, "K v"]
    varying_means: Float[Array | np.ndarray, "K occasions"]
    varying_variances: Float[Array | np.ndarray, "K occasions"]
    gating: Float[Array | np.ndarray, "classes-1 1+cg"]
    total_means: Float[Array | np.ndarray, "K p"]
    """alpha + B mux: means of the growth factors in the class (equal to ``means`` where xe is not modelled)."""
    proportions: Float[Array | np.ndarray, " K"]
    """Mean of pi_k(xg) over the persons."""


def natural(mixture: Mixture, params: Params, xg: Float[Array, "cg n"], units: Units | None = None) -> Natural:
    """Back to the original scale: mu = F mu_s, Psi = F Psi_s F', B = F B_s with F = F(gamma).

    Args:
      mixture: what was fitted.
      params: its parameters.
      xg: gating covariates, persons last.
      units: those in which ``params`` and ``xg`` are; what is returned is in the data's own. The covariance is carried
        over as such, for its triangle far from time 0 may be more ill conditioned than rounding allows.
    """
    own = params if units is None else own_params(mixture, params, units)
    e = own.experts
    f = jax.vmap(mixture.curve.to_original)(e.gamma).astype(e.alpha.dtype)
    means = jnp.einsum("kab,kb->ka", f, e.alpha)
    effects = jnp.einsum("kab,kbc->kac", f, e.B)
    total = means + jnp.einsum("kac,kc->ka", effects, e.mux) if e.mux.shape[1] else means
    if units is not None:
        f = f @ moved_shapes(mixture.curve, params.experts.gamma, units)[1]
    covariance = jnp.einsum("kab,kbc,kdc->kad", f, ldl.from_triangle(params.experts.psi), f)
    proportions = jnp.exp(log_gates(params, xg)).mean(1)
    phi, omega = ldl.from_triangle(e.phi), jnp.exp(e.log_omega)
    theta = jnp.exp(e.log_theta)
    return Natural(means, e.gamma, covariance, theta, effects, e.mux, phi, e.beta, e.tau, omega, own.gating, total,
                   proportions)  # fmt: skip


def order_classes(params: Params) -> Params:
    """The same mixture with classes in the order of their knots, or of their first means where there is no shape."""
    e = params.experts
    order = jnp.argsort(e.gamma[:, 0] if e.gamma.shape[1] else e.alpha[:, 0])
    return permute_classes(params, order)


def permute_classes(params: Params, order: Any) -> Params:
    """The same mixture with its classes in another order; gating coefficients are those relative to the new first."""
    full = jnp.concatenate([jnp.zeros_like(params.gating[:1]), params.gating]) if params.gating.size else None
    experts = jax.tree.map(lambda leaf: leaf[order], params.experts)
    if full is None:
        return Params(params.gating, experts)
    full = full[order]
    return Params(full[1:] - full[:1], experts)
