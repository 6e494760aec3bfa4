"""EK-FAC as an optax transform: updates are multiplied by (G + lambda)^{-1}, with G fitted as training goes on."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from core.checks import Count, checked
from core.kinds import Range
from core.learner import example_places
from interp.ekfac.capture import Capture
from interp.ekfac.curvature import (
    Curvature,
    Damping,
    covariance,
    eigenvalue_correction,
    kfac,
    plus_damping,
    precondition_tree,
    with_measured_eigenvalues,
)
from interp.ekfac.fisher import Fisher
from interp.ekfac.stages import Examples, Sums
from interp.likelihoods import Task


class EkfacState(NamedTuple):
    """Moving averages of the factors, and the curvature in use."""

    count: Int[Array, ""]
    factors: Sums
    curvature: Curvature


@checked
def ekfac_precondition(
    capture: Capture,
    task: Task,
    fisher: Fisher,
    damping: Damping,
    *,
    decay: Annotated[float, Range(0, below=1)] = 0.95,
    update_every: Count = 10,
) -> optax.GradientTransformationExtraArgs:
    """Updates become (G + lambda)^{-1} updates, layer by layer; leaves that no block holds become zero.

    ``update(updates, state, params, examples=batch, key=key)`` takes the batch whose factors enter the averages.

    Args:
      capture: of ``task.outputs``.
      task: the network and its likelihood.
      fisher: which output gradients.
      damping: added to the eigenvalues. There is no trust region: where the model is sure of itself its Fisher matrix
        vanishes and lambda alone bounds the step, so that too little of it diverges.
      decay: of the factors' moving averages; 0 uses the last batch alone.
      update_every: steps between eigendecompositions.
    """
    cover = covariance(capture, task, fisher)

    def init(params: PyTree) -> Any:
        empty = cover.init(jax.random.key(0), Examples(params, None, jnp.zeros(0, jnp.int32), jnp.zeros(0)))
        shapes = jax.eval_shape(lambda sums: kfac(capture, sums), empty)
        return EkfacState(empty.step, empty, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))

    def update(updates, state: Any, params=None, *, examples: PyTree, key: Any, **_):
        rows = jax.tree.leaves(examples)[0].shape[0]
        batch = Examples(params, examples, example_places(rows), jnp.ones(rows))
        aged = jax.tree.map(lambda x: decay * x, (state.factors.sums, state.factors.examples, state.factors.positions))
        factors = cover.update(Sums(state.count, key, *aged), batch)[0]

        def refreshed(_):
            basis = kfac(capture, factors)
            correction = eigenvalue_correction(capture, task, fisher)
            with_basis = batch._replace(params=(params, basis))
            sums = correction.update(correction.init(key, with_basis), with_basis)[0]
            return with_measured_eigenvalues(basis, sums)

        is_due = state.count % update_every == 0
        curvature = jax.lax.cond(is_due, refreshed, lambda c: c, state.curvature)
        new = precondition_tree(capture, plus_damping(curvature, damping), updates)
        return new, EkfacState(state.count + 1, factors._replace(step=state.count, key=state.factors.key), curvature)

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]
