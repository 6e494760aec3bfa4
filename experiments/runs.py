"""Run folders: ``<workdir>/<slug>/<preset>`` holds run.json, records.jsonl, figures and checkpoints."""

import collections
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core import records
from core.errors import ConfigError
from core.records import Record
from experiments import registry
from experiments.system import System

RECORDS = "records.jsonl"
INFO = "run.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What was run, and what came of it."""

    folder: Path
    system: System
    info: Mapping[str, Any]
    """Module, preset, configuration, fingerprint, seeds, command and time of the newest run in this folder."""
    records: Sequence[Record]
    """Numbers of finished cells under that configuration."""

    @property
    def preset(self) -> str:
        """Name of the preset that was run."""
        return self.info["preset"]

    @property
    def frame(self) -> pd.DataFrame:
        """The records as a tidy table."""
        return records.to_frame(self.records)


def fingerprint(config: Any, seeds: Sequence[int] | None = None) -> str:
    """A short digest of a configuration, and of the seeds where given."""
    text = json.dumps([records.to_plain(config), None if seeds is None else list(seeds)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def whole(found: Iterable[Record]) -> list[Record]:
    """Records of cells that were written completely, each once.

    Those of a write that a crash tore are left out, and those of a cell which a second process, started at the same
    time, had computed too: a number that counts twice would narrow intervals.
    """
    found = [r for r in found if "cell" in r.provenance]
    counts = collections.Counter(r.provenance["cell"]["write"] for r in found)
    first: dict[str, str] = {}
    for cell in (r.provenance["cell"] for r in found):
        if counts[cell["write"]] == cell["of"]:
            first.setdefault(cell["key"], cell["write"])
    return [r for r in found if first.get(r.provenance["cell"]["key"]) == r.provenance["cell"]["write"]]


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
    numbers = [r for r in found if r.metric and r.provenance["cell"]["config"] == info["fingerprint"]]
    return Run(folder, registry.load(info["module"]).system, info, numbers)


def find(target: str, workdir: Path, preset: str | None = None) -> list[Run]:
    """Runs under a folder, or those of a slug under ``workdir``; the newest first.

    Args:
      target: a run's folder, one that holds runs, or a system's slug.
      workdir: where the runs of slugs lie.
      preset: only this one.

    Raises:
      ConfigError: where there is none.
    """
    folder = Path(target) if Path(target).is_dir() else workdir / registry.load(target).system.slug
    found = [read(path.parent) for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + INFO))]
    chosen = [run for run in found if preset in (None, run.preset)]
    if not chosen:
        what = f"no run of preset {preset!r}" if found else "no run"
        size = preset or "small"
        raise ConfigError(f"there is {what} under {folder}; start one with `relic run {target} --preset {size}`")
    return sorted(chosen, key=lambda run: run.info["time"], reverse=True)


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
