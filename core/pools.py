"""Many runs on several data sets as one program: seeds, weights and data sets differ from run to run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from core.batches import epoch_sampler
from core.checks import Count, checked
from core.learner import Learner, LearnerLike, replicate_seeds, with_sampler


class Pool(NamedTuple):
    """Runs and what they are trained on."""

    data: PyTree
    """Leaves [sets, rows, ...]: data sets of equal size, which all runs share."""
    of: Int[Array, " runs"]
    """Which data set a run sees."""
    own: PyTree
    """Leaves [runs, ...]: what else differs, such as the weight of a term."""


@checked
def pool_learner(
    single: LearnerLike, batch: Callable[[Any, Any], Any], *, runs: Count, batch_size: Count, batch_axes: Any = 0,
    at_once: Count | None = None,
) -> Learner:  # fmt: skip
    """Trains the runs of a :class:`Pool`, each on shuffled epochs of its own data set.

    Args:
      single: the learner of one run.
      batch: ``(rows of the run's data set, the run's own)`` to what ``single`` is fed.
      runs: how many.
      batch_size: rows per step.
      batch_axes: which leaves of a batch hold examples, see :func:`core.learner.with_sampler`.
      at_once: how many are vmapped, see :func:`core.learner.replicate_seeds`.
    """
    draw = epoch_sampler(batch_size)

    def sample(pool: Pool, key, step) -> Any:
        rows = draw(jnp.arange(jax.tree.leaves(pool.data)[0].shape[1]), key, step)
        return batch(jax.tree.map(lambda leaf: leaf[pool.of, rows], pool.data), pool.own)

    axes: Any = Pool(None, 0, 0)  # pyright: ignore[reportArgumentType]
    return replicate_seeds(with_sampler(single, sample, batch_axes), runs, axes, at_once)
