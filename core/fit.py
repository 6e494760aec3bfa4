"""The training loop: chunks of steps, metrics once per chunk, checkpoints in the background, exact resume.

A run uses all devices of all its processes (:mod:`core.layout`), and its folder belongs to it alone: to its data, its
initial state, its update and its key.
"""

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
from jaxtyping import Array, Key, PyTree

from core import digest
from core.checkpoint import Checkpoints, is_key, to_json
from core.checks import Count, checked
from core.errors import CheckpointError, ConfigError, NonFiniteError, Preempted
from core.given import described, in_words, require_arrays, require_numbers, taking
from core.history import History, Row
from core.kinds import first_not_finite
from core.layout import Laid, lay_out, on_device
from core.learner import LearnerLike
from core.parallel import any_process, of_first_process, require_same_everywhere
from core.stopping import stop_signals
from core.workdir import CHECKPOINTS, claimed

EXIT_PREEMPTED = 75
"""The exit status of a process that saved its state because it was asked to stop (EX_TEMPFAIL: try again)."""

SAVE_SECONDS = 60.0
"""Time between checkpoints where no number of steps is given: a kill costs so much work at most, and a chunk."""


Evaluate = Callable[[Any], Mapping[str, Any]]
"""What is measured of a state, on the host: numbers, or arrays with one for each run of a pool."""


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


@checked
def fit(
    learner: LearnerLike,
    data: PyTree | HostBatches,
    *,
    key: Key[Array, "*runs"],
    steps: Count,
    workdir: Path | str | None = None,
    chunk: Count = 50,
    checkpoint_every: Count | None = None,
    keep: Count = 2,
    evaluate: Evaluate | None = None,
    evaluate_every: Count | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tensorboard: bool = False,
) -> Fit:
    """Trains a learner; given the same arguments again, goes on where it stopped and ends in the same bits.

    All devices of all processes share the work, along whichever axes the learner's :class:`core.learner.Layout` states.
    The result is that of one device, up to rounding.

    Args:
      learner: any learner.
      data: what every step is given (a learner with its own sampler, or full-batch training), the same in every
        process; or batches drawn on the host, one per step, of which every process draws its share of the examples.
      key: the run's key; ``n`` stacked keys for :func:`core.learner.replicate_seeds`.
      steps: updates in all.
      workdir: a folder of the run's own for checkpoints and metrics, the same for all processes; None keeps everything
        in memory. A folder of another run is refused: one whose data, initial state, update (loss, optimiser, sampler
        and their settings) or key differ. More steps of the same run go on from it.
      chunk: at most so many updates are dispatched at once; see :func:`chunk_length`.
      checkpoint_every: steps between checkpoints, which are taken at the end of a chunk; one a minute if None. The end
        of the run is always saved.
      keep: number of checkpoints kept.
      evaluate: ``state -> metrics``, called on the host every ``evaluate_every`` steps and at the end; a function of
        the state alone. Where a run goes on from a step that was evaluated, it must give what it gave there before.
      evaluate_every: steps between evaluations; only at the end if None.
      identity: what else the run is, in JSON values. It is needed where no digest tells: with a workdir, for batches of
        the host without a method ``identity()``, and for steps that call functions of Python.
      progress: called with (steps done, steps in all).
      tensorboard: whether to write TensorBoard files into the workdir too.

    Returns:
      The final state, as arrays of this process's first device unless the learner was laid over devices already, and
      the metrics.

    Raises:
      ConfigError: where a number is out of range, the data are no arrays or none that the learner takes, batches of
        several processes cannot be laid out as one, batches change their shape, ``evaluate`` gives no numbers, or a
        part of a run with a workdir has no digest and no ``identity``.
      NonFiniteError: where the loss or the state stops being finite; names step, metric and last good checkpoint, and
        the place in the data where they are not finite themselves.
      CheckpointError: where the workdir cannot be used or belongs to another run, or a checkpoint cannot be written.
      Preempted: where SIGTERM, Ctrl-C or a closing terminal (SIGHUP) asked to stop; the state was saved.
    """
    folder = Path(workdir).absolute() if workdir is not None else None
    steps, chunk, keep = int(steps), int(chunk), int(keep)  # numbers of NumPy have no place in a program or in JSON
    checkpoint_every, evaluate_every = (n if n is None else int(n) for n in (checkpoint_every, evaluate_every))
    chunks = _Chunks.plan(steps, chunk, checkpoint_every, evaluate_every)
    run = _Run(learner, data, key)
    with contextlib.ExitStack() as stack:
        stop = _StopRequest()
        if folder:
            stack.enter_context(claimed(folder, run.identity(key, identity or {})))
            stack.enter_context(stop)
            run.checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder / CHECKPOINTS, keep)))
        run.history = stack.enter_context(contextlib.closing(History(folder, tensorboard=tensorboard)))
        run.start(steps, evaluate, evaluate_every)
        while run.step < steps and not stop.agreed():
            before, due = run.step, chunks.after(run.step)
            run.advance(due - before)
            if progress and not stop.asked:  # a terminal that was closed takes no more
                progress(due, steps)
            if evaluate and (due == steps or _crosses(before, due, evaluate_every)):
                run.measure(evaluate)
            if due == steps or run.is_save_due(before, checkpoint_every):
                run.save()
        if run.checkpoints:
            run.checkpoints.wait()
        if stop.agreed():
            run.save()
            raise Preempted(f"asked to stop: saved step {run.step} of {steps} in {folder}")
    return Fit(run.local_state(), run.history.rows)


class _Run:
    """The moving parts of one call: the state, the step reached and the chunk whose metrics are still on the device."""

    def __init__(self, learner: LearnerLike, data: PyTree | HostBatches, key: jax.Array):
        if hasattr(data, "__next__") and not isinstance(data, HostBatches):
            raise ConfigError(
                f"batches from a {type(data).__name__} cannot be taken up again; give arrays, "
                "core.batches.GrainBatches, or an iterator with get_state and set_state"
            )
        self.host = data if isinstance(data, HostBatches) else None
        self.history: History
        self.checkpoints: Checkpoints | None = None
        self.step = 0
        self._shapes: list[Any] | None = None
        first = self._first_batch() if self.host else data
        require_arrays(first)
        self._learner, self._given = learner, on_device(first)
        self._started_at = copy.deepcopy(self.host.get_state()) if self.host else None
        to_json(self._started_at)
        if not self.host and jax.process_count() > 1:
            require_same_everywhere(digest.of_arrays(data), "the data of a run")
        with taking(self._given, "init"):
            initial = learner.init(key, self._given)
        if self.host and not learner.layout.placed:
            initial = of_first_process(initial)  # it may have looked at the batch, of which every process has its own
        with taking(self._given, "update"):
            self._laid: Laid = lay_out(learner, initial, self._given, host=self.host is not None)
        self.state: Any = self._laid.place_state(_owned(initial))
        self._data = None if self.host else self._laid.place_data(self._given)
        self._saved: int | None = None
        self._saved_at = time.monotonic()
        self._never_finite: frozenset[str] = frozenset()
        self._updates: dict[int, Callable] = {}
        self._unread: tuple[int, int, Any] | None = None
        self._evaluation: dict[str, Any] | None = None

    def identity(self, key: jax.Array, named: Mapping[str, Any]) -> dict[str, Any]:
        """What determines the result, as digests: data, initial state and update; the key, and what the caller names.

        Raises:
          ConfigError: where a part has no digest and the caller names nothing.
        """
        shapes = jax.eval_shape(lambda tree: tree, (self.state, self._given))
        try:
            initial = digest.of_program(self._learner.init, key, self._given, named=bool(named))
        except (TypeError, IndexError):  # it cannot be traced, as it computes on the host
            initial = digest.of_arrays(self.state)
        return {
            "data": self._identity_of_data(named),
            "initial state": {"sha256": initial},
            "training step (loss, optimiser, sampler or their settings)": {
                "sha256": digest.of_program(self._learner.update, *shapes, named=bool(named))
            },
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            **named,
        }

    def _identity_of_data(self, named: Mapping[str, Any]) -> dict[str, Any]:
        if self.host is None:
            return {"sha256": digest.of_arrays(self._given)}
        if hasattr(self.host, "identity"):
            return {**self.host.identity(), "from": str(self._started_at)}  # pyright: ignore[reportAttributeAccessIssue]
        if not named:
            raise ConfigError(
                f"nothing says which batches a {type(self.host).__name__} will bring, so that a folder could not tell "
                "them from others; give it a method identity() -> JSON values, or fit identity={...}"
            )
        return {"sha256": digest.of_arrays(self._given), "from": str(self._started_at)}

    def start(self, steps: int, evaluate: Evaluate | None, every: int | None) -> None:
        """Goes to the newest good checkpoint, if there is one."""
        self._never_finite = frozenset(non_finite(self.state))  # by design: a best loss so far, say
        if self.checkpoints is None:
            return
        self.checkpoints.require_own()
        restored = self.checkpoints.restore(self.state)
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
        if evaluate and (restored.evaluation or self.step == steps or (every and self.step % every == 0)):
            self._take_up(evaluate, every, restored.evaluation)

    def local_state(self) -> Any:
        """The state as arrays of this process."""
        return self._laid.local(self.state)

    def advance(self, k: int) -> None:
        """Dispatches ``k`` updates, then reads the metrics of the chunk before."""
        unread, self._evaluation = self._unread, None
        batches = self._next_batches(k) if self.host else self._data
        if k in self._updates:
            self.state, metrics = self._updates[k](self.state, batches)
        else:
            update = self._updates[k] = self._laid.program(k, self.host is not None)
            with taking(self._given, "update"):
                self.state, metrics = update(self.state, batches)
        self._unread = (self.step, k, metrics)
        self.step += k
        if unread:
            self._read(*unread)

    def settle(self) -> None:
        """Reads the metrics of the chunk in flight."""
        unread, self._unread = self._unread, None
        if unread:
            self._read(*unread)

    def measure(self, evaluate: Evaluate) -> None:
        """Evaluates the present state and notes the metrics."""
        self.settle()
        found = evaluate(self.local_state())
        require_numbers(found)
        self._evaluation = {name: np.asarray(value).tolist() for name, value in found.items()}
        self.history.add(self.step, self._evaluation)

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
            position = self.host.get_state() if self.host else None
            self.checkpoints.save(self.step, self.state, position, self._evaluation)
        self._saved, self._saved_at = self.step, time.monotonic()

    def is_save_due(self, before: int, every: int | None) -> bool:
        """Whether the chunk since step ``before`` completed an interval, in steps or in time."""
        if not self.checkpoints:
            return False
        if every:
            return _crosses(before, self.step, every)
        return any_process(time.monotonic() - self._saved_at >= SAVE_SECONDS)

    def _take_up(self, evaluate: Evaluate, every: int | None, then: dict[str, Any] | None) -> None:
        """Evaluates the state gone back to, and compares: a folder holds the results of one evaluation.

        Raises:
          CheckpointError: where those in the folder are of another one, or are missing.
        """
        self.measure(evaluate)
        now = self._evaluation or {}
        rows = {row["step"]: row for row in self.history.rows}
        for name, value in now.items():
            if then is not None and not (name in then and _close(value, then[name])):
                raise CheckpointError(
                    f"the workdir holds results of another evaluation: {name} of step {self.step} is "
                    f"{then.get(name, 'absent')} there and {value} here; use another workdir or delete this one"
                )
            for step in range(every or self.step, self.step, every or self.step):
                if name not in rows.get(step, {}):
                    raise CheckpointError(
                        f"the workdir holds no {name} of step {step}, which was not evaluated; use another workdir or "
                        "delete this one"
                    )

    def _first_batch(self) -> PyTree:
        assert self.host is not None
        here = copy.deepcopy(self.host.get_state())
        batch = self._next_batch()
        self.host.set_state(here)
        return batch

    def _next_batches(self, k: int) -> PyTree:
        batches = [self._next_batch() for _ in range(k)]
        return self._laid.place_batches(jax.tree.map(lambda *leaves: np.stack(leaves), *batches))

    def _next_batch(self) -> PyTree:
        assert self.host is not None
        try:
            batch = next(self.host)
        except StopIteration:
            raise ConfigError(f"the batches ended after step {self.step}; repeat them or ask for fewer steps") from None
        shapes = described(batch)
        if self._shapes is not None and shapes != self._shapes:
            raise ConfigError(
                f"a batch after step {self.step} is {in_words(shapes)}, the first one was {in_words(self._shapes)}; "
                "all must be alike: drop or pad the shorter ones"
            )
        self._shapes = shapes
        return batch

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
        return NonFiniteError(f"{what} is not finite at step {step}; {last}; {self._remedy()}")

    def _remedy(self) -> str:
        """The data are looked at where something went wrong: whose fault it is."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._given):
            if place := first_not_finite(leaf):
                what = "the first batch" if self.host else "the data"
                at = f" of {jax.tree_util.keystr(path)}" if path else ""
                return f"{what} have {place}{at}: remove or impute such rows, and start in another workdir"
        return "try a lower learning rate or clip gradients, in another workdir"


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
        period = evaluate_every or checkpoint_every or chunk
        if checkpoint_every and period % checkpoint_every == 0:
            period = checkpoint_every
        return cls(steps, chunk_length(min(chunk, checkpoint_every or chunk), period), period)

    def after(self, step: int) -> int:
        """The end of the chunk that begins at a step."""
        within = step % self.period
        return min(self.steps, step + min(self.length - within % self.length, self.period - within))


@checked
def chunk_length(chunk: Count, period: Count) -> int:
    """The largest divisor of ``period`` from ``chunk / 2`` to ``chunk``, so that all chunks are equal and compile once.

    Where there is none it is ``chunk``, and the last chunk of each period is shorter and compiled apart.
    """
    largest = min(chunk, period)
    return next((length for length in range(largest, (chunk - 1) // 2, -1) if period % length == 0), largest)


def _crosses(before: int, after: int, interval: int | None) -> bool:
    return interval is not None and before // interval < after // interval


def _close(a: Any, b: Any) -> bool:
    """Whether two evaluations agree up to what another device or compiler rounds otherwise."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-6, equal_nan=True)


class _StopRequest:
    """Turns SIGTERM, SIGHUP and the first Ctrl-C into a request that the loop honours after its chunk."""

    def __init__(self):
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in stop_signals()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process of the run was asked to stop."""
        return any_process(self.asked)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
