"""How k updates are put together: scanned, unrolled or dispatched from the host; the result is the same."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from core.learner import Batch, Learner, LearnerLike, Metrics

Loop = Literal["scan", "unroll", "host"]
ModelKind = Literal["dense", "convolutional"]


def loop_policy(kind: ModelKind = "dense", platform: str | None = None) -> Loop:
    """The fastest loop for a kind of model on a platform.

    XLA's CPU backend runs a convolution inside ``scan`` or ``while_loop`` 16 to 40 times slower than outside of it, so
    there loops over convolutional nets are dispatched from the host; everything else is scanned.

    Args:
      kind: "convolutional" where the update contains convolutions.
      platform: "cpu", "gpu" or "tpu"; the default backend's if None.
    """
    platform = platform or jax.default_backend()
    return "host" if platform == "cpu" and kind == "convolutional" else "scan"


def runs_at_once(platform: str | None = None) -> int | None:
    """How many runs of a pool are updated together: one on the CPU, whose cache holds no more; elsewhere all (None)."""
    return 1 if (platform or jax.default_backend()) == "cpu" else None


def scan_steps(learner: LearnerLike, k: int, *, stacked: bool = False, loop: Loop = "scan") -> Learner:
    """``k`` updates as one.

    Args:
      learner: any learner.
      k: number of updates per call.
      stacked: True where each leaf of the batch has a leading axis of length ``k``, one slice per step; False where
        every step gets the same batch (a learner with its own sampler, or full-batch training).
      loop: "scan" and "unroll" give a pure update to be jitted; "host" jits the learner's update, calls it ``k``
        times and must not be jitted itself.

    Returns:
      A learner whose update returns the metrics of all steps, stacked along a new leading axis.
    """
    if loop == "host":
        return Learner(learner.init, _host_steps(learner, k, stacked))

    def update(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        def body(state, xs):
            return learner.update(state, xs if stacked else batch)

        return jax.lax.scan(body, state, batch if stacked else None, length=k, unroll=loop == "unroll")

    return Learner(learner.init, update)


def _host_steps(learner: LearnerLike, k: int, stacked: bool):
    step = jax.jit(learner.update, donate_argnums=0)

    def update(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        history = []
        for i in range(k):
            state, metrics = step(state, jax.tree.map(lambda leaf, i=i: leaf[i], batch) if stacked else batch)
            history.append(metrics)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)

    return update
