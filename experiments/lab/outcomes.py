"""A pytest plugin which keeps what tests found: a JSON line per test in ``.relic/outcomes.jsonl`` of the project.

Loaded by ``-p experiments.lab.outcomes``. With pytest-xdist only the controlling process writes. The claims
ledger reads the file with :func:`read`.
"""

import collections
import datetime
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from core import documents
from core.errors import DataError
from experiments.lab import sources

FILE = Path(".relic") / "outcomes.jsonl"
CRASHED = "???"
"""The phase in which pytest-xdist reports a test that took its process down."""
SIBLINGS = "relic_siblings"
"""Property in which a parametrised test tells the ids of all cases that were collected with it."""


class Outcome(NamedTuple):
    """What the newest run of a test found; of all its cases, where it is parametrised."""

    passed: bool | None
    """None where it, or one of its cases, was skipped or not run."""
    value: str = ""
    interval: tuple[float, float] | None = None
    commit: str = ""
    time: str = ""
    code: str = ""
    """Digest of the code that was tested, see :func:`experiments.lab.sources.of_test`; empty where it is not known or
    differs between the cases."""


def read(root: Path) -> dict[str, Outcome]:
    """Newest outcomes of a project's tests by node id without parameters."""
    return read_file(root / FILE)


def lines(root: Path, functions: Collection[str]) -> list[str]:
    """The newest line of each case of some tests, as they stand in the project's file."""
    newest: dict[str, str] = {}
    path = root / FILE
    for line in documents.contents(path).split(b"\n") if path.is_file() else []:
        found = _parse(line)
        if found and _function(found["nodeid"]) in functions:
            newest.pop(found["nodeid"], None)
            newest[found["nodeid"]] = line.decode()
    return list(newest.values())


def read_file(path: Path) -> dict[str, Outcome]:
    """Newest outcomes in a file by node id without parameters; none where there is no file."""
    lines = documents.contents(path).split(b"\n") if path.is_file() else []
    cases: dict[str, dict[str, dict]] = collections.defaultdict(dict)
    for line in filter(None, map(_parse, lines)):
        function = _function(line["nodeid"])
        cases[function].pop(line["nodeid"], None)
        cases[function][line["nodeid"]] = line
    return {function: _of_all_cases(lines) for function, lines in cases.items()}


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


_KINDS: documents.Kinds = dict.fromkeys(("nodeid", "outcome", "commit", "time"), str) | {
    "value": (str, int, float, bool, NoneType, list),
    "interval": (list, NoneType),
    "siblings": (list, NoneType),
}


def _parse(line: bytes) -> dict | None:
    """An outcome; None where a crash tore the line, or where it is damaged otherwise."""
    try:
        found = documents.parsed(line)
    except DataError:
        return None
    if documents.fault(found, _KINDS, {"code": str}):
        return None
    limits, siblings = found["interval"] or [0, 0], found["siblings"] or []
    fits = len(limits) == 2 and all(isinstance(limit, int | float) for limit in limits)
    return found if fits and all(isinstance(nodeid, str) for nodeid in siblings) else None


def _of_all_cases(lines: Mapping[str, dict]) -> Outcome:
    """One outcome from those of the cases, oldest first; cases that are no longer collected do not count."""
    collected = [line["siblings"] for line in lines.values() if line["siblings"]]
    expected = collected[-1] if collected else list(lines)
    found = [lines[nodeid] for nodeid in expected if nodeid in lines]
    if any(line["outcome"] == "failed" for line in found):
        passed = False
    else:
        passed = True if len(found) == len(expected) and all(line["outcome"] == "passed" for line in found) else None
    values = list(dict.fromkeys(str(line["value"]) for line in found if line["value"] is not None))
    interval = found[0]["interval"] if len(found) == 1 else None
    newest = found[-1] if found else {"commit": "", "time": ""}
    codes = {line.get("code", "") for line in found}
    return Outcome(
        passed,
        "; ".join(values),
        tuple(interval) if interval else None,
        newest["commit"],
        newest["time"],
        codes.pop() if len(codes) == 1 else "",
    )


def pytest_configure(config) -> None:
    """Writes from the process that sees all reports only."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.pluginmanager.register(Writer(config.rootpath / FILE), "relic-outcomes-writer")


def pytest_collection_modifyitems(config, items) -> None:
    """Notes which cases a parametrised test has, before any is deselected; not where single tests were asked for."""
    if any("::" in argument for argument in config.args):
        return
    cases = collections.defaultdict(list)
    for item in items:
        cases[_function(item.nodeid)].append(item.nodeid)
    for item in items:
        if "[" in item.nodeid:
            item.user_properties.append((SIBLINGS, cases[_function(item.nodeid)]))


def pytest_runtest_makereport(item, call) -> None:
    """Makes plain values of what a test reported: arrays and NumPy's numbers do not travel between processes."""
    if item.user_properties:
        from core.records import to_plain  # brings JAX, which a test run may not need

        item.user_properties[:] = [(name, to_plain(value)) for name, value in item.user_properties]


class Writer:
    """Collects the phases of each test and appends a line when it is over."""

    def __init__(self, path: Path):
        path.parent.mkdir(exist_ok=True)
        self._path, self._began = path, _file_time(path.parent)
        self._codes: dict[str, str] = {}
        self._reports: dict[str, list[Any]] = collections.defaultdict(list)

    def pytest_runtest_logreport(self, report) -> None:
        """A phase (setup, call, teardown) is over; the last one completes the test."""
        self._reports[report.nodeid].append(report)
        if report.when in ("teardown", CRASHED):
            self._append(report.nodeid, self._reports.pop(report.nodeid))

    def _append(self, nodeid: str, reports: list[Any]) -> None:
        from core.records import commit

        properties = dict(reports[-1].user_properties)
        line = {
            "nodeid": nodeid,
            "outcome": _outcome(reports),
            "value": properties.get("value"),
            "interval": properties.get("interval"),
            "siblings": properties.get(SIBLINGS),
            "code": self._code(nodeid.partition("::")[0]),
            "commit": commit(self._path.parents[1]),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _code(self, path: str) -> str:
        """Digest of the code that a file tests; not known where some of it was written after the tests began."""
        if path not in self._codes:
            root = self._path.parents[1]
            modules = sources.of_test(path, root)
            is_old = sources.newest_change(modules, root) < self._began
            self._codes[path] = sources.total(modules) if is_old else ""
        return self._codes[path]


def _file_time(folder: Path) -> int:
    """Time by the clock that marks files written now; it may lag behind the process's clock by some milliseconds."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _outcome(reports: Iterable[Any]) -> str:
    """A test that is expected to fail shows nothing, whatever it does."""
    outcomes = ["skipped" if hasattr(report, "wasxfail") else report.outcome for report in reports]
    return next((name for name in ("failed", "skipped") if name in outcomes), "passed")
