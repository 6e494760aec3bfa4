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
from core.stats import within
from experiments import bench
from experiments.lab import runs
from experiments.lab.progress import tell
from experiments.lab.system import ShownByBench, Verdict


def names() -> list[str]:
    """All comparisons."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__))


def run(
    name: str, workdir: Path, say: Callable[[str], None] = lambda line: None, evidence: Path | None = None
) -> list[BenchResult]:
    """Runs a comparison and keeps its results in ``workdir/bench/<name>.json``, marked where the machine was busy.

    Args:
      name: which, of :func:`names`.
      workdir: the folder of all runs.
      say: gets a sentence where other processes took part of the machine.
      evidence: the folder of evidence, in which they are kept too if the machine was idle.

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
    for folder in (workdir, *([evidence] if evidence and not load.is_busy else [])):
        runs.write(folder / "bench" / f"{name}.json", text, folder)
    return results


_RESULT: documents.Kinds = {"name": str, "peer": str, "device": str, "ours_s": float, "peer_s": float, "ratio": float}
_MORE: documents.Kinds = dict.fromkeys(("ours_spread", "peer_spread", "ratio_low", "ratio_high"), (float, NoneType))


def kept(workdir: Path) -> list[dict[str, Any]]:
    """The kept results that were measured on an idle machine; damaged files are named and passed over.

    Args:
      workdir: the folder of all runs, or that of evidence.
    """
    found = []
    for path in sorted((workdir / "bench").glob("*.json")):
        try:
            bench = documents.read(path)
            problem = documents.fault(bench, {"name": str, "results": list, "commit": str, "time": str})
            for result in bench["results"] if problem is None else ():
                problem = problem or documents.fault(result if isinstance(result, dict) else {}, _RESULT, _MORE)
            if problem:
                raise DataError(f"{path} {problem}")
        except DataError as error:
            tell(f"{error}: passed over")
        else:
            found += [bench] if not any(result.get("busy") for result in bench["results"]) else []
    return found


def judge(asked: ShownByBench, *workdirs: Path) -> tuple[Verdict, str]:
    """Whether a comparison's ratio reaches its limit, by the first folder that has it; and its source."""
    for measured in (found for workdir in workdirs for found in kept(workdir) if found["name"] == asked.bench):
        for result in measured["results"]:
            if result["name"].startswith(asked.result):
                interval = tuple(result.get(name) or math.nan for name in ("ratio_low", "ratio_high"))
                words = f"{result['name']}: {result['ratio']:.2f} times as fast as {result['peer']}"
                met = within((interval[0], interval[1]), least=asked.least)
                misses = met is None and result["ratio"] < asked.least
                shown = (interval[0], interval[1]) if interval[1] >= interval[0] else None
                source = f"{result['device']}, {measured['commit']}, {measured['time'][:10]}"
                return Verdict(met, words, shown, misses), source
    return Verdict(None), f"`relic bench {asked.bench}` was not run on an idle machine yet"


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
