"""The training loop: chunks of steps, metrics once per chunk, checkpoints in the background, exact resume."""

import contextlib
import fcntl
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from core.checkpoint import Checkpoints, write_atomically
from core.errors import CheckpointError, ConfigError, NonFiniteError, Preempted
from core.history import History, Row
from core.learner import LearnerLike
from core.loop import Loop, scan_steps

EXIT_PREEMPTED = 75
"""The exit status of a process that saved its state because it was asked to stop (EX_TEMPFAIL: try again)."""


@runtime_checkable
class HostBatches(Protocol):
    """Batches drawn on the host, which can say where they are and go back there."""

    def __next__(self) -> PyTree:
        """The next batch."""
        ...

    def get_state(self) -> Any:
        """The position, as JSON values."""
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
      chunk: at most so many updates are dispatched at once; the length used divides the two intervals below.
      checkpoint_every: steps between checkpoints; about a tenth of the run if None. The end is always saved.
      keep: number of checkpoints kept.
      evaluate: ``state -> metrics``, called on the host every ``evaluate_every`` steps and at the end.
      evaluate_every: steps between evaluations; only at the end if None.
      loop: how a chunk is run; "host" for pmapped learners and for convolutional nets on the CPU.
      identity: what the run is, in JSON values; a workdir of another run is refused.
      progress: called with (steps done, steps in all).
      tensorboard: whether to write TensorBoard files into the workdir too.

    Raises:
      NonFiniteError: where the loss or the state stops being finite; names step, metric and last good checkpoint.
      CheckpointError: where the workdir cannot be used or belongs to another run, or a checkpoint cannot be written.
      Preempted: where SIGTERM or Ctrl-C asked to stop; the state was saved.
    """
    folder = Path(workdir) if workdir is not None else None
    length = _chunk_length(steps, chunk, checkpoint_every, evaluate_every)
    host = data if isinstance(data, HostBatches) else None
    with contextlib.ExitStack() as stack:
        if folder:
            stack.enter_context(_claimed(folder, identity))
        stop = stack.enter_context(_StopRequest()) if folder else _StopRequest()
        history = stack.enter_context(contextlib.closing(History(folder, tensorboard=tensorboard)))
        checkpoints = (
            stack.enter_context(contextlib.closing(Checkpoints(folder / "checkpoints", keep))) if folder else None
        )
        run = _Run(learner, None if host else jax.device_put(data), host, loop, history, checkpoints)
        run.start(key, steps)
        save_every = checkpoint_every or length * max(1, steps // (10 * length))
        while run.step < steps:
            run.advance(min(length - run.step % length, steps - run.step))
            if progress:
                progress(run.step, steps)
            ended = run.step == steps
            if evaluate and (ended or (evaluate_every and run.step % evaluate_every == 0)):
                run.settle()
                history.add(run.step, evaluate(run.state))
            stopping = stop.agreed()
            if checkpoints and (ended or stopping or run.step % save_every == 0):
                run.save()
            if stopping and not ended:
                assert checkpoints is not None
                checkpoints.wait()
                raise Preempted(f"asked to stop: saved step {run.step} of {steps} to {checkpoints.path(run.step)}")
        run.settle()
    return Fit(run.state, history.rows)


class _Run:
    """The moving parts of one call: the state, the step reached and the chunk whose metrics are still on the device."""

    def __init__(self, learner, data, host: HostBatches | None, loop: Loop, history, checkpoints: Checkpoints | None):
        self.learner, self.data, self.host = learner, data, host
        self.loop: Loop = loop
        self.history, self.checkpoints = history, checkpoints
        self.state: Any = None
        self.step = 0
        self._updates: dict[int, Callable] = {}
        self._unread: tuple[int, int, Any] | None = None

    def start(self, key: jax.Array, steps: int) -> None:
        """A new state, or that of the newest good checkpoint."""
        self.state = self.learner.init(key, self._first_batch())
        if not self.checkpoints:
            return
        restored = self.checkpoints.restore(self.state)
        self.checkpoints.clean()
        if restored is None:
            return
        self.step, self.state = restored.step, restored.state
        if self.step > steps:
            raise ConfigError(
                f"{self.checkpoints.folder.parent} holds a run of {self.step} steps, longer than the {steps} asked for;"
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
        """Begins a checkpoint of the state, which must be finite."""
        assert self.checkpoints is not None
        self.settle()
        bad = first_non_finite(self.state)
        if bad:
            raise self._non_finite(self.step, f"{bad} of the state")
        self.checkpoints.save(self.step, self.state, self.host.get_state() if self.host else None)

    def _compile(self, k: int) -> Callable:
        update = scan_steps(self.learner, k, stacked=self.host is not None, loop=self.loop).update
        return update if self.loop == "host" else jax.jit(update, donate_argnums=0)

    def _first_batch(self) -> PyTree:
        if not self.host:
            return self.data
        here = self.host.get_state()
        batch = next(self.host)
        self.host.set_state(here)
        return batch

    def _next_batches(self, k: int) -> PyTree:
        assert self.host is not None
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(next(self.host) for _ in range(k)))

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


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def first_non_finite(state: PyTree) -> str | None:
    """The path of the first leaf that holds a NaN or infinity, if any does."""
    named = [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not named:
        return None
    finite = jax.device_get(_all_finite([leaf for _, leaf in named]))
    return next((name for (name, _), good in zip(named, finite, strict=True) if not good), None)


def _chunk_length(steps: int, chunk: int, *intervals: int | None) -> int:
    """The largest length up to ``chunk`` which divides every interval."""
    for name, value in (("steps", steps), ("chunk", chunk), *(("interval", i) for i in intervals if i is not None)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    period = math.gcd(*(i for i in intervals if i is not None))
    if not period:
        return min(chunk, steps)
    return max(divisor for divisor in range(1, min(chunk, period) + 1) if period % divisor == 0)


@contextlib.contextmanager
def _claimed(folder: Path, identity: Mapping[str, Any] | None) -> Iterator[None]:
    """Makes sure that the folder can be written, is this run's and is used by no other process at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f".lock-{jax.process_index()}", "w")  # noqa: SIM115 - held until the run ends
    except OSError as error:
        raise CheckpointError(f"cannot write to workdir {folder}: {error.strerror}; name another") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(f"another process is running in workdir {folder}; wait or name another") from error
        _require_identity(folder / "identity.json", identity)
        yield


def _require_identity(path: Path, identity: Mapping[str, Any] | None) -> None:
    if identity is None:
        return
    ours = json.loads(json.dumps(identity))
    if not path.exists():
        if jax.process_index() == 0:
            write_atomically(path, json.dumps(ours, indent=1))
        return
    theirs = json.loads(path.read_text())
    differing = [
        f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"workdir {path.parent} belongs to another run: {'; '.join(differing)};"
            " use another workdir or delete this one"
        )


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
        if jax.process_count() == 1:
            return self._asked
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.asarray(self._asked))))

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
