"""k updates as one."""

from typing import Any

import jax

from core.checks import Count, checked
from core.learner import Batch, Learner, LearnerLike, Metrics


@checked
def scan_steps(learner: LearnerLike, k: Count, *, stacked: bool = False) -> Learner:
    """``k`` updates as one, scanned.

    Args:
      learner: any learner.
      k: number of updates per call.
      stacked: True where each leaf of the batch has a leading axis of length ``k``, one slice per step; False where
        every step gets the same batch (a learner with its own sampler, or full-batch training).

    Returns:
      A learner whose update returns the metrics of all steps, stacked along a new leading axis.
    """

    def update(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        def body(state, xs):
            return learner.update(state, xs if stacked else batch)

        return jax.lax.scan(body, state, batch if stacked else None, length=k)

    return Learner(learner.init, update, learner.layout)


def runs_at_once(platform: str | None = None) -> int | None:
    """How many runs of a pool are updated together: one on the CPU, whose cache holds no more; elsewhere all (None)."""
    return 1 if (platform or jax.default_backend()) == "cpu" else None
