"""Digests of source code, by which one sees whether the code behind a number or a test's outcome has changed.

Comments, docstrings and formatting do not change a module's digest. The modules that it imports count too, and those
that they import; a module imported by a computed name is not noticed. This module imports the standard library only,
and parses a file again only when it has changed.
"""

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "latent", "rec", "causal", "interp", "experiments")
LAB = "experiments.lab"
MEASURING = frozenset({f"{LAB}.looks"})
"""Of the lab, the modules on which numbers depend."""
NOTING = frozenset({"core.datasets.observed", "core.errors", "core.records"})
"""Modules that note what was read and measured: no number depends on them, as none does on the rest of the lab."""

Modules = dict[str, str]
"""Digests by module."""


class Part(NamedTuple):
    """Some of a module's source."""

    digest: str
    imports: tuple[str, ...]
    """Dotted names of what it imports: modules, or names in modules."""


def of_run(entries: Sequence[str]) -> Modules:
    """The code that a system's numbers depend on.

    In the modules that define the entries only the statements count which the entries need, since the others (claims,
    tables, figures) change no number. Modules that these statements import count in full, except :data:`NOTING` and
    those of the lab that do not measure. The package of a paper is imported whenever one of its modules is; it counts
    by what the entries need of it.

    Args:
      entries: ``module:name`` of the system's ``plan`` and of its configuration, see :func:`entries_of`.
    """
    wanted: dict[str, list[str]] = {}
    for entry in entries:
        module, _, name = entry.partition(":")
        wanted.setdefault(module, []).append(name)
    tops = {*PACKAGES, *(module.partition(".")[0] for module in wanted)}
    roots = tuple(dict.fromkeys((ROOT, *map(_root, tops))))
    found: Modules = {}
    reached: list[str] = []
    papers: set[str] = set()  # the packages around the entries
    for module, names in wanted.items():
        if path := _file(module, roots):
            part = _some(path, module, tuple(names))
            found[module] = part.digest
            reached += part.imports
            papers |= {*_with_parents(module if path.name == "__init__.py" else module.rpartition(".")[0])}
    counts = lambda m: m.partition(".")[0] in tops and m not in papers and _counts(m)  # noqa: E731
    return found | _closure(reached, roots, counts)


def _counts(module: str) -> bool:
    is_lab = module == LAB or module.startswith(f"{LAB}.")
    return module in MEASURING if is_lab else module not in NOTING


def of_test(path: str, root: Path) -> Modules:
    """The code that a test's outcome depends on: its module, the conftest files around it, and what they import.

    Args:
      path: of the test's file, from the root.
      root: folder of the project.
    """
    folders = [Path(path).parents[i] for i in range(len(Path(path).parents))]
    files = [Path(path), *(folder / "conftest.py" for folder in folders)]
    starts = [".".join(file.with_suffix("").parts) for file in files if (root / file).is_file()]
    return _closure(starts, (root, ROOT), lambda module: True)


def total(modules: Mapping[str, str]) -> str:
    """One short digest of many."""
    return _hash(json.dumps(sorted(modules.items())))


def different(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Modules that changed, came or went."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def entries_of(run: Callable, config_type: type, module: str) -> list[str]:
    """``module:name`` of what computes a system's numbers; all of its module where ``run`` has no name there."""
    named = getattr(run, "__qualname__", "<lambda>").partition(".")[0]
    place = getattr(run, "__module__", None)
    own = f"{place}:{named}" if place and named.isidentifier() else f"{module}:"
    return [own, f"{config_type.__module__}:{config_type.__qualname__.partition('.')[0]}"]


def newest_change(modules: Iterable[str], root: Path) -> int:
    """When the newest of some modules was written, in nanoseconds."""
    paths = [path for module in modules if (path := _file(module, (root, ROOT)))]
    return max((path.stat().st_mtime_ns for path in paths), default=0)


def _closure(starts: Iterable[str], roots: Sequence[Path], counts: Callable[[str], bool]) -> Modules:
    found: Modules = {}
    left = list(starts)
    while left:
        module = left.pop()
        if module in found or not counts(module):
            continue
        path = _file(module, roots)
        if path is None:  # of another project, or a name inside a module
            continue
        part = _some(path, module, ("",))
        found[module] = part.digest
        left += part.imports
    return found


@functools.cache
def _root(top: str) -> Path:
    """The folder in which a top-level package lies."""
    if _file(top, (ROOT,)):
        return ROOT
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = places[0] if places else spec.origin if spec else None
    return Path(file).parent if file else ROOT


def _file(module: str, roots: Sequence[Path]) -> Path | None:
    for root in roots:
        base = root.joinpath(*module.split("."))
        for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _some(path: Path, module: str, names: tuple[str, ...]) -> Part:
    found = path.stat()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _part(path, found.st_mtime_ns, found.st_size, package, names)


@functools.lru_cache(maxsize=4096)
def _part(path: Path, changed_ns: int, size: int, package: str, names: tuple[str, ...]) -> Part:
    """The statements that some names of a module need; all of them where a name is empty or not defined there."""
    del changed_ns, size  # they are here to distinguish versions of the file in the cache
    body = ast.parse(path.read_bytes()).body
    chosen = _needed(body, names)
    imports = tuple(dict.fromkeys(name for statement in chosen for name in _imports(statement, package)))
    beside = [path.with_name(text) for text in _texts(chosen) if text.endswith((".c", ".h")) and "/" not in text]
    native = [hashlib.sha256(file.read_bytes()).hexdigest() for file in beside if file.is_file()]
    code = ast.Module([_without_texts(statement) for statement in chosen if not _is_text(statement)], [])
    return Part(_hash(ast.unparse(code) + "".join(native)), imports)


def _needed(body: Sequence[ast.stmt], names: Iterable[str]) -> list[ast.stmt]:
    """The statements that some names need, in order, with those that may act on import."""
    bound = [_bound(statement) for statement in body]
    known = {name for each in bound for name in each or ()}
    if not known.issuperset(names):
        return list(body)
    wanted, chosen = set(names), {i for i, each in enumerate(bound) if each is None}
    while True:
        wanted |= {n.id for i in chosen for n in ast.walk(body[i]) if isinstance(n, ast.Name)}
        more = {i for i, each in enumerate(bound) if each and wanted & each} - chosen
        if not more:
            return [body[i] for i in sorted(chosen)]
        chosen |= more


def _bound(statement: ast.stmt) -> set[str] | None:
    """The names that a definition, assignment or import binds; None for statements that may do more than bind."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            names = {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
            return None if "*" in names else names
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        case ast.Expr(value=ast.Constant(value=str())):
            return set()
    return None


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a statement imports when it runs, imports inside functions included."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            inside: Sequence[ast.AST] = node.orelse
        case ast.Import():
            for alias in node.names:
                yield from _with_parents(alias.name)
            return
        case ast.ImportFrom():
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)
            return
        case _:
            inside = list(ast.iter_child_nodes(node))
    for child in inside:
        yield from _imports(child, package)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _texts(body: Iterable[ast.AST]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _without_texts(statement: ast.stmt) -> ast.stmt:
    """The statement without docstrings and other strings that are statements of their own."""
    for node in ast.walk(statement):
        body = getattr(node, "body", None)
        if isinstance(body, list) and any(map(_is_text, body)):
            node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    return statement


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
