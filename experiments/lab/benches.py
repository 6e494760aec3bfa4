"""Benchmarks by name: ``experiments.bench.<name>.run()`` compares ours with the best peer."""

import dataclasses
import datetime
import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from rich.table import Table

from core import documents
from core.bench import BenchResult, LoadMeter
from core.errors import ConfigError, DataError
from core.records import commit
from experiments import bench
from experiments.lab import runs
from experiments.lab.progress import tell


def names() -> list[str]:
    """All comparisons."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__))


def run(name: str, workdir: Path, say: Callable[[str], None] = lambda line: None) -> list[BenchResult]:
    """Runs a comparison and keeps its results in ``workdir/bench/<name>.json``, marked where the machine was busy.

    Args:
      name: which, of :func:`names`.
      workdir: the folder of all runs.
      say: gets a sentence where other processes took part of the machine.

    Raises:
      ConfigError: where there is no such comparison, or its peer is not installed.
    """
    if name not in names():
        what = f"there is no benchmark {name!r}" if name else "name a benchmark"
        raise ConfigError(f"{what}; possible: {', '.join(names())}")
    meter = LoadMeter()
    if meter.before.is_busy:
        say(f"this machine is busy: {meter.before.words()}; results will be marked, and `relic docs` leaves them out")
    try:
        results = importlib.import_module(f"experiments.bench.{name}").run()
    except ModuleNotFoundError as error:
        raise ConfigError(f"benchmark {name} needs the peer {error.name}; `make peers` installs it") from error
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    load = meter.load()
    results = [dataclasses.replace(result, busy=load.is_busy) for result in results]
    if load.is_busy:
        say(f"marked as measured on a busy machine ({load.words()}); run it again when nothing else does")
    measured = {"load": _plain(dataclasses.asdict(load)), "results": as_json(results)}
    measurement = {"name": name, "commit": commit(), "time": now, **measured}
    text = documents.sealed(json.dumps(measurement, indent=1) + "\n")
    runs.write(workdir / "bench" / f"{name}.json", text, workdir)
    return results


_RESULT: documents.Kinds = {"name": str, "peer": str, "device": str, "ours_s": float, "peer_s": float, "ratio": float}
_SPREADS: documents.Kinds = dict.fromkeys(("ours_spread", "peer_spread"), (float, NoneType))


def kept(workdir: Path) -> list[dict[str, Any]]:
    """The kept results that were measured on an idle machine; damaged files are named and passed over."""
    found = []
    for path in sorted((workdir / "bench").glob("*.json")):
        try:
            bench = documents.read(path)
            problem = documents.fault(bench, {"name": str, "results": list})
            for result in bench["results"] if problem is None else ():
                problem = problem or documents.fault(result if isinstance(result, dict) else {}, _RESULT, _SPREADS)
            if problem:
                raise DataError(f"{path} {problem}")
        except DataError as error:
            tell(f"{error}: passed over")
        else:
            found += [bench] if not any(result.get("busy") for result in bench["results"]) else []
    return found


def as_json(results: Sequence[BenchResult]) -> list[dict[str, Any]]:
    """Results as plain values."""
    return [_plain(dataclasses.asdict(result) | {"ratio": result.ratio}) for result in results]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """With None for what is not known."""
    return {name: None if value != value else value for name, value in values.items()}


def terminal(results: Sequence[BenchResult]) -> Table:
    """Results for the terminal, the ratio first."""
    table = Table(title="peer's time over ours: above 1, we are faster", title_justify="left", title_style="dim")
    for title in ("ratio", "what", "ours", "peer", "", "compile", "device", "note"):
        table.add_column(title, justify="right" if title in ("ratio", "ours", "", "compile") else "left")
    table.caption = "in brackets: interquartile range over median"
    for r in results:
        ratio = f"[bold {'green' if r.ratio >= 1 else 'red'}]{r.ratio:.2f}x[/]"
        times = (timing(r.ours_s, r.ours_spread), r.peer, timing(r.peer_s, r.peer_spread), seconds(r.compile_s))
        table.add_row(ratio, r.name, *times, r.device, f"[red]busy machine[/]; {r.note}" if r.busy else r.note)
    return table


def timing(median: float, spread: float | None) -> str:
    """A median with its spread in brackets, where there is one: "12.3 ms (4 %)"."""
    return seconds(median) + ("" if spread is None or math.isnan(spread) else f" ({100 * spread:.0f} %)")


def seconds(value: float) -> str:
    """A duration in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
