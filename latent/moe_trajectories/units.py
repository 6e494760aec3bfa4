"""Units of a data set's own, in which it is fitted, so that no result depends on where a scale begins or on its unit.

Calendar years, or incomes in cents, are no worse than ages and thousands: everything is centred and scaled first, and
parameters are carried back exactly. With t = o + u t', y = a + s y', xe = m + d xe', x = c + v x' and A the matrix that
makes growth factors for the times t of those for t' (:attr:`Curve.moved`)::

    beta  = s beta' / v                      alpha = s A alpha' - B m + (a - beta c) e_1     Psi = s^2 A Psi' A'
    B     = s A B' / d                       theta = s^2 theta'
    log L = log L' - (measurements) log s - (where modelled) log d and log v for each covariate measured

The first factor's loading is 1, so that it takes up shifts of the outcome.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from core.learner import mean_over_devices
from latent.moe_trajectories import ldl
from latent.moe_trajectories.curves import Curve
from latent.moe_trajectories.model import Experts, GrowthData, Mixture, Params


class Unit(NamedTuple):
    """value = origin + unit * standard value."""

    origin: Any = 0.0
    unit: Any = 1.0

    def standard(self, value: Any) -> Any:
        """The value in this unit, from this origin."""
        return (value - self.origin) / self.unit

    def inverse(self) -> "Unit":
        """The unit that takes standard values back."""
        return Unit(-self.origin / self.unit, 1 / self.unit)


class Units(NamedTuple):
    """Origin and unit of everything measured."""

    time: Unit
    outcome: Unit
    expert: Unit
    """A vector of origins and one of units, an entry per covariate."""
    gating: Unit
    varying: Unit

    def inverse(self) -> "Units":
        """The units that take parameters for the data's own units to those for standard data."""
        return Units(*(unit.inverse() for unit in self))


def units_of(curve: Curve, data: GrowthData) -> Units:
    """Means and standard deviations over all that was measured, on all devices.

    Times and origins of outcomes are left as they are under a curve that does not say how its factors move.
    """
    seen = jnp.asarray(data.observed)
    everyone = jnp.ones_like(jnp.asarray(data.xg))
    time, outcome = _unit(data.t, seen), _unit(data.y, seen)
    varying = _unit(data.tvc, seen) if data.tvc.shape[-1] else Unit()
    if curve.moved is None:
        time, outcome, varying = Unit(), Unit(0.0, outcome.unit), Unit(0.0, varying.unit)
    return Units(time, outcome, _unit(data.xe, data.xe_observed, 0), _unit(data.xg, everyone, 0), varying)


def _unit(values: Any, known: Any, axis: int | None = None) -> Unit:
    values, known = jnp.asarray(values), jnp.asarray(known)
    count = jnp.maximum(mean_over_devices(known.sum(axis)), 1.0)
    origin = mean_over_devices((known * values).sum(axis)) / count
    variance = mean_over_devices((known * (values - origin) ** 2).sum(axis)) / count
    return Unit(origin, jnp.where(variance > 0, jnp.sqrt(variance), 1.0))


def standard_data(units: Units, data: GrowthData) -> GrowthData:
    """The data in these units; what is missing stays 0."""
    seen, tvc = data.observed, data.tvc
    return data._replace(
        t=units.time.standard(data.t) * seen,
        y=units.outcome.standard(data.y) * seen,
        xe=units.expert.standard(data.xe) * data.xe_observed,
        xg=units.gating.standard(data.xg),
        tvc=units.varying.standard(tvc) * seen if tvc.shape[-1] else tvc,
    )


def moved_shapes(curve: Curve, shapes: Float[Array, "K s"], units: Units) -> tuple[Any, Any]:
    """Shapes of all classes in the data's own units, and matrices that make growth factors in own units."""
    if curve.moved is None:
        return shapes, units.outcome.unit * jnp.eye(len(curve.factors), dtype=shapes.dtype)[None]
    moved, matrices = jax.vmap(lambda shape: curve.moved(shape, *units.time))(shapes)  # type: ignore[misc]
    return moved, units.outcome.unit * matrices.astype(shapes.dtype)


def own_params(mixture: Mixture, params: Params, units: Units) -> Params:
    """Parameters for the data's own units from those for standard data."""
    e, g = params.experts, units.gating
    shapes, factors = moved_shapes(mixture.curve, e.gamma, units)
    B = factors @ e.B / units.expert.unit
    beta = units.outcome.unit * e.beta / units.varying.unit
    constant = units.outcome.origin - (beta * units.varying.origin).sum(-1)
    alpha = (factors * e.alpha[:, None]).sum(-1) - (B * units.expert.origin).sum(-1)
    spread = jnp.broadcast_to(jnp.asarray(units.expert.unit, e.phi.dtype), (e.mux.shape[1],))
    experts = Experts(
        alpha=alpha.at[:, 0].add(constant),
        gamma=shapes,
        psi=ldl.moved_triangle(e.psi, factors),
        log_theta=e.log_theta + 2 * jnp.log(units.outcome.unit),
        B=B,
        mux=units.expert.origin + units.expert.unit * e.mux if e.mux.shape[1] else e.mux,
        phi=ldl.moved_triangle(e.phi, jnp.diag(spread)[None]) if e.mux.shape[1] else e.phi,
        beta=beta,
        tau=units.varying.origin + units.varying.unit * e.tau,
        log_omega=e.log_omega + 2 * jnp.log(units.varying.unit),
    )
    slopes = params.gating[:, 1:] / g.unit
    intercepts = params.gating[:, :1] - (slopes * g.origin).sum(-1, keepdims=True)
    return Params(jnp.concatenate([intercepts, slopes], 1), experts)


def standard_params(mixture: Mixture, params: Params, units: Units) -> Params:
    """Parameters for standard data from those for the data's own units."""
    return own_params(mixture, params, units.inverse())


def log_unit_volumes(mixture: Mixture, units: Units, data: GrowthData) -> Float[Array, " n"]:
    """What each person's log-likelihood in standard units exceeds that in the data's own by."""
    measured = data.observed.sum(-1)
    volumes = measured * jnp.log(units.outcome.unit)
    if mixture.covariates == "joint":
        volumes = volumes + (data.xe_observed * jnp.log(units.expert.unit)).sum(-1)
        if data.tvc.shape[-1]:
            volumes = volumes + measured * jnp.log(units.varying.unit)
    return volumes
