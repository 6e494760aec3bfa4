"""run.json: the seeds that a run's folder is to hold, those finished, and the command that made its numbers."""

import datetime
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import documents
from core.errors import DataError
from core.parallel import is_primary
from core.records import Scalar
from experiments.lab import runs
from experiments.lab.progress import tell


class RunInfo:
    """The file of one folder, during a run; it is written only where its content changes.

    Args:
      path: of the file.
      info: module, slug, preset, fingerprint, changes, entries, seeds and command of the run that begins.
    """

    def __init__(self, path: Path, info: Mapping[str, Any]):
        self._path, self._seeds, self._command = path, list(info["seeds"]), info["command"]
        before = _read(path)
        if before.get("fingerprint") == info["fingerprint"]:
            finished = before.get("finished", before["seeds"])
            self._info = {**info, "command": before["command"], "time": before["time"], "finished": finished}
            self._info["seeds"] = _union(before["seeds"], self._seeds)
        else:
            self._info = {**info, "time": _now(), "finished": []}
        self._before = before
        self._computed = False

    @property
    def command(self) -> str:
        """The command line of the present run."""
        return self._command

    def begin(self) -> None:
        """Adds the seeds of this run to those asked for."""
        self._write()

    def computing(self, seeds: Collection[Scalar]) -> None:
        """Notes that a cell of these seeds is missing: they count as unfinished until the run ends."""
        self._info["finished"] = [seed for seed in self._info["finished"] if seed not in seeds]
        self._write()

    def computed(self) -> None:
        """Notes, when the first cell is finished, that this command made numbers."""
        if not self._computed:
            self._computed = True
            self._info |= {"command": self._command, "time": _now()}
            self._write()

    def end(self) -> None:
        """Marks the seeds of this run as finished, and drops those that an interrupted run asked for and left open."""
        self._info["finished"] = _union(self._info["finished"], self._seeds)
        self._info["seeds"] = self._info["finished"]
        self._write()

    def _write(self) -> None:
        if self._info != self._before and is_primary():
            runs.write(self._path, documents.sealed(json.dumps(self._info, indent=1) + "\n"))
        self._before = dict(self._info)


def _read(path: Path) -> dict[str, Any]:
    """What the file holds; where it is damaged it is written anew, with the seeds of this run alone."""
    if not os.path.lexists(path):
        return {}
    try:
        return runs.read_info(path)
    except DataError as error:
        tell(f"{error}; it is written anew")
        return {}


def _union(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return sorted({*first, *second})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
