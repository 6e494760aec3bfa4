"""Evidence that ships: the reference run of each system and what its tests found, in ``evidence/<slug>/``.

The folder is one of a run (``run.json``, records compressed), with the outcomes of the tests that the system's claims
are bound to. It lies in the project that defines the system, so that a fresh clone shows measured numbers.
"""

import functools
import json
import lzma
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from core import documents, records
from core.errors import ConfigError, DataError
from experiments.lab import outcomes, registry, runs, standing
from experiments.lab.outcomes import Outcome
from experiments.lab.registry import Found, home
from experiments.lab.runs import Run
from experiments.lab.system import ShownByTest, System

FOLDER = "evidence"
OUTCOMES = "outcomes.jsonl"


def folder(found: Found, root: Path | None = None) -> Path:
    """Where the evidence of a system lies, if there is any: in its own project, or in another."""
    return (root or home(found.module)) / FOLDER / found.system.slug


def reference(found: Found, root: Path | None = None) -> Run | None:
    """The reference run of a system; None where none is kept."""
    place = folder(found, root)
    if not (place / runs.INFO).is_file():
        return None
    files = [place / runs.INFO, runs.records_of(place)]
    return _read(place, tuple(path.stat().st_mtime_ns for path in files if path.exists()))


@functools.lru_cache(2)
def _read(place: Path, written: tuple[int, ...]) -> Run:
    """A command asks for the same reference several times; ``written`` tells versions of its files apart."""
    run = runs.read(place, strict=True)
    if run.system.slug != place.name:
        raise DataError(f"{place / runs.INFO} is of {run.system.slug}; take the evidence from the repository again")
    return run


def is_reference(run: Run) -> bool:
    """Whether a run is the one that ships as evidence."""
    return run.folder == folder(Found(run.system, run.info["module"]))


def beside(run: Run) -> Run | None:
    """The reference run of a run's system, to be shown beside it; None where there is none or it is this one."""
    return None if is_reference(run) else reference(Found(run.system, run.info["module"]))


def find(target: str, workdir: Path, preset: str | None = None, assignments: Sequence[str] = ()) -> list[Run]:
    """Runs as :func:`experiments.lab.runs.find` finds them; the reference of a system that has not run.

    Raises:
      ConfigError: where there is neither.
    """
    try:
        return runs.find(target, workdir, preset, assignments)
    except ConfigError:
        names_a_system = not (assignments or runs.is_folder(target) or os.sep in target or target.startswith("."))
        kept = reference(registry.load(target)) if names_a_system else None
        if kept is None or preset not in (None, kept.preset):
            raise
        return [kept]


def everything(workdir: Path, preset: str | None = None, assignments: Sequence[str] = ()) -> list[Run]:
    """All runs; where nothing has run, the references of all systems."""
    if workdir.exists() or assignments:
        return runs.find(str(workdir), workdir, preset, assignments)
    kept = [run for slug in registry.available() if (run := reference(registry.load(slug)))]
    return [run for run in kept if preset in (None, run.preset)]


def outcomes_of(found: Found, root: Path | None = None) -> Mapping[str, Outcome]:
    """What the tests of a system found when its reference was kept, by node id."""
    return outcomes.read_file(folder(found, root) / OUTCOMES)


def keep(found: Found, run: Run, again: bool = False, root: Path | None = None) -> Path:
    """Makes a run the reference of its system, with the newest outcomes of its tests; returns the folder.

    Args:
      found: the system.
      run: a finished one of an unchanged preset.
      again: whether a reference of more seeds may be replaced.
      root: the project that it ships with; that of the system if None.

    Raises:
      ConfigError: where the run is no evidence; says why.
    """
    if fault := unfit(run):
        raise ConfigError(f"{run.folder} cannot be the reference of {run.system.slug}: {fault}")
    before = reference(found, root)
    if before and not again and len(before.info["seeds"]) > len(run.info["seeds"]):
        raise ConfigError(
            f"the reference of {run.system.slug} has {len(before.info['seeds'])} seeds, this run "
            f"{len(run.info['seeds'])}: --again replaces it all the same"
        )
    place = folder(found, root)
    place.mkdir(parents=True, exist_ok=True)
    lines = "".join(records.line_of(record) + "\n" for record in run.records)
    runs.write(place / f"{runs.RECORDS}{documents.COMPRESSED}", lzma.compress(lines.encode(), preset=9))
    info = dict(run.info) | {"changes": {}}
    runs.write(place / runs.INFO, documents.sealed(json.dumps(info, indent=1) + "\n"))
    return keep_outcomes(found, root)


def keep_outcomes(found: Found, root: Path | None = None) -> Path:
    """Keeps the newest outcomes of a system's tests beside its reference; returns the folder.

    Raises:
      ConfigError: where there is no reference yet.
    """
    place = folder(found, root)
    if not (place / runs.INFO).is_file():
        raise ConfigError(f"{found.system.slug} has no reference yet: run it, and keep the run")
    found_by_tests = outcomes.lines(home(found.module), nodeids(found.system))
    runs.write(place / OUTCOMES, "".join(f"{line}\n" for line in found_by_tests))
    return place


def unfit(run: Run) -> str:
    """Why a run is no evidence, in words; empty where it is."""
    if run.changes:
        return f"its settings are not those of preset {run.preset}"
    if not run.records:
        return "it has no numbers"
    return standing.incomplete(run) or standing.other_code(run)


def nodeids(system: System) -> set[str]:
    """The tests that the claims of a system are bound to."""
    return {claim.evidence.nodeid for claim in system.claims if isinstance(claim.evidence, ShownByTest)}
