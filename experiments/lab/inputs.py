"""What the numbers of a run are computed from (code, raw files, libraries), and which older work is still valid."""

import dataclasses
import importlib.metadata
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from core import documents
from core.datasets import observed
from core.errors import DataError
from experiments.lab import runs, sources

FILE = "inputs.json"
"""In a folder of checkpoints: the code, the files and the environment with which training began there."""
CODE = "code.json"
"""In a run's folder: digests of modules by the digest of them all, which records carry."""
LIBRARIES = ("jax", "jaxlib", "flax", "optax")
"""Whose versions decide what a training step is traced and compiled to."""
VARIABLES = ("RELIC_SPARSE",)
"""Of the environment; they choose between implementations."""
OPTIONS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
"""Of JAX; they change what a step computes."""
QUICK = "jax_disable_most_optimizations"
"""The option of JAX that compiles with few optimisations, see :func:`core.compilation.quick_compilation`."""


@dataclasses.dataclass
class Inputs:
    """The code and the raw files of a run."""

    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digests by module, see :func:`experiments.lab.sources.of_run`."""
    base: Path | None = None
    """The data directory."""
    files: observed.Files = dataclasses.field(default_factory=dict)
    """Those looked for so far, see :func:`core.datasets.observed.observing`."""
    keep: bool = False
    """Whether finished cells of other code are kept."""

    def provenance(self) -> dict[str, Any]:
        """The part that every record keeps."""
        return {"code": sources.total(self.code), "data": dict(self.files)}

    def has_code_of(self, provenance: Mapping[str, Any]) -> bool:
        """Whether a number was computed by this code."""
        return provenance.get("code") == sources.total(self.code)

    def changed_files(self, provenance: Mapping[str, Any]) -> list[str]:
        """Files that are not what they were when a number was computed."""
        return observed.changed(provenance.get("data", {}), self.base)

    def is_valid(self, provenance: Mapping[str, Any]) -> bool:
        """Whether a finished cell may be kept, from the provenance of its numbers."""
        return (self.keep or self.has_code_of(provenance)) and not self.changed_files(provenance)

    def work_folder(self, parent: Path, name: str) -> Path:
        """The first of ``name``, ``name-2``, ... that is new or was begun with the same code, data and environment."""
        for number in itertools.count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            if not folder.exists() or self._began(folder):
                return folder
        raise AssertionError

    def _began(self, folder: Path) -> bool:
        try:
            before = documents.read(folder / FILE)
        except DataError:
            return False
        if documents.fault(before, {"code": str, "data": dict, "environment": dict}):
            return False
        same_environment = before.get("environment") == environment()
        return same_environment and self.has_code_of(before) and not self.changed_files(before)

    def note_work(self, folder: Path) -> None:
        """Writes into a folder of checkpoints what they are computed from."""
        document = self.provenance() | {"environment": environment()}
        runs.write(folder / FILE, json.dumps(document, indent=1) + "\n")

    def note_code(self, folder: Path) -> None:
        """Writes into a run's folder which modules the code consists of."""
        known = codes(folder)
        if sources.total(self.code) not in known:
            runs.write(folder / CODE, json.dumps(known | {sources.total(self.code): self.code}, indent=1) + "\n")


def environment() -> dict[str, str]:
    """What changes a compiled program although code and data are the same: libraries, backend and options, by name."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    variables = {name: os.environ.get(name, "") for name in VARIABLES}
    options = {name: str(getattr(jax.config, name)) for name in OPTIONS}
    quick = {QUICK: str(jax.config.read(QUICK))}  # JAX offers it in this way only
    return {**versions, "backend": jax.default_backend(), **variables, **options, **quick}


def codes(folder: Path) -> dict[str, dict[str, str]]:
    """All versions of the code that computed numbers of a run: digests by module, by their total."""
    try:
        known = documents.read(folder / CODE)
    except DataError:
        return {}
    return {total: modules for total, modules in known.items() if isinstance(modules, dict)}


def changed_modules(folder: Path, before: str | None, now: Mapping[str, str]) -> str:
    """In words, which modules differ from an older version of the code, given by its total digest."""
    if before is None:
        return "their records do not say which code computed them"
    known = codes(folder).get(before)
    if known is None:
        return "it is not known which modules"
    names = sources.different(known, now)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
