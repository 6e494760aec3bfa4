"""The training loop: chunks of steps, metrics once per chunk, checkpoints in the background, exact resume."""

import contextlib
import copy
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from core.checkpoint import Checkpoints, is_key
from core.errors import ConfigError, NonFiniteError, Preempted
from core.history import History, Row
from core.learner import LearnerLike
from core.loop import Loop, scan_steps
from core.workdir import claimed

EXIT_PREEMPTED = 75
"""The exit status of a process that saved its state because it was asked to stop (EX_TEMPFAIL: try again)."""

SAVE_SECONDS = 60.0
"""Time between checkpoints where no number of steps is given: a kill costs so much work at most, and a chunk."""


@runtime_checkable
class HostBatches(Protocol):
    """Batches drawn on the host, which can say where they are and go back there."""

    def __next__(self) -> PyTree:
        """The next batch."""
        ...

    def get_state(self) -> Any:
        """The position, as JSON values or bytes."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        ...


class Fit(NamedTuple):
    """A finished run."""

    state: Any
    history: list[Row]
    """One row per chunk: ``{"step": ..., "loss": ..., ...}``, with what ``evaluate`` returned at its steps."""


def fit(
    learner: LearnerLike,
    data: PyTree | HostBatches,
    *,
    key: jax.Array,
    steps: int,
    workdir: Path | str | None = None,
    chunk: int = 50,
    checkpoint_every: int | None = None,
    keep: int = 2,
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None,
    evaluate_every: int | None = None,
    loop: Loop = "scan",
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tensorboard: bool = False,
) -> Fit:
    """Trains a learner; given the same arguments again, goes on where it stopped and ends in the same bits.

    Args:
      learner: any learner.
      data: what every step is given (a learner with its own sampler, or full-batch training), or batches drawn on the
        host, one per step.
      key: the run's key; ``n`` stacked keys for :func:`core.learner.replicate_seeds`.
      steps: updates in all.
      workdir: a folder of the run's own for checkpoints and metrics; None keeps everything in memory.
      chunk: at most so many updates are dispatched at once; see :func:`chunk_length`.
      checkpoint_every: steps between checkpoints, which are taken at the end of a chunk; one a minute if None. The end
        of the run is always saved.
      keep: number of checkpoints kept.
      evaluate: ``state -> metrics``, called on the host every ``evaluate_every`` steps and at the end.
      evaluate_every: steps between evaluations; only at the end if None.
      loop: how a chunk is run; "host" for pmapped learners and for convolutional nets on the CPU.
      identity: what the run is, in JSON values; a workdir of another identity or key is refused.
      progress: called with (steps done, steps in all).
      tensorboard: whether to write TensorBoard files into the workdir too.

    Raises:
      NonFiniteError: where the loss or the state stops being finite; names step, metric and last good checkpoint.
      CheckpointError: where the workdir cannot be used or belongs to another run, or a checkpoint cannot be written.
      Preempted: where SIGTERM or Ctrl-C asked to stop; the state was saved.
    """
    folder = Path(workdir).absolute() if workdir is not None else None
    host = data if isinstance(data, HostBatches) else None
    chunks = _Chunks.plan(steps, chunk, checkpoint_every, evaluate_every)
    with contextlib.ExitStack() as stack:
        stop, checkpoints = _StopRequest(), None
        if folder:
            stack.enter_context(claimed(folder, {**(identity or {}), "key": _key_words(key)}))
            stack.enter_context(stop)
            checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder / "checkpoints", keep)))
        history = stack.enter_context(contextlib.closing(History(folder, tensorboard=tensorboard)))
        run = _Run(learner, None if host else _on_device(data), host, loop, history, checkpoints)
        run.start(key, steps)
        while run.step < steps and not stop.agreed():
            before, due = run.step, chunks.after(run.step)
            run.advance(due - before)
            if progress:
                progress(due, steps)
            if evaluate and (due == steps or _crosses(before, due, evaluate_every)):
                run.settle()
                history.add(due, evaluate(run.state))
            if due == steps or run.is_save_due(before, checkpoint_every):
                run.save()
        if checkpoints:
            checkpoints.wait()
        if stop.agreed():
            run.save()
            raise Preempted(f"asked to stop: saved step {run.step} of {steps} in {folder}")
    return Fit(run.state, history.rows)


class _Run:
    """The moving parts of one call: the state, the step reached and the chunk whose metrics are still on the device."""

    def __init__(self, learner, data, host: HostBatches | None, loop: Loop, history, checkpoints: Checkpoints | None):
        self.learner, self.data, self.host = learner, data, host
        self.loop: Loop = loop
        self.history, self.checkpoints = history, checkpoints
        self.state: Any = None
        self.step = 0
        self._saved: int | None = None
        self._saved_at = time.monotonic()
        self._never_finite: frozenset[str] = frozenset()
        self._updates: dict[int, Callable] = {}
        self._unread: tuple[int, int, Any] | None = None

    def start(self, key: jax.Array, steps: int) -> None:
        """A new state, or that of the newest good checkpoint."""
        self.state = _owned(self.learner.init(key, self._first_batch()))
        self._never_finite = frozenset(non_finite(self.state))  # by design: a best loss so far, say
        restored = self.checkpoints.restore(self.state) if self.checkpoints else None
        if self.checkpoints:
            self.checkpoints.clean()
        if restored is None:
            return
        self.step, self.state, self._saved = restored.step, restored.state, restored.step
        if self.step > steps:
            raise ConfigError(
                f"the workdir holds a run of {self.step} steps, longer than the {steps} asked for;"
                " ask for as many or use another workdir"
            )
        if self.host:
            self.host.set_state(restored.extra)
        self.history.resume(self.step)

    def advance(self, k: int) -> None:
        """Dispatches ``k`` updates, then reads the metrics of the chunk before."""
        unread = self._unread
        update = self._updates.get(k) or self._updates.setdefault(k, self._compile(k))
        self.state, metrics = update(self.state, self._next_batches(k) if self.host else self.data)
        self._unread = (self.step, k, metrics)
        self.step += k
        if unread:
            self._read(*unread)

    def settle(self) -> None:
        """Reads the metrics of the chunk in flight."""
        unread, self._unread = self._unread, None
        if unread:
            self._read(*unread)

    def save(self) -> None:
        """Makes sure that the state is finite and, with a workdir, begins a checkpoint of it unless there is one."""
        self.settle()
        if self._saved == self.step:
            return
        bad = [name for name in non_finite(self.state) if name not in self._never_finite]
        if bad:
            raise self._non_finite(self.step, f"{bad[0]} of the state")
        if self.checkpoints:
            self.history.sync()
            self.checkpoints.save(self.step, self.state, self.host.get_state() if self.host else None)
        self._saved, self._saved_at = self.step, time.monotonic()

    def is_save_due(self, before: int, every: int | None) -> bool:
        """Whether the chunk since step ``before`` completed an interval, in steps or in time."""
        if not self.checkpoints:
            return False
        if every:
            return _crosses(before, self.step, every)
        return _any_process(time.monotonic() - self._saved_at >= SAVE_SECONDS)

    def _compile(self, k: int) -> Callable:
        update = scan_steps(self.learner, k, stacked=self.host is not None, loop=self.loop).update
        return update if self.loop == "host" else jax.jit(update, donate_argnums=0)

    def _first_batch(self) -> PyTree:
        if not self.host:
            return self.data
        here = copy.deepcopy(self.host.get_state())
        batch = self._next_batch()
        self.host.set_state(here)
        return batch

    def _next_batches(self, k: int) -> PyTree:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[self._next_batch() for _ in range(k)])

    def _next_batch(self) -> PyTree:
        assert self.host is not None
        try:
            return next(self.host)
        except StopIteration:
            raise ConfigError(f"the batches ended after step {self.step}; repeat them or ask for fewer steps") from None

    def _read(self, start: int, k: int, metrics: Any) -> None:
        metrics = jax.device_get(metrics)
        watched = {"loss": metrics["loss"]} if "loss" in metrics else metrics
        for name, value in watched.items():
            bad = np.argwhere(~np.isfinite(np.asarray(value, np.float64)))
            if bad.size:
                run = f" of run {', '.join(map(str, bad[0][1:]))}" if bad.shape[1] > 1 else ""
                raise self._non_finite(start + int(bad[0][0]) + 1, f"metric {name!r}{run}")
        self.history.add(start + k, jax.tree.map(lambda leaf: leaf[-1], metrics))

    def _non_finite(self, step: int, what: str) -> NonFiniteError:
        if self.checkpoints:
            self.checkpoints.wait()
        good = self.checkpoints.newest_good() if self.checkpoints else None
        last = f"the last good checkpoint is {good}" if good else "there is no checkpoint before it"
        return NonFiniteError(
            f"{what} is not finite at step {step}; {last}; try a lower learning rate or clip gradients"
        )


def _on_device(data: PyTree) -> PyTree:
    """Arrays of the host go to the device once and for all; those of a mesh stay where they are."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf), data)


@jax.jit
def _owned(state: PyTree) -> PyTree:
    """Arrays that are no one else's, since updates consume them, and of strong types, which is what files give back."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if is_key(leaf) else jnp.array(leaf, jnp.result_type(leaf)), state)


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def non_finite(state: PyTree) -> list[str]:
    """The paths of the leaves that hold a NaN or infinity."""
    named = [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not named:
        return []
    finite = jax.device_get(_all_finite([leaf for _, leaf in named]))
    return [name for (name, _), good in zip(named, finite, strict=True) if not good]


class _Chunks(NamedTuple):
    """Where chunks end: every ``length`` steps, anew after each multiple of ``period``, and at the end of the run."""

    steps: int
    length: int
    period: int

    @classmethod
    def plan(cls, steps: int, chunk: int, checkpoint_every: int | None, evaluate_every: int | None) -> "_Chunks":
        named = {
            "steps": steps,
            "chunk": chunk,
            "checkpoint_every": checkpoint_every,
            "evaluate_every": evaluate_every,
        }
        for name, value in named.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        period = evaluate_every or checkpoint_every or chunk
        if checkpoint_every and period % checkpoint_every == 0:
            period = checkpoint_every
        return cls(steps, chunk_length(min(chunk, checkpoint_every or chunk), period), period)

    def after(self, step: int) -> int:
        """The end of the chunk that begins at a step."""
        within = step % self.period
        return min(self.steps, step + min(self.length - within % self.length, self.period - within))


def chunk_length(chunk: int, period: int) -> int:
    """The largest divisor of ``period`` from ``chunk / 2`` to ``chunk``, so that all chunks are equal and compile once.

    Where there is none it is ``chunk``, and the last chunk of each period is shorter and compiled apart.
    """
    largest = min(chunk, period)
    return next((length for length in range(largest, (chunk - 1) // 2, -1) if period % length == 0), largest)


def _crosses(before: int, after: int, interval: int | None) -> bool:
    return interval is not None and before // interval < after // interval


def _key_words(key: jax.Array) -> list:
    return np.asarray(jax.random.key_data(key)).tolist()


class _StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a request that the loop honours after its chunk."""

    def __init__(self):
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process of the run was asked to stop."""
        return _any_process(self._asked)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True


def _any_process(flag: bool) -> bool:
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
