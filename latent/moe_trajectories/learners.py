"""The two ways to the maximum as learners: expectation-maximisation, and descent of -log L by any optimiser.

Both are fed persons (:class:`GrowthData`, all leaves with persons along axis 0), work under every parallelism of
:mod:`core.parallel`, and serve data too large for the Newton-like fits of :mod:`fitting`.

They compute in units of the data's own (:mod:`latent.moe_trajectories.units`), found from the batch that the learner is
initialised with: where times begin, and what outcomes are measured in, changes nothing, single precision included. The
start is given, and the loss reported, in the units that the data come in; :func:`params_of` gives a state's parameters
in them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from core.checks import checked
from core.errors import ConfigError
from core.learner import GradientLearner, Layout, Learner, State, gradient_learner, mean_over_devices
from latent.moe_trajectories import ldl, model
from latent.moe_trajectories.model import Arranged, Experts, GrowthData, Mixture, Params
from latent.moe_trajectories.units import (
    Units,
    log_unit_volumes,
    own_params,
    standard_data,
    standard_params,
    units_of,
)

FLOOR = 1e-6
"""Added to covariances on their diagonals."""


class EmState(NamedTuple):
    """What EM carries."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: Params
    """For data in standard units."""
    extra: Units


def params_of(mixture: Mixture, state: EmState | State) -> Params:
    """A state's parameters in the units that the data came in."""
    return own_params(mixture, state.params, state.extra)


@checked
def direct_learner(mixture: Mixture, start: Params, tx: optax.GradientTransformation) -> GradientLearner:
    """Descends the mean of -log L over persons from a given start, by the parameters for standard units."""

    def loss(params, key, batch):
        units, data = batch
        each = model.person_log_likelihoods(mixture, params, model.arrange(standard_data(units, data)))
        return (log_unit_volumes(mixture, units, data) - each).mean(), {}

    inner = gradient_learner(lambda key, batch: standard_params(mixture, start, batch[0]), loss, tx)

    def init(key, batch: GrowthData) -> State:
        units = units_of(mixture.curve, batch)
        return inner.init(key, (units, batch))._replace(extra=units)

    def gradients(state: State, batch: GrowthData):
        return inner.gradients(state, (state.extra, batch))

    def update(state: State, batch: GrowthData):
        return inner.update(state, (state.extra, batch))

    return GradientLearner(init, update, gradients, inner.apply, Layout(0))


@checked
def em_learner(mixture: Mixture, start: Params) -> Learner:
    """One update is one round of ECM (expectation, then conditional maximisations) over the batch.

    E-step: posteriors p_ik and E[eta], Var[eta] given everything. Then, each given the others: gates by a step of the
    monotone bound of Boehning (1992), the knot by Newton's method on the expected likelihood, and alpha, B, Psi,
    theta, mux, Phi in closed form.

    Raises:
      ConfigError: for mixtures with missing or time-varying covariates, which only direct maximisation handles.
    """
    if mixture.missing_covariates or start.experts.beta.shape[1]:
        raise ConfigError("EM handles neither missing nor time-varying covariates; maximise directly instead")

    def init(key, batch: GrowthData) -> EmState:
        units = units_of(mixture.curve, batch)
        return EmState(jnp.zeros((), jnp.int32), key, standard_params(mixture, start, units), units)

    def update(state: EmState, batch: GrowthData):
        arranged = model.arrange(standard_data(state.extra, batch))
        log_joint = model.log_joint(mixture, state.params, arranged)
        each = jax.nn.logsumexp(log_joint, axis=0)
        p = jnp.exp(log_joint - each)
        gating = _gates(state.params, p, arranged)
        experts = jax.vmap(lambda e, share: _maximised(mixture, e, share, arranged))(state.params.experts, p)
        metrics = mean_over_devices({"loss": (log_unit_volumes(mixture, state.extra, batch) - each).mean()})
        return EmState(state.step + 1, state.key, Params(gating, experts), state.extra), metrics

    return Learner(init, update, Layout(0))


def _mean(x: Any) -> Any:
    """Means over all persons, on however many devices they lie."""
    return mean_over_devices(x.mean(-1))


def _gates(params: Params, p: Float[Array, "K n"], arranged: Arranged) -> Float[Array, "classes-1 1+cg"]:
    """B + 2 (I + 11') (p - pi) X (X'X)^{-1}: the curvature of a softmax never exceeds (I - 11'/K) / 2."""
    if not params.gating.shape[0]:
        return params.gating
    design = jnp.concatenate([jnp.ones_like(p[:1]), arranged.xg])
    off = (p - jnp.exp(model.log_gates(params, arranged.xg)))[1:]
    slope = _mean(off[:, None] * design)
    squares = _mean(design[:, None] * design)
    spread = slope + slope.sum(0)
    return params.gating + 2 * ldl.solve_matrix(squares, spread.T).T


def _maximised(mixture: Mixture, experts: Experts, share: Float[Array, " n"], arranged: Arranged) -> Experts:
    """One class, given each person's share in it."""
    person = model.expert(mixture, experts, arranged)
    size = len(person.mean)
    shift = ldl.solve(person.factors, person.score)
    eta = jnp.stack([m + s for m, s in zip(person.mean, shift, strict=True)])
    var = jnp.stack([jnp.stack(jnp.broadcast_arrays(*row)) for row in ldl.inverse(person.factors)])
    weight = _mean(share)
    gamma = _shape(mixture, experts, share, eta, var, arranged)
    design = jnp.concatenate([jnp.ones_like(eta[:1]), arranged.xe])
    squares = _mean(share * design[:, None] * design) + FLOOR * jnp.eye(len(design), dtype=eta.dtype)
    coefficients = ldl.solve_matrix(squares, _mean(share * design[:, None] * eta))
    off = eta - coefficients.T @ design
    floor = FLOOR * jnp.eye(size, dtype=eta.dtype)
    psi = _mean(share * (var + off[:, None] * off)) / weight + floor
    misfit = arranged.squares[0] + _minus_twice_fit(mixture, gamma, eta, var, arranged)
    theta = _mean(share * misfit) / _mean(share * arranged.occasions.powers[0])
    mux, phi = experts.mux, experts.phi
    if mux.shape[0]:
        mux = _mean(share * arranged.xe) / weight
        away = arranged.xe - mux[:, None]
        phi = ldl.to_triangle(_mean(share * away[:, None] * away) / weight + FLOOR * jnp.eye(len(mux), dtype=eta.dtype))
    return experts._replace(
        alpha=coefficients[0], B=coefficients[1:].T, gamma=gamma, psi=ldl.to_triangle(psi), log_theta=jnp.log(theta),
        mux=mux, phi=phi,
    )  # fmt: skip


def _minus_twice_fit(mixture: Mixture, gamma, eta, var, arranged: Arranged) -> Float[Array, " n"]:
    """E[-2 y'Lambda eta + eta' Lambda'Lambda eta] of every person."""
    moments = mixture.curve.moments(gamma, arranged.occasions)
    size = len(eta)
    square = sum(moments.gram[a][b] * (var[a, b] + eta[a] * eta[b]) for a in range(size) for b in range(size))
    return square - 2 * (jnp.stack(moments.cross[0]) * eta).sum(0)


def _shape(mixture: Mixture, experts: Experts, share, eta, var, arranged: Arranged) -> Float[Array, " s"]:
    """A Newton step of the knot or rate on the expected squared error, of at most a tenth of 1 and its own size."""
    if not experts.gamma.shape[0]:
        return experts.gamma

    def error(g):
        return (share * _minus_twice_fit(mixture, g[None], eta, var, arranged)).mean()

    g = experts.gamma[0]
    slope, curvature = mean_over_devices((jax.grad(error)(g), jax.grad(jax.grad(error))(g)))
    largest = 0.1 * (jnp.abs(g) + 1)
    step = jnp.where(curvature > 0, -slope / jnp.where(curvature > 0, curvature, 1.0), -jnp.sign(slope) * largest)
    return experts.gamma + jnp.clip(step, -largest, largest)
