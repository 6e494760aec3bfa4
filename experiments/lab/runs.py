"""Run folders: ``<workdir>/<slug>/<preset>`` holds run.json, records.jsonl, figures and checkpoints.

A run with changed settings has a folder of its own beside it, ``<workdir>/<slug>/<preset>,layers=3``.
"""

import collections
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from core import documents, records
from core.errors import ConfigError, DataError, RelicError
from core.records import Record
from core.workdir import write_atomically
from experiments.lab import registry, settings
from experiments.lab.progress import tell
from experiments.lab.system import System

RECORDS = "records.jsonl"
INFO = "run.json"
LONGEST_NAME = 80
"""Characters of a folder's name."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's settings and the numbers that it recorded."""

    folder: Path
    system: System
    info: Mapping[str, Any]
    """Module, preset, changes to it, fingerprint, seeds asked for and finished, and command and time of the newest run
    that computed something in this folder; see :mod:`experiments.lab.runinfo`."""
    records: Sequence[Record]
    """Numbers of finished cells under that configuration, all from the same data."""

    @property
    def preset(self) -> str:
        """Name of the preset that was run."""
        return self.info["preset"]

    @property
    def top(self) -> Path:
        """The folder around this run's that its user named: that of all runs, or that around the run's folder."""
        return self.folder.parents[1] if self.folder.parent.name == self.system.slug else self.folder.parent

    @property
    def changes(self) -> Mapping[str, Any]:
        """Settings in which the run differs from its preset; none in the main run of a preset."""
        return self.info.get("changes") or {}

    @property
    def name(self) -> str:
        """The preset and the changes to it."""
        return folder_name(self.preset, self.changes)

    @property
    def unfinished(self) -> list[int]:
        """Seeds that were asked for and of which some or all cells are missing."""
        finished = set(self.info.get("finished", self.info["seeds"]))
        covered = {seed for r in self.records for seed in seeds_of(r.provenance)}
        return [seed for seed in self.info["seeds"] if seed not in finished or (self.records and seed not in covered)]

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """The records as a tidy table, which nobody changes."""
        return records.to_frame(self.records)


def fingerprint(config: Any, seeds: Sequence[int] | None = None) -> str:
    """A short digest of a configuration, and of the seeds where given."""
    text = json.dumps([records.to_plain(config), None if seeds is None else list(seeds)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_name(preset: str, changes: Mapping[str, Any]) -> str:
    """A name for a preset and changes to it, safe for files and the shell.

    Where characters had to be replaced or cut off, a digest at the end keeps different changes apart.
    """
    text = ",".join([preset, *(f"{name}={_text(value)}" for name, value in changes.items())])
    plain = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if plain == text and len(text) <= LONGEST_NAME:
        return text
    digest = hashlib.sha256(json.dumps([preset, changes], sort_keys=True).encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9]}~{digest}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    is_plain = isinstance(value, str) and re.fullmatch(r"[\w.-]+", value, re.ASCII)
    return value if is_plain else json.dumps(value)


def cell_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The cell that a number belongs to: data set, method, seed, or what it was finished by."""
    return dict(_cell(provenance["cell"]["key"]))


@functools.lru_cache(4096)
def _cell(key: str) -> dict[str, Any]:
    return documents.parsed(key.rpartition(" ")[0].encode())


def seeds_of(provenance: Mapping[str, Any]) -> list[int]:
    """The seeds of a number's cell; those of the run where it names none."""
    cell = cell_of(provenance)
    return [cell["seed"]] if "seed" in cell else list(provenance.get("seeds", ()))


_SOURCE: documents.Kinds = {
    **dict.fromkeys(("cell", "config", "versions"), dict),
    **dict.fromkeys(("device", "commit", "time"), str),
    "seeds": list,
}
_SOURCE_OPTIONAL: documents.Kinds = {"code": (str, NoneType), "data": dict, "command": str}
_CELL: documents.Kinds = {"key": str, "config": str, "write": str, "of": int}


def _source_fault(provenance: Mapping[str, Any]) -> str | None:
    """What the provenance of a number lacks of what every record of a run has, in words."""
    problem = documents.fault(provenance, _SOURCE, _SOURCE_OPTIONAL) or documents.fault(provenance["cell"], _CELL)
    if problem:
        return problem
    try:
        cell = _cell(provenance["cell"]["key"])
    except DataError:
        return "names no cell"
    if not all(isinstance(value, str | int | float | bool | None) for value in cell.values()):
        return "names no cell"
    if not are_seeds([cell["seed"]] if "seed" in cell else provenance["seeds"]):
        return "names no seed"
    digests = provenance.get("data", {})
    named = all(isinstance(version, str) for version in provenance["versions"].values())
    return None if named and all(isinstance(d, str | None) for d in digests.values()) else "has no text as its digest"


def are_seeds(values: Sequence[Any]) -> bool:
    """Whether all of some values are seeds."""
    return all(type(value) is int and 0 <= value <= records.LARGEST_SEED for value in values)


def undamaged(path: Path, strict: bool = False) -> list[Record]:
    """The records of a run that are as they were written, see :func:`whole`; says which lines are passed over.

    Args:
      path: of the records.
      strict: whether a damaged line is an error, as it is in what ships as evidence.

    Raises:
      DataError: where the file cannot be read, or is damaged and ``strict``.
    """
    scan = records.scan(path)
    sound = [(r, _source_fault(r.provenance)) for r in scan.records]
    faults = scan.faults + [f"a record of {r.dataset or 'a cell'} {fault}" for r, fault in sound if fault]
    if faults and strict:
        raise DataError(f"{path} is damaged ({faults[0]}); take it from the repository again")
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        _say_once(
            f"{path}: damaged records are passed over, with the cells they belong to: {'; '.join(faults[:3])}{more}"
        )
    return whole(r for r, fault in sound if not fault)


def whole(found: Iterable[Record]) -> list[Record]:
    """Records of cells that were written completely, each once.

    Left out are records of a write that a crash interrupted. Lines that are there twice count once, and so do the
    records of a cell that two processes, started at the same time, both computed: a number that counts twice would
    narrow intervals. Where a cell was computed again by other code or from other data, the newest counts.
    """
    found = [r for r in found if "cell" in r.provenance]
    counts = collections.Counter(r.provenance["cell"]["write"] for r in found)
    if any(counts[r.provenance["cell"]["write"]] > r.provenance["cell"]["of"] for r in found):
        found = _once(found)
        counts = collections.Counter(r.provenance["cell"]["write"] for r in found)
    kept: dict[str, tuple[str, str]] = {}  # by cell: what it was computed from, and the write that counts
    for source in (r.provenance for r in found):
        cell, made_from = source["cell"], json.dumps([source.get("code"), source.get("data")], sort_keys=True)
        if counts[cell["write"]] == cell["of"] and kept.get(cell["key"], ("", ""))[0] != made_from:
            kept[cell["key"]] = made_from, cell["write"]
    writes = {write for _, write in kept.values()}
    return [r for r in found if r.provenance["cell"]["write"] in writes]


def _once(found: Iterable[Record]) -> list[Record]:
    """Records without repetitions."""
    return list({json.dumps(dataclasses.asdict(record), sort_keys=True): record for record in found}.values())


def of_the_same_data(found: Sequence[Record]) -> list[Record]:
    """Records without those of cells which read other contents of a file than newer cells did."""
    files: dict[str, str | None] = {}
    stands: dict[str, bool] = {}
    for source in (r.provenance for r in reversed(found)):
        write, data = source["cell"]["write"], source.get("data", {})
        if write not in stands:
            stands[write] = all(files.get(name, digest) == digest for name, digest in data.items())
            if stands[write]:
                files |= data
    return [r for r in found if stands[r.provenance["cell"]["write"]]]


_INFO: documents.Kinds = dict.fromkeys(("module", "slug", "preset", "fingerprint", "command", "time"), str) | {
    "seeds": list
}
_INFO_OPTIONAL: documents.Kinds = {"changes": dict, "entries": list, "finished": list}


def read_info(path: Path) -> dict[str, Any]:
    """The content of a run.json.

    Raises:
      DataError: where there is none, or a damaged one; names the file and what is wrong.
    """
    info = documents.read(path)
    if problem := documents.fault(info, _INFO, _INFO_OPTIONAL) or _info_fault(info):
        raise DataError(f"{path} {problem}")
    return info


def _info_fault(info: Mapping[str, Any]) -> str | None:
    more = info.keys() - _INFO.keys() - _INFO_OPTIONAL.keys()
    if more:
        return f"has an entry that is not known: {sorted(more)[0]}"
    if not are_seeds([*info["seeds"], *info.get("finished", ())]):
        return "names no seeds"
    if not all(isinstance(e, str) and re.fullmatch(r"\w+(\.\w+)*:\w*", e) for e in info.get("entries", ())):
        return "has entries that are no names in modules"
    try:
        datetime.datetime.fromisoformat(info["time"])
    except ValueError:
        return "has no time"
    return None


def records_of(folder: Path) -> Path:
    """The file of a run's records, which is compressed where the run ships as evidence."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}{documents.COMPRESSED}"
    return packed if packed.is_file() and not plain.exists() else plain


def read(folder: Path, strict: bool = False) -> Run:
    """The run in a folder.

    Args:
      folder: of the run.
      strict: see :func:`undamaged`.

    Raises:
      ConfigError: where the folder holds none, or one of a system that is not known, see
        :func:`experiments.lab.registry.of_module`.
      DataError: where its files are damaged beyond use or cannot be read.
    """
    if not os.path.lexists(folder / INFO):
        raise ConfigError(f"{folder} holds no run ({INFO} is missing)")
    info = read_info(folder / INFO)
    system = registry.of_module(info["module"]).system
    if system.slug != info["slug"]:
        raise DataError(f"{folder / INFO} is of {info['slug']}, but its module defines {system.slug}")
    found = undamaged(records_of(folder), strict)
    systems = list(dict.fromkeys(r.system for r in found))
    if systems and system.slug not in systems:
        raise DataError(f"{folder / INFO} is of {system.slug}, but its records are of {', '.join(systems)}")
    own = [r for r in found if r.provenance["cell"]["config"] == info["fingerprint"] and r.system == system.slug]
    numbers = [r for r in of_the_same_data(own) if r.metric]
    return Run(folder, system, info, numbers)


def _readable(folders: Iterable[Path]) -> list[Run]:
    """The runs in some folders; those that cannot be read are skipped with a line on standard error.

    Raises:
      ConfigError: where there are folders and none can be read.
    """
    found: list[Run] = []
    faults: list[str] = []
    for folder in folders:
        try:
            found.append(read(folder))
        except Exception as error:  # whatever a module of somebody's own may raise on import
            kind = "" if isinstance(error, RelicError) else f"{type(error).__name__}: "
            faults.append(f"{folder} is skipped: {kind}{str(error).partition(chr(10))[0]}")
    if faults and not found:
        raise ConfigError("; ".join(faults))
    for fault in faults:
        _say_once(fault)
    return found


@functools.cache
def _say_once(message: str) -> None:
    tell(message)


def find(target: str, workdir: Path, preset: str | None = None, assignments: Sequence[str] = ()) -> list[Run]:
    """Runs under a folder, or those of a slug under ``workdir``; the newest first.

    A run whose system cannot be imported is skipped with a line on standard error.

    Args:
      target: a run's folder, one that holds runs, or a system's slug.
      workdir: where the runs of slugs lie.
      preset: only this one.
      assignments: only runs with these changes to their preset, ``key=value``; any if there are none.

    Raises:
      ConfigError: where there is none, or none that can be read.
    """
    folder = _folder(target, workdir)
    found = _readable(path.parent for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + INFO)))
    chosen = [run for run in found if preset in (None, run.preset) and _has(run, assignments, found)]
    if not chosen:
        words = ["no run", *([f"of preset {preset!r}"] if preset else []), *(f"with {text}" for text in assignments)]
        there = f" (there are {'; '.join(run.name for run in found)})" if found else ""
        names = list(dict.fromkeys(_name(run) for run in found)) or [target]
        name = names[0] if len(names) == 1 and not Path(names[0]).is_dir() else "SLUG"
        command = " ".join([name, "--preset", preset or "small", *(f"--set {text}" for text in assignments)])
        raise ConfigError(f"there is {' '.join(words)} under {folder}{there}; start one with `relic run {command}`")
    return sorted(chosen, key=lambda run: run.info["time"], reverse=True)


def is_folder(target: str) -> bool:
    """Whether a target is a folder, and none of a paper's code, which has the paper's name."""
    return os.path.isdir(target) and not os.path.exists(os.path.join(target, "__init__.py"))


def _folder(target: str, workdir: Path) -> Path:
    if is_folder(target):
        return Path(target)
    if os.sep in target or target.startswith("."):
        raise ConfigError(f"there is no folder {target}")
    return workdir / registry.load(target).system.slug


def _has(run: Run, assignments: Sequence[str], among: Sequence[Run]) -> bool:
    """Whether a run has these changes to its preset; settings that no system among the runs knows are an error.

    Compared are the changes and not the whole configuration: the preset may have changed since.
    """
    if not assignments or run.preset not in run.system.presets:
        return not assignments
    preset = run.system.presets[run.preset]
    try:
        wanted = settings.apply(preset, assignments)
    except ConfigError:
        if len({other.system.slug for other in among}) == 1:
            raise
        return False
    names = {text.partition("=")[0] for text in assignments}
    values = _plain({name: getattr(wanted, name) for name in names})
    defaults = _plain({name: getattr(preset, name) for name in names})
    return run.changes.keys() <= names and values == defaults | dict(run.changes)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(records.to_plain(values)))


def _name(run: Run) -> str:
    """What `relic run` calls the system: its slug, or its module where it is one of somebody's own."""
    return run.info["module"].removeprefix("experiments.")


def others(run: Run) -> list[str]:
    """Names of the other runs of the same system that lie beside a run."""
    names = []
    for path in sorted(run.folder.parent.glob(f"*/{INFO}")):
        with contextlib.suppress(DataError):
            info = read_info(path)
            if path.parent.name != run.folder.name and info["module"] == run.info["module"]:
                names.append(folder_name(info["preset"], info.get("changes") or {}))
    return names


def main_ones(found: Sequence[Run]) -> list[Run]:
    """Of several runs those whose preset is unchanged; all of them where there is none."""
    return [run for run in found if not run.changes] or list(found)


def require_no_link(path: Path, below: Path) -> None:
    """Refuses a place to write to that a link leads to: folders may come from others, with links to what is not theirs.

    Args:
      path: of a file or folder, there or not.
      below: a folder around it that the user named; it may be a link itself.

    Raises:
      ConfigError: names the link.
    """
    places = [path, *path.parents]
    for place in places[: places.index(below)] if below in places else places[:1]:
        if place.is_symlink():
            raise ConfigError(f"{place} is a link, and nothing is written through one; name the folder it leads to")


def require_no_links_in(folder: Path) -> None:
    """Refuses a folder of checkpoints in which there are links.

    Raises:
      ConfigError: names the first.
    """
    for place in [folder, *folder.rglob("*")]:
        require_no_link(place, place.parent)


def write(path: Path, text: str | bytes, below: Path | None = None) -> None:
    """Writes a file; whatever happens meanwhile, it has its old content or the new one. A link in its place goes.

    Args:
      path: of the file.
      text: what it shall hold.
      below: a folder around it that the user named; no link below it may lead to the file.

    Raises:
      ConfigError: where it cannot be written.
    """
    if below is not None:
        require_no_link(path.parent, below)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another place") from error
