"""Run folders: ``<workdir>/<slug>/<preset>`` holds run.json, records.jsonl, figures and checkpoints.

A run with changed settings has a folder of its own beside it, ``<workdir>/<slug>/<preset>,layers=3``.
"""

import collections
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core import records
from core.errors import ConfigError
from core.records import Record
from experiments import registry, settings
from experiments.system import System

RECORDS = "records.jsonl"
INFO = "run.json"
LONGEST_NAME = 80
"""Characters of a folder's name."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What was run, and what came of it."""

    folder: Path
    system: System
    info: Mapping[str, Any]
    """Module, preset, changes to it, fingerprint, seeds asked for and finished, and command and time of the newest run
    that computed something in this folder; see :mod:`experiments.runinfo`."""
    records: Sequence[Record]
    """Numbers of finished cells under that configuration, all from the same data."""

    @property
    def preset(self) -> str:
        """Name of the preset that was run."""
        return self.info["preset"]

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
        """Seeds that were asked for and of which cells are missing, or all of them."""
        finished = set(self.info.get("finished", self.info["seeds"]))
        covered = {seed for r in self.records for seed in seeds_of(r.provenance)}
        return [seed for seed in self.info["seeds"] if seed not in finished or (self.records and seed not in covered)]

    @property
    def frame(self) -> pd.DataFrame:
        """The records as a tidy table."""
        return records.to_frame(self.records)


def fingerprint(config: Any, seeds: Sequence[int] | None = None) -> str:
    """A short digest of a configuration, and of the seeds where given."""
    text = json.dumps([records.to_plain(config), None if seeds is None else list(seeds)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_name(preset: str, changes: Mapping[str, Any]) -> str:
    """A name for a preset and changes to it, safe for files and the shell; what it cannot show it tells by a digest."""
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
    return json.loads(provenance["cell"]["key"].rpartition(" ")[0])


def seeds_of(provenance: Mapping[str, Any]) -> list[int]:
    """The seeds of a number's cell; those of the run where it names none."""
    cell = cell_of(provenance)
    return [cell["seed"]] if "seed" in cell else list(provenance.get("seeds", ()))


def whole(found: Iterable[Record]) -> list[Record]:
    """Records of cells that were written completely, each once.

    Those of a write that a crash tore are left out, and those of a cell which a second process, started at the same
    time, had computed too: a number that counts twice would narrow intervals. Where a cell was computed again by other
    code or from other data, the newest counts.
    """
    found = [r for r in found if "cell" in r.provenance]
    counts = collections.Counter(r.provenance["cell"]["write"] for r in found)
    kept: dict[str, tuple[str, str]] = {}  # by cell: what it was computed from, and the write that counts
    for source in (r.provenance for r in found):
        cell, made_from = source["cell"], json.dumps([source.get("code"), source.get("data")], sort_keys=True)
        if counts[cell["write"]] == cell["of"] and kept.get(cell["key"], ("", ""))[0] != made_from:
            kept[cell["key"]] = made_from, cell["write"]
    writes = {write for _, write in kept.values()}
    return [r for r in found if r.provenance["cell"]["write"] in writes]


def of_the_same_data(found: Sequence[Record]) -> list[Record]:
    """Records without those of cells which read other files than newer cells did."""
    files: dict[str, str | None] = {}
    stands: dict[str, bool] = {}
    for source in (r.provenance for r in reversed(found)):
        write, data = source["cell"]["write"], source.get("data", {})
        if write not in stands:
            stands[write] = all(files.get(name, digest) == digest for name, digest in data.items())
            if stands[write]:
                files |= data
    return [r for r in found if stands[r.provenance["cell"]["write"]]]


def read(folder: Path) -> Run:
    """The run in a folder.

    Raises:
      ConfigError: where the folder holds none.
    """
    try:
        info = json.loads((folder / INFO).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder} holds no run ({INFO} is missing or unreadable)") from error
    found = whole(records.read(folder / RECORDS))
    own = [r for r in found if r.provenance["cell"]["config"] == info["fingerprint"]]
    numbers = [r for r in of_the_same_data(own) if r.metric]
    return Run(folder, registry.load(info["module"]).system, info, numbers)


def find(target: str, workdir: Path, preset: str | None = None, assignments: Sequence[str] = ()) -> list[Run]:
    """Runs under a folder, or those of a slug under ``workdir``; the newest first.

    Args:
      target: a run's folder, one that holds runs, or a system's slug.
      workdir: where the runs of slugs lie.
      preset: only this one.
      assignments: only runs with these changes to their preset, ``key=value``; any if there are none.

    Raises:
      ConfigError: where there is none.
    """
    folder = Path(target) if Path(target).is_dir() else workdir / registry.load(target).system.slug
    found = [read(path.parent) for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + INFO))]
    chosen = [run for run in found if preset in (None, run.preset) and _has(run, assignments, found)]
    if not chosen:
        words = ["no run", *([f"of preset {preset!r}"] if preset else []), *(f"with {text}" for text in assignments)]
        there = f" (there are {'; '.join(run.name for run in found)})" if found else ""
        command = " ".join([target, "--preset", preset or "small", *(f"--set {text}" for text in assignments)])
        raise ConfigError(f"there is {' '.join(words)} under {folder}{there}; start one with `relic run {command}`")
    return sorted(chosen, key=lambda run: run.info["time"], reverse=True)


def _has(run: Run, assignments: Sequence[str], among: Sequence[Run]) -> bool:
    """Whether a run has these settings; those that no system among the runs knows are an error."""
    if not assignments or run.preset not in run.system.presets:
        return not assignments
    try:
        wanted = settings.apply(run.system.presets[run.preset], assignments)
    except ConfigError:
        if len({other.system.slug for other in among}) == 1:
            raise
        return False
    return fingerprint(wanted) == run.info["fingerprint"]


def main_ones(found: Sequence[Run]) -> list[Run]:
    """Of several runs those whose preset is unchanged; all of them where there is none."""
    return [run for run in found if not run.changes] or list(found)


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
      ConfigError: where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another place") from error
