"""Many small maximum-likelihood problems at once: BFGS in lanes that take up the next problem when they are done.

A problem that is mapped over with vmap waits for the slowest of its batch at every line search. Here a lane does one
evaluation per turn, whether its line search needs another or not, and a lane whose problem is solved takes up the
next, so that all lanes work until the problems run out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ARMIJO = 1e-4
SHORTEST = 1e-9
"""Steps below this share of a full one end a line search: the search stands at a kink or at rounding."""
LOST = 1e-13
"""Decreases below this share of the value are rounding."""


class Solutions(NamedTuple):
    """What was found for every problem."""

    x: Float[Array, "problems P"]
    value: Float[Array, " problems"]
    decrement: Float[Array, " problems"]
    """g' H g / 2: the decrease that a quadratic model still promises."""
    evaluations: Int[Array, " problems"]


class _Lanes(NamedTuple):
    problem: Int[Array, " lanes"]
    x: Float[Array, "lanes P"]
    value: Float[Array, " lanes"]
    gradient: Float[Array, "lanes P"]
    inverse: Float[Array, "lanes P P"]
    """BFGS' estimate of the inverse Hessian."""
    direction: Float[Array, "lanes P"]
    step: Float[Array, " lanes"]
    decrement: Float[Array, " lanes"]
    fresh: Bool[Array, " lanes"]
    """Whether the inverse Hessian is still the one to start from."""
    evaluations: Int[Array, " lanes"]


def minimise(
    fun: Callable[[Float[Array, " P"], Int[Array, ""]], Float[Array, ""]],
    starts: Float[Array, "problems P"],
    inverse_hessians: Float[Array, "problems P P"],
    *,
    lanes: int = 16,
    tolerance: float = 1e-8,
    max_evaluations: int = 400,
) -> Solutions:
    """Minimises ``fun(x, i)`` over x for every problem i.

    Args:
      fun: the value; differentiable.
      starts: one per problem.
      inverse_hessians: estimates of the inverse Hessian at the starts.
      lanes: problems worked on at a time.
      tolerance: a problem is solved where the promised decrease g' H g / 2 is below it.
      max_evaluations: of one problem; what was reached then counts.
    """
    problems, size = starts.shape
    lanes = min(lanes, problems)
    evaluate = jax.vmap(jax.value_and_grad(fun))

    def take_up(problem) -> _Lanes:
        index = jnp.minimum(problem, problems - 1)
        infinite, zero = jnp.full(lanes, jnp.inf, starts.dtype), jnp.zeros((lanes, size), starts.dtype)
        one = jnp.ones(lanes, starts.dtype)
        return _Lanes(problem, starts[index], infinite, zero, inverse_hessians[index], zero, one, infinite,
                      jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.int32))  # fmt: skip

    def turn(carry):
        at, upcoming, found = carry
        trial = at.x + at.step[:, None] * at.direction
        value, gradient = evaluate(trial, jnp.minimum(at.problem, problems - 1))
        at, over = jax.vmap(_advance, in_axes=(0, 0, 0, 0, 0, None, None))(
            at, trial, value, gradient, inverse_hessians[jnp.minimum(at.problem, problems - 1)], tolerance,
            max_evaluations,
        )  # fmt: skip
        over &= at.problem < problems
        place = jnp.where(over, at.problem, problems)
        solved = Solutions(at.x, at.value, at.decrement, at.evaluations)
        found = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), found, solved)
        fresh = take_up(jnp.where(over, upcoming + jnp.cumsum(over) - 1, problems).astype(jnp.int32))
        at = jax.tree.map(lambda new, old: jnp.where(over.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, at)
        return at, upcoming + over.sum(dtype=jnp.int32), found

    nothing = jnp.zeros(problems, starts.dtype)
    found = Solutions(jnp.zeros_like(starts), nothing, nothing, jnp.zeros(problems, jnp.int32))
    carry = take_up(jnp.arange(lanes, dtype=jnp.int32)), jnp.int32(lanes), found
    return jax.lax.while_loop(lambda carry: (carry[0].problem < problems).any(), turn, carry)[2]


def _advance(at: _Lanes, trial, value, gradient, first_inverse, tolerance, max_evaluations):
    """One evaluation further: an accepted step and a new direction, or a shorter step along the old one."""
    slope = at.gradient @ at.direction
    slack = LOST * jnp.abs(at.value)
    accepted = jnp.isfinite(value) & jnp.isfinite(gradient).all() & (
        jnp.isinf(at.value) | (value <= at.value + ARMIJO * at.step * slope + slack)
    )  # fmt: skip
    inverse = jnp.where(accepted, _updated(at.inverse, trial - at.x, gradient - at.gradient), at.inverse)
    x = jnp.where(accepted, trial, at.x)
    new_gradient = jnp.where(accepted, gradient, at.gradient)
    exhausted = ~accepted & (at.step < SHORTEST)
    inverse = jnp.where(exhausted, first_inverse, inverse)
    newton = -inverse @ new_gradient
    down = new_gradient @ newton
    uphill = down >= 0
    newton = jnp.where(uphill, -new_gradient / (1.0 + jnp.linalg.norm(new_gradient)), newton)
    anew = accepted | exhausted
    decrement = jnp.where(anew, -0.5 * jnp.where(uphill, new_gradient @ newton, down), at.decrement)
    curved = value - at.value - at.step * slope
    shorter = jnp.clip(-0.5 * slope * at.step / jnp.where(curved > 0, curved, 1.0), 0.1, 0.5)
    shorter = at.step * jnp.where(jnp.isfinite(value) & (curved > 0), shorter, 0.1)
    evaluations = at.evaluations + 1
    over = (accepted & (decrement < tolerance)) | (exhausted & at.fresh) | (evaluations >= max_evaluations)
    over |= ~accepted & jnp.isinf(at.value)
    moved = _Lanes(at.problem, x, jnp.where(accepted, value, at.value), new_gradient, inverse,
                   jnp.where(anew, newton, at.direction), jnp.where(anew, 1.0, shorter), decrement,
                   exhausted | (at.fresh & ~accepted), evaluations)  # fmt: skip
    return moved, over


def _updated(inverse, s, y):
    """BFGS' update of the inverse Hessian; none where the curvature along the step is not positive."""
    curvature = s @ y
    h_y = inverse @ y
    usable = curvature > 1e-12 * jnp.sqrt((s @ s) * (y @ y) + 1e-300)
    rho = jnp.where(usable, 1.0 / jnp.where(usable, curvature, 1.0), 0.0)
    cross = jnp.outer(s, h_y)
    changed = inverse - rho * (cross + cross.T) + (rho * rho * (y @ h_y) + rho) * jnp.outer(s, s)
    return jnp.where(usable, changed, inverse)


def scoring_inverse(information: Float[Array, "P P"], damping: float = 1e-3) -> Float[Array, "P P"]:
    """Inverse of an information matrix, such as the scores' outer product, damped by its diagonal."""
    size, dtype = len(information), information.dtype
    scale = jnp.sqrt(jnp.diagonal(information) + 1e-8 * jnp.trace(information) / size + 1e-12)
    correlation = information / jnp.outer(scale, scale) + damping * jnp.eye(size, dtype=dtype)
    return jnp.linalg.inv(correlation) / jnp.outer(scale, scale)
