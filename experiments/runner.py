"""Runs a system: cells that are done are skipped, each finished cell is written whole, a stop request is honoured."""

import contextlib
import datetime
import itertools
import json
import os
import signal
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from core import records
from core.compilation import quick_compilation
from core.errors import ConfigError, Preempted
from core.parallel import is_primary
from core.records import Record, Scalar
from experiments import runs, settings
from experiments.progress import Progress
from experiments.registry import Found
from experiments.runs import fingerprint


class RunContext:
    """The concrete :class:`experiments.system.Context` of one run."""

    def __init__(self, slug: str, preset: str, config: Any, seeds: Sequence[int], folder: Path, data_dir: Path | None):
        self.preset, self.seeds, self.data_dir = preset, tuple(seeds), data_dir
        self.workdir = folder / "work" / fingerprint(config, seeds)
        self._slug, self._config, self._path = slug, config, folder / runs.RECORDS
        self._done = {r.provenance["cell"]["key"] for r in runs.whole(records.read(self._path))}
        self._noted: list[Record] = []
        self.display = Progress(f"{slug}, preset {preset}", speaks=is_primary(), bar=True)

    def cells(self, cells: Iterable[Mapping[str, Scalar]]) -> None:
        """Announces cells, so that the display can count them."""
        self.display.announce(map(self._key, cells), self._done.__contains__)

    def done(self, **cell: Scalar) -> bool:
        """Whether a former run with this configuration finished the cell; all processes get the answer of the first."""
        answer = self._key(cell) in self._done
        if jax.process_count() == 1:
            return answer
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))

    def record(self, *, dataset: str, method: str, metric: str, seed: int, value: float, **coords: Scalar) -> None:
        """Notes one measured number; :meth:`finish` writes it."""
        place = records.to_plain(coords)
        self._noted.append(Record(self._slug, self.preset, dataset, method, metric, int(seed), float(value), place))

    def finish(self, **cell: Scalar) -> None:
        """Writes what was noted for the cell and marks it done, in one append.

        Those are the numbers whose dataset, method, seed and coordinates do not contradict the cell, and all of them
        where every one does.
        """
        belongs = [_belongs(record, cell) for record in self._noted]
        mine = list(itertools.compress(self._noted, belongs)) or self._noted
        self._noted = [record for record, taken in zip(self._noted, belongs, strict=True) if not taken and any(belongs)]
        key = self._key(cell)
        if is_primary():
            mark = {"key": key, "config": fingerprint(self._config), "write": uuid.uuid4().hex, "of": max(1, len(mine))}
            marker = Record(self._slug, self.preset, "", "", "", -1, float("nan"))
            source = records.provenance(self._config) | {"seeds": self.seeds, "cell": mark}
            _append(self._path, [Record(**{**vars(r), "provenance": source}) for r in mine or [marker]])
        self._done.add(key)
        self.display.finished(key)

    def say(self, message: str) -> None:
        """A line on standard error."""
        self.display.say(message)

    def progress(self, description: str) -> Callable[[int, int], None]:
        """Told beside the number of the cell: on a terminal at once, in a log now and then."""
        return self.display.track(description)

    def close(self) -> None:
        """Says so if numbers were noted whose cell was never finished."""
        if self._noted:
            self.say(f"{len(self._noted)} numbers were not kept, as their cell was not finished")

    def _key(self, cell: Mapping[str, Scalar]) -> str:
        """Cells that name no seed hold all seeds, and are done for these seeds only."""
        digest = fingerprint(self._config, None if "seed" in cell else self.seeds)
        return f"{json.dumps(records.to_plain(cell), sort_keys=True)} {digest}"


def _belongs(record: Record, cell: dict[str, Scalar]) -> bool:
    own = {"dataset": record.dataset, "method": record.method, "metric": record.metric, "seed": record.seed}
    own |= record.coords
    return all(own.get(name, value) == value for name, value in cell.items())


def _append(path: Path, found: list[Record]) -> None:
    try:
        records.append(path, found)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; make room or name another --workdir") from error


def execute(
    found: Found,
    *,
    preset: str = "small",
    seeds: Sequence[int] = (0, 1, 2),
    assignments: Sequence[str] = (),
    workdir: Path = Path("runs"),
    data_dir: Path | None = None,
    command: str = "",
) -> Path:
    """Runs a system, or what is left of it, and returns the folder to be read with :func:`experiments.runs.read`.

    Args:
      found: the system, see :func:`experiments.registry.load`.
      preset: which of its presets.
      seeds: which seeds.
      assignments: changes to the preset, ``key=value``.
      workdir: the folder of all runs.
      data_dir: where raw data lie; found by :func:`core.datasets.data_dir` if None.
      command: the command line to be noted as the way to get these numbers again.

    Raises:
      ConfigError: where a setting or the workdir cannot be used.
      Preempted: where SIGTERM or Ctrl-C asked to stop; finished cells and checkpoints are kept.
    """
    system = found.system
    if preset not in system.presets:
        raise ConfigError(f"{system.slug} has no preset {preset!r}; possible: {', '.join(system.presets)}")
    config = settings.apply(system.presets[preset], assignments)
    folder = Path(os.path.abspath(workdir)) / system.slug / preset
    info = {
        "module": found.module,
        "slug": system.slug,
        "preset": preset,
        "fingerprint": fingerprint(config),
        "changes": records.to_plain(settings.differences(config, system.presets[preset])),
        "seeds": list(seeds),
        "command": command,
    }
    _begin(folder, info)
    context = RunContext(system.slug, preset, config, seeds, folder, data_dir)
    compilation = quick_compilation() if preset == "smoke" else contextlib.nullcontext()
    with stoppable(), contextlib.closing(context), context.display, compilation:
        system.run(config, context)
    if discrepancy := context.display.tally.discrepancy():
        warnings.warn(f"the cells of {system.slug} were counted wrongly ({discrepancy})", stacklevel=2)
    return folder


def _begin(folder: Path, info: dict[str, Any]) -> None:
    """Notes what runs in the folder."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if is_primary():
        runs.write(folder / runs.INFO, json.dumps(info | {"time": now}, indent=1) + "\n")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block with :class:`core.errors.Preempted`."""

    def stop(number, frame):
        raise Preempted(f"stopped by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
