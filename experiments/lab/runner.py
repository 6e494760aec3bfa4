"""Runs a system: finished cells are skipped, each cell is written in one piece, a run can be stopped and resumed."""

import contextlib
import functools
import itertools
import json
import os
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from core import records
from core.compilation import quick_compilation
from core.datasets import observed, require_data_dir
from core.errors import ConfigError, DataError, Preempted
from core.parallel import is_primary
from core.records import Record, Scalar
from core.stopping import handled, stop_signals
from experiments.lab import inputs, runs, settings, sources
from experiments.lab.inputs import Inputs
from experiments.lab.progress import Progress
from experiments.lab.registry import Found, home
from experiments.lab.runinfo import RunInfo
from experiments.lab.runs import fingerprint
from experiments.lab.system import Cell, Place, System

ChangedCode = Literal["ask", "keep", "again"]
"""What to do with finished cells that other code computed: stop with an error, keep them, or compute them again."""


class ChangedCodeError(ConfigError):
    """Finished cells were computed by other code than the present; names the changed modules and the options."""


class RunContext:
    """The concrete :class:`experiments.lab.system.Context` of one run.

    Args:
      slug: of the system.
      preset: name of the preset.
      config: settings of the system.
      seeds: those asked for.
      folder: of the run.
      data_dir: where raw data lie.
      made_from: code and raw files of the run.
      info: the run.json of the folder; None where none is written.
      root: the project that defines the system, whose commit records carry.
    """

    def __init__(
        self,
        slug: str,
        preset: str,
        config: Any,
        seeds: Sequence[int],
        folder: Path,
        data_dir: Path | None,
        made_from: Inputs | None = None,
        info: RunInfo | None = None,
        root: Path = records.ROOT,
    ):
        self.preset, self.seeds, self.data_dir = preset, tuple(seeds), data_dir
        self._slug, self._config, self._path = slug, config, folder / runs.RECORDS
        self._inputs, self._info, self._root = made_from or Inputs(), info, root
        self._finished = {r.provenance["cell"]["key"]: r.provenance for r in runs.undamaged(self._path)}
        self._noted: list[Record] = []
        self.missing: Sequence[Cell] = []
        self._known_to_work: observed.Files | None = None
        self.display = Progress(f"{slug}, preset {preset}", speaks=is_primary(), bar=True)

    @property
    def missing_seeds(self) -> Sequence[int]:
        """The seeds of the cells that are missing."""
        return [seed for seed in self.seeds if any(cell.get("seed") == seed for cell in self.missing)]

    def cells(self, cells: Iterable[Mapping[str, Scalar]]) -> None:
        """Announces cells, so that progress can be shown as a share of them."""
        self.display.announce(map(self._key, cells), self._is_done)

    @property
    def workdir(self) -> Path:
        """The folder for checkpoints; one that was begun with other code, data or environment is never used."""
        if is_primary() and self._inputs.files != self._known_to_work:
            self._known_to_work = dict(self._inputs.files)
            self._inputs.note_work(self._work)
        return self._work

    @functools.cached_property
    def _work(self) -> Path:
        parent, name = self._path.parent / "work", fingerprint(self._config, self.seeds)
        chosen = self._inputs.work_folder(parent, name)
        number = _agreed(int(chosen.name.partition("-")[2] or 1))
        if number > 1 and not chosen.exists():
            self.say("training started here with other code, data or environment: its checkpoints are not used")
        folder = parent / (name if number == 1 else f"{name}-{number}")
        runs.require_no_link(parent, parent.parent)
        runs.require_no_links_in(folder)
        return folder

    def settle(self, changed_code: ChangedCode) -> None:
        """Checks finished cells for changes of code and data.

        Raises:
          ChangedCodeError: where other code computed some of them and ``changed_code`` is "ask".
        """
        asked = [source for source in self._finished.values() if self._is_asked(source)]
        files = {name: None for source in asked for name in self._inputs.changed_files(source)}
        by_other_code = [s for s in asked if not self._inputs.has_code_of(s) and not self._inputs.changed_files(s)]
        if _agreed(changed_code == "ask" and bool(by_other_code)):
            before = {source.get("code"): None for source in by_other_code}
            what = [inputs.changed_modules(self._path.parent, each, self._inputs.code) for each in before]
            raise ChangedCodeError(
                f"the code has changed since it computed {len(by_other_code)} finished cells of {self._path.parent} "
                f"({'; '.join(what)}): --keep shows the old numbers and computes only what is missing, --again "
                "computes those cells again"
            )
        if files:
            count = sum(bool(self._inputs.changed_files(source)) for source in asked)
            self.say(f"the data of {count} finished cells changed ({', '.join(files)}): they are computed again")

    def _is_asked(self, source: Mapping[str, Any]) -> bool:
        if source["cell"]["config"] != fingerprint(self._config):
            return False
        cell = runs.cell_of(source)
        return cell["seed"] in self.seeds if "seed" in cell else tuple(source["seeds"]) == self.seeds

    def done(self, **cell: Scalar) -> bool:
        """Whether an earlier run with this configuration finished the cell, with this code and the same data; all
        processes get the answer of the first.
        """
        answer = bool(_agreed(self._is_done(self._key(cell))))
        if not answer and self._info:
            self._info.computing([cell["seed"]] if "seed" in cell else self.seeds)
        return answer

    def _is_done(self, key: str) -> bool:
        source = self._finished.get(key)
        return source is not None and self._inputs.is_valid(source)

    def record(self, *, dataset: str, method: str, metric: str, seed: int, value: float, **coords: Scalar) -> None:
        """Keeps one measured number in memory; :meth:`finish` writes it."""
        place = records.to_plain(coords)
        self._noted.append(Record(self._slug, self.preset, dataset, method, metric, int(seed), float(value), place))

    def at(self, **place: Scalar) -> Place:
        """The place of numbers to come."""
        return Place(self, place)

    def finish(self, **cell: Scalar) -> None:
        """Writes the numbers recorded for the cell and marks it as done, in one append.

        These are the numbers whose dataset, method, seed and coordinates do not contradict the cell; where all
        contradict it, all are written.
        """
        belongs = [_belongs(record, cell) for record in self._noted]
        mine = list(itertools.compress(self._noted, belongs)) or self._noted
        self._noted = [record for record, taken in zip(self._noted, belongs, strict=True) if not taken and any(belongs)]
        key = self._key(cell)
        if is_primary():
            mark = {"key": key, "config": fingerprint(self._config), "write": uuid.uuid4().hex, "of": max(1, len(mine))}
            marker = Record(self._slug, self.preset, "", "", "", -1, float("nan"))
            self._inputs.note_code(self._path.parent)
            _append(self._path, [Record(**{**vars(r), "provenance": self._source(mark)}) for r in mine or [marker]])
            if self._info:
                self._info.computed()
        self._finished[key] = self._source({"key": key})
        self.display.finished(key)

    def _source(self, mark: dict[str, Any]) -> dict[str, Any]:
        own = {"seeds": self.seeds, "cell": mark, **({"command": self._info.command} if self._info else {})}
        return records.provenance(self._config, self._root) | self._inputs.provenance() | own

    def say(self, message: str) -> None:
        """A line on standard error."""
        self.display.say(message)

    def progress(self, description: str) -> Callable[[int, int], None]:
        """A function of (steps done, steps in all) to call during work; they are shown after the number of the cell."""
        return self.display.track(description)

    def require_all_belong(self, cells: Sequence[Cell]) -> None:
        """Refuses numbers of a part that would be written with none of its cells.

        Raises:
          DataError: names one of them: its coordinates contradict every cell of the part.
        """
        homeless = [record for record in self._noted if not any(_belongs(record, dict(cell)) for cell in cells)]
        if homeless and len(homeless) < len(self._noted):
            one = homeless[0]
            place = {"dataset": one.dataset, "method": one.method, "metric": one.metric, "seed": one.seed}
            raise DataError(
                f"{self._slug} recorded {len(homeless)} numbers that belong to no cell of their part, such as "
                f"{json.dumps(place | dict(one.coords))}: a coordinate contradicts the names of the cells"
            )

    def close(self) -> None:
        """Says how many numbers are lost because their cell was never finished."""
        if self._noted:
            self.say(f"{len(self._noted)} numbers were not written, as their cell was not finished")

    def _key(self, cell: Mapping[str, Scalar]) -> str:
        """The cell and a digest of the configuration, and of all seeds where the cell names none: it holds them all."""
        digest = fingerprint(self._config, None if "seed" in cell else self.seeds)
        return f"{json.dumps(records.to_plain(cell), sort_keys=True)} {digest}"


def _belongs(record: Record, cell: dict[str, Scalar]) -> bool:
    own = {"dataset": record.dataset, "method": record.method, "metric": record.metric, "seed": record.seed}
    own |= record.coords
    return all(own.get(name, value) == value for name, value in cell.items())


def _agreed(value: int) -> int:
    """The first process's value, on all of them."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(int(value))))


def _append(path: Path, found: list[Record]) -> None:
    try:
        records.append(path, found)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; make room or name another --workdir") from error


def measure(system: System, config: Any, context: RunContext) -> None:
    """Measures the parts of a system of which cells are missing, in order."""
    plan = list(system.plan(config, context))
    context.cells(cell for part in plan for cell in part.cells)
    for part in plan:
        context.missing = [cell for cell in part.cells if not context.done(**cell)]
        if context.missing:
            context.say(f"{system.slug}: {named(context.missing)}")
            part.measure(config, context)
            context.require_all_belong(context.missing)
            for cell in context.missing:
                context.finish(**cell)


def named(cells: Sequence[Cell]) -> str:
    """Cells in words: what they have in common, then their seeds."""
    first = ", ".join(str(value) for name, value in cells[0].items() if name not in ("seed", "seeds"))
    seeds = [cell["seed"] for cell in cells if "seed" in cell]
    return f"{first}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else first


def configured(system: System, preset: str, assignments: Sequence[str] = ()) -> Any:
    """The settings of a run: a preset's, with changes ``key=value``.

    Raises:
      ConfigError: where there is no such preset or setting, or a value is not possible.
    """
    system.require_preset(preset)
    return settings.apply(system.presets[preset], assignments)


def execute(
    found: Found,
    *,
    preset: str = "small",
    seeds: Sequence[int] = (0, 1, 2),
    assignments: Sequence[str] = (),
    workdir: Path = Path("runs"),
    data_dir: Path | None = None,
    command: str = "",
    changed_code: ChangedCode = "ask",
) -> Path:
    """Runs the cells of a system that are not finished; returns the folder, see :func:`experiments.lab.runs.read`.

    A finished cell is computed again where raw files that it depends on have changed.

    Args:
      found: the system, see :func:`experiments.lab.registry.load`.
      preset: which of its presets.
      seeds: which seeds.
      assignments: changes to the preset, ``key=value``.
      workdir: the folder of all runs.
      data_dir: where raw data lie; found by :func:`core.datasets.data_dir` if None.
      command: the command line that gives these numbers again; kept with them.
      changed_code: what to do with finished cells that other code computed.

    Raises:
      ConfigError: where a setting, the workdir or the data directory cannot be used.
      ChangedCodeError: where finished cells were computed by other code, and ``changed_code`` is "ask".
      Preempted: where SIGTERM or Ctrl-C asked to stop; finished cells and checkpoints are kept.
    """
    system = found.system
    config = configured(system, preset, assignments)
    changes = records.to_plain(settings.differences(config, system.presets[preset]))
    folder = Path(os.path.abspath(workdir)) / system.slug / runs.folder_name(preset, changes)
    for name in (runs.RECORDS, runs.INFO, inputs.CODE, "work", "figures"):
        runs.require_no_link(folder / name, folder.parents[1])
    entries = sources.entries_of(system.plan, system.config_type, found.module)
    info = {
        "module": found.module,
        "slug": system.slug,
        "preset": preset,
        "fingerprint": fingerprint(config),
        "changes": changes,
        "entries": entries,
        "seeds": list(seeds),
        "command": command,
    }
    base = require_data_dir(data_dir)
    compilation = quick_compilation() if preset == "smoke" else contextlib.nullcontext()
    with stoppable(), observed.observing(base) as files, compilation:
        made_from = Inputs(sources.of_run(entries), base, files, keep=changed_code == "keep")
        run_info = RunInfo(folder / runs.INFO, info)
        context = RunContext(
            system.slug, preset, config, seeds, folder, data_dir, made_from, run_info, home(found.module)
        )
        with contextlib.closing(context), context.display:
            context.settle(changed_code)
            run_info.begin()
            measure(system, config, context)
            run_info.end()
    return folder


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C end the block with :class:`core.errors.Preempted`."""

    def stop(number, frame):
        raise Preempted(f"stopped by {signal.Signals(number).name}")

    with handled(*stop_signals(), by=stop):
        yield
