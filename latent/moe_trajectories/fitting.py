"""Maximum likelihood from many starts in float64, and what was reached."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, checked
from core.compilation import jit_unrolled
from core.errors import ConfigError
from core.linalg import of_each_matrix
from latent.moe_trajectories import model, starts
from latent.moe_trajectories.model import Arranged, GrowthData, Mixture, Params
from latent.moe_trajectories.natural import order_classes
from latent.moe_trajectories.optimise import Solutions, minimise, scoring_inverse
from latent.moe_trajectories.units import (
    Units,
    log_unit_volumes,
    own_params,
    standard_data,
    standard_params,
    units_of,
)

AGREE = 0.01
"""Starts whose -2 log L lies within this of the best count as having reached it."""


class Fit(NamedTuple):
    """The best solution, and what every start reached."""

    mixture: Mixture
    params: Params
    """Unconstrained, for the data's own units, in float64 on the host; classes in the order of their knots. Far from
    time 0 they may be too ill conditioned to compute with, or beyond float64, where ``standard`` is neither."""
    log_likelihood: float
    reached: np.ndarray
    """log L of every start."""
    evaluations: np.ndarray
    gradient: float
    """Largest entry of the gradient of log L by the standard parameters."""
    standard: Params
    """The same solution for the data in standard units; what everything else is computed from."""
    units: Units

    @property
    def agreeing(self) -> int:
        """Starts which reached the best -2 log L."""
        return int((2 * (self.log_likelihood - self.reached) < AGREE).sum())

    @property
    def parameters(self) -> int:
        """Free parameters."""
        return sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))


@functools.partial(jax.jit, static_argnums=(0, 3))
def draw_starts(mixture: Mixture, key: Key[Array, ""], arranged: Arranged, number: int) -> Params:
    """Random starts, stacked."""
    return jax.vmap(lambda key: starts.random_start(mixture, key, arranged))(jax.random.split(key, number))


def scores(mixture: Mixture, params: Params, arranged: Arranged) -> Float[Array, "n P"]:
    """Every person's gradient of its log-likelihood, in one reverse pass."""

    def single(params, person):
        alone = jax.tree.map(lambda leaf: leaf[..., None], person)
        return model.person_log_likelihoods(mixture, params, alone)[0]

    gradients = jax.vmap(jax.grad(single), in_axes=(None, -1))(params, arranged)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(gradients)], axis=1)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("lanes", "max_evaluations", "stacked"))
def descend(
    mixture: Mixture,
    first: Params,
    arranged: Arranged,
    *,
    lanes: int = 16,
    max_evaluations: int = 400,
    tolerance: float = 1e-8,
    stacked: bool = False,
) -> tuple[Params, Solutions]:
    """Maximises the likelihood from stacked starts: of one data set, or each start of its own where these are stacked.

    The first inverse Hessian is that of the outer product of the scores at the start.
    """
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], first))[1]
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(first)

    def of(i):
        return jax.tree.map(lambda leaf: leaf[i], arranged) if stacked else arranged

    def fun(x, i):
        return -model.log_likelihood(mixture, unravel(x), of(i))

    def information(pair):
        x, i = pair
        s = scores(mixture, unravel(x), of(i))
        return s.T @ s

    outer = jax.lax.map(information, (flat, jnp.arange(len(flat))))
    inverses = of_each_matrix(scoring_inverse, outer)
    found = minimise(fun, flat, inverses, lanes=lanes, tolerance=tolerance, max_evaluations=max_evaluations)
    return jax.vmap(unravel)(found.x), found


@checked
def fit(
    mixture: Mixture,
    data: GrowthData,
    key: Key[Array, ""] | None = None,
    *,
    starts: Count = 20,
    first: Params | None = None,
    lanes: Count = 16,
    check: bool = True,
) -> Fit:
    """The mixture of the largest likelihood that the starts reach.

    The data are standardised first (:mod:`latent.moe_trajectories.units`): times in calendar years or in days since
    birth, outcomes in points or in hundreds of them, give the same solution and differ in units only.

    Args:
      mixture: what is fitted.
      data: persons; see :func:`latent.moe_trajectories.frames.from_wide`.
      key: of the random starts.
      starts: how many of them.
      first: one start to use instead of random ones.
      lanes: how many starts are worked on at a time.
      check: whether a solution with a collapsed class is an error.

    Raises:
      ConfigError: where data cannot be used, no start led anywhere, or a class collapsed.
    """
    model.require_sound(data)
    with jax.enable_x64(True):
        units, arranged, volumes = standardise(mixture, double(data))
        if first is None:
            begin = draw_starts(mixture, jax.random.key(0) if key is None else key, arranged, starts)
        else:
            begin = jax.tree.map(lambda leaf: leaf[None], standard_params(mixture, double(first), units))
        params, found = descend(mixture, begin, arranged, lanes=lanes)
        reached = np.where(np.isfinite(found.value), -np.asarray(found.value) - float(volumes), -np.inf)
        if not np.isfinite(reached).any():
            raise ConfigError(
                "no start reached a finite likelihood: look at the data for extreme values, fit fewer classes, or "
                "use more starts"
            )
        best = int(np.argmax(reached))
        chosen = order_classes(jax.tree.map(lambda leaf: leaf[best], params))
        chosen, at = polish(mixture, chosen, arranged)
        shares = np.asarray(model.posterior(mixture, chosen, arranged).sum(1))
        own = own_params(mixture, chosen, units)
    if check:
        _require_no_collapse(mixture, shares)
    slope = float(np.abs(at.gradient).max(initial=0.0))
    own, standard, units = jax.tree.map(np.asarray, (own, chosen, units))
    log_likelihood = -float(at.value) - float(volumes)
    return Fit(mixture, own, log_likelihood, reached, np.asarray(found.evaluations), slope, standard, units)


def double(tree: PyTree) -> PyTree:
    """A tree of numbers in float64, where that is enabled."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@functools.partial(jax.jit, static_argnums=0)
def standardise(mixture: Mixture, data: GrowthData) -> tuple[Units, Arranged, Float[Array, ""]]:
    """Units of the data's own, the data in them, and by how much log L is smaller in the units that they came in."""
    units = units_of(mixture.curve, data)
    volumes = log_unit_volumes(mixture, units, data).sum()
    return units, model.arrange(standard_data(units, data)), volumes


def _require_no_collapse(mixture: Mixture, shares: np.ndarray) -> None:
    """A class with hardly more persons than growth factors describes nobody but them."""
    least, needed = int(np.argmin(shares)), len(mixture.curve.factors) + 2
    if shares[least] < needed:
        raise ConfigError(
            f"class {least + 1} of {mixture.classes} collapsed: it holds {shares[least]:.1f} persons, and its growth "
            f"factors need at least {needed}; fit {mixture.classes - 1} classes, or use more starts"
        )


class Curvature(NamedTuple):
    """Of -log L at some parameters, in the order of their flattened tree."""

    value: Float[Array, ""]
    gradient: Float[Array, " P"]
    hessian: Float[Array, "P P"]


def derivatives(mixture: Mixture, params: Params, arranged: Arranged) -> Curvature:
    """Exact derivatives: the Hessian is a forward derivative of the gradient along every axis."""
    x, unravel = ravel_pytree(params)
    slope = jax.value_and_grad(lambda x: -model.log_likelihood(mixture, unravel(x), arranged))

    def along(v):
        (value, gradient), (_, column) = jax.jvp(slope, (x,), (v,))
        return value, gradient, column

    value, gradient, hessian = jax.vmap(along, out_axes=(None, None, 0))(jnp.eye(x.size, dtype=x.dtype))
    return Curvature(value, gradient, hessian)


curvature = jit_unrolled(derivatives, static_argnums=0)
"""The same, compiled."""


def polish(mixture: Mixture, params: Params, arranged: Arranged, steps: int = 5) -> tuple[Params, Curvature]:
    """Newton steps with the exact Hessian as long as they lower both -log L and its gradient."""
    at = curvature(mixture, params, arranged)
    for _ in range(steps):
        x, unravel = ravel_pytree(params)
        trial = unravel(x - jnp.linalg.lstsq(at.hessian, at.gradient)[0])
        new = curvature(mixture, trial, arranged)
        lower = bool(new.value <= at.value + 1e-12 * abs(at.value))
        if not lower or not bool(abs(new.gradient).max() < abs(at.gradient).max()):
            break
        params, at = trial, new
    return params, at
