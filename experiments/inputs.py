"""What the numbers of a run are computed from: its code and its raw files, and what of older work still stands."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.datasets import observed
from experiments import runs, sources

FILE = "inputs.json"
"""In a folder of checkpoints: the code and the files with which it was begun."""
CODE = "code.json"
"""In a run's folder: digests of modules by the digest of them all, which records carry."""


@dataclasses.dataclass
class Inputs:
    """The code and the raw files of a run."""

    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digests by module, see :func:`experiments.sources.of_run`."""
    base: Path | None = None
    """The data directory."""
    files: observed.Files = dataclasses.field(default_factory=dict)
    """What was looked for so far, see :func:`core.datasets.observed.observing`."""
    keep: bool = False
    """Whether what other code computed stands."""

    def provenance(self) -> dict[str, Any]:
        """What each record keeps of it."""
        return {"code": sources.total(self.code), "data": dict(self.files)}

    def has_code_of(self, provenance: Mapping[str, Any]) -> bool:
        """Whether a number was computed by this code."""
        return provenance.get("code") == sources.total(self.code)

    def changed_files(self, provenance: Mapping[str, Any]) -> list[str]:
        """Files that are not what they were when a number was computed."""
        return observed.changed(provenance.get("data", {}), self.base)

    def let_stand(self, provenance: Mapping[str, Any]) -> bool:
        """Whether a finished cell needs not be computed again."""
        return (self.keep or self.has_code_of(provenance)) and not self.changed_files(provenance)

    def work_folder(self, parent: Path, name: str) -> Path:
        """The folder of this name, or with a number behind it, in which neither other code nor data were at work."""
        for number in itertools.count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            if not folder.exists() or self._began(folder):
                return folder
        raise AssertionError

    def _began(self, folder: Path) -> bool:
        try:
            before = json.loads((folder / FILE).read_text())
        except (OSError, json.JSONDecodeError):
            return False
        return self.has_code_of(before) and not self.changed_files(before)

    def note_work(self, folder: Path) -> None:
        """Says in a folder of checkpoints what they are computed from."""
        runs.write(folder / FILE, json.dumps(self.provenance(), indent=1) + "\n")

    def note_code(self, folder: Path) -> None:
        """Keeps in a run's folder which modules this code is made of."""
        known = codes(folder)
        if sources.total(self.code) not in known:
            runs.write(folder / CODE, json.dumps(known | {sources.total(self.code): self.code}, indent=1) + "\n")


def codes(folder: Path) -> dict[str, dict[str, str]]:
    """Digests by module of each code that computed numbers of a run."""
    try:
        return json.loads((folder / CODE).read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def changed_modules(folder: Path, before: str | None, now: Mapping[str, str]) -> str:
    """In words, which modules differ from those that had a digest."""
    if before is None:
        return "it was not noted then by which code"
    known = codes(folder).get(before)
    if known is None:
        return "which modules is not known"
    names = sources.different(known, now)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
