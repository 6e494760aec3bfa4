"""The 26 systems: what each is, and whether it can be run yet. Importing this module imports no JAX."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.table import Table

from core.errors import ConfigError

if TYPE_CHECKING:
    from experiments.lab.system import Family, System

FAMILIES: dict[Family, str] = {
    "rec": "Recommenders",
    "latent": "Latent-variable models",
    "causal": "Causality",
    "interp": "Interpretability",
}
Status = Literal["available", "planned"]


class Entry(NamedTuple):
    """A paper and its place in the house."""

    slug: str
    title: str
    family: Family
    line: str
    """What it does, in one line."""
    status: Status = "available"
    is_layer: bool = False
    """Whether it is no paper of its own but what several systems share, run and judged like a system."""


PLANNED = Path(__file__).with_name("templates") / "planned.toml"
"""Papers that will be here, by slug."""


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All systems by family: those whose folders, ``experiments/<slug>/``, define one, then those planned.

    Folders are read and not imported, so that the list comes at once.
    """
    folders = sorted(Path(__file__).parents[1].glob("*/__init__.py"))
    found = [entry for entry in map(_declared, folders) if entry]
    planned = tomllib.loads(PLANNED.read_text(encoding="utf-8"))
    there = {each.slug for each in found}
    left = [Entry(slug, **each, status="planned") for slug, each in planned.items() if slug not in there]
    order = list(FAMILIES)
    return tuple(sorted([*found, *left], key=lambda entry: (entry.is_layer, order.index(entry.family))))


def papers() -> list[Entry]:
    """The entries that are papers of their own."""
    return [entry for entry in entries() if not entry.is_layer]


def _declared(path: Path) -> Entry | None:
    """What the call ``SYSTEM = System(...)`` of a module says by literals; None where there is no such call."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["SYSTEM"]:
            if not isinstance(statement.value, ast.Call):
                return None
            given: dict[Any, Any] = {
                k.arg: k.value.value for k in statement.value.keywords if isinstance(k.value, ast.Constant)
            }
            return Entry(**{name: given[name] for name in Entry._fields if name in given})
    return None


ROOT = Path(__file__).resolve().parents[2]
GROUP = "relic.systems"
"""The entry points by which an installed package offers systems of its own, ``slug = "mylab.mypaper"``."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A system and the module that defines it."""

    system: System
    module: str


_own: dict[str, Found] = {}
"""Systems of modules that this process was asked for by name, see :func:`add`."""


def available() -> Iterator[str]:
    """Slugs of the systems that can be run, in the order of the list."""
    return (entry.slug for entry in entries() if entry.status == "available")


def add(found: Found) -> None:
    """Makes runs of a system of one's own readable in this process: :func:`of_module` then knows it."""
    _own[found.module] = found


def load(name: str) -> Found:
    """The system of a slug, of a package in the current folder, or of a module by its dotted name (``mylab.mypaper``).

    The name is the user's: its module is imported, and looked for in the current folder too.

    Raises:
      ConfigError: where there is no such system, or not yet.
    """
    known = {entry.slug: entry for entry in entries()}
    if name in known and known[name].status == "planned":
        raise ConfigError(f"{name} is planned but cannot be run yet; available now: {', '.join(available())}")
    offered = {} if name in known or "." in name else _offered()
    is_here = name not in known and name not in offered and Path(name, "__init__.py").is_file()
    module = name if "." in name or is_here else offered.get(name, f"experiments.{name}")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module) or not _exists(module):
        near = difflib.get_close_matches(name, [*known, *offered], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"there is no system {name!r}; {hint}`relic list` shows all of them, and a module of your own is named with"
            " dots (mylab.mypaper)"
        )
    found = _defined_in(module)
    add(found)
    return found


def of_module(module: str) -> Found:
    """The system that a file, such as the run.json of a run, says to be defined by a module.

    Nothing is imported for a name's sake: the module has to be one of relic's own, one that an installed package offers
    (:data:`GROUP`), or one that this process was asked for by name.

    Raises:
      ConfigError: where it is none of these.
    """
    if module in _own:
        return _own[module]
    if module in (f"experiments.{slug}" for slug in available()) or module in _offered().values():
        return _defined_in(module)
    raise ConfigError(
        f"relic does not know module {module!r}, and a file's word is no reason to import it; if it is yours, name it "
        f"in place of the folder (`relic table {module}`), or offer it as an entry point, see docs/new_system.md"
    )


def _offered() -> dict[str, str]:
    """Modules by slug, as installed packages offer them."""
    return {point.name: point.module for point in importlib.metadata.entry_points(group=GROUP)}


def _defined_in(module: str) -> Found:
    from experiments.lab.system import System  # brings JAX

    try:
        system = getattr(importlib.import_module(module), "SYSTEM", None)
    except ModuleNotFoundError as error:
        raise ConfigError(_unimportable(module, error)) from error
    if not isinstance(system, System):
        what = "no SYSTEM" if system is None else f"a SYSTEM that is no System but {type(system).__name__}"
        raise ConfigError(f"{module} defines {what}, see docs/new_system.md")
    return Found(system, module)


class _InCurrentFolder:
    """Finds one package in the current folder, where it is found nowhere else.

    A folder on ``sys.path`` would be searched for everything that anybody tries to import, optional dependencies of
    libraries among them; this is asked for the package that the user named, and for nothing beside it.
    """

    def __init__(self, package: str):
        self._package, self._folder = package, os.getcwd()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As :mod:`importlib` asks."""
        return PathFinder.find_spec(name, [self._folder]) if name == self._package else None


def _exists(module: str) -> bool:
    package = module.partition(".")[0]
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        sys.meta_path.append(_InCurrentFolder(package))  # type: ignore[arg-type]
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            return False
        raise ConfigError(_unimportable(module, error)) from error


def _unimportable(module: str, error: ModuleNotFoundError) -> str:
    return (
        f"{module} cannot be imported: {error}; install it, or name its folder in PYTHONPATH (of the current folder "
        f"nothing but {module.partition('.')[0]} is looked at)"
    )


@functools.cache
def home(module: str) -> Path:
    """The project that a module belongs to: the nearest folder around it with a pyproject.toml or a repository."""
    spec = importlib.util.find_spec(module)
    file = Path(spec.origin).resolve() if spec and spec.origin else Path.cwd() / module
    marked = (folder for folder in file.parents if any((folder / name).exists() for name in ("pyproject.toml", ".git")))
    return next(marked, file.parent)


def as_json() -> list[dict[str, str]]:
    """The list as plain values."""
    return [
        {"slug": e.slug, "title": e.title, "family": e.family, "status": e.status, "line": e.line} for e in papers()
    ]


def terminal() -> Table:
    """The list for the terminal, by family."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("system", "status", "what it does"):
        table.add_column(name, no_wrap=name != "what it does")
    for family, title in FAMILIES.items():
        table.add_row(f"\n[bold]{title}[/bold]")
        for entry in (e for e in papers() if e.family == family):
            style = "green" if entry.status == "available" else "dim"
            table.add_row(entry.slug, f"[{style}]{entry.status}[/{style}]", f"{entry.line}\n[dim]{entry.title}[/dim]")
    table.add_row("\n[bold]Shared layers[/bold]")
    for entry in (e for e in entries() if e.is_layer):
        table.add_row(entry.slug, f"[green]{entry.status}[/green]", f"{entry.line}\n[dim]{entry.title}[/dim]")
    return table
