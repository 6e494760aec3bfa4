"""Benchmarks by name: ``experiments.bench.<name>.run()`` compares ours with the best peer."""

import dataclasses
import datetime
import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from core.bench import BenchResult
from core.errors import ConfigError
from core.records import commit
from experiments import bench, runs


def names() -> list[str]:
    """All comparisons."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__))


def run(name: str, workdir: Path) -> list[BenchResult]:
    """Runs a comparison and keeps its results in ``workdir/bench/<name>.json``.

    Raises:
      ConfigError: where there is no such comparison, or its peer is not installed.
    """
    if name not in names():
        what = f"there is no benchmark {name!r}" if name else "name a benchmark"
        raise ConfigError(f"{what}; possible: {', '.join(names())}")
    try:
        results = importlib.import_module(f"experiments.bench.{name}").run()
    except ModuleNotFoundError as error:
        raise ConfigError(f"benchmark {name} needs the peer {error.name}; `make peers` installs it") from error
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    kept = {"name": name, "commit": commit(), "time": now, "results": as_json(results)}
    runs.write(workdir / "bench" / f"{name}.json", json.dumps(kept, indent=1) + "\n")
    return results


def as_json(results: Sequence[BenchResult]) -> list[dict[str, Any]]:
    """Results as plain values."""
    return [dataclasses.asdict(result) | {"ratio": result.ratio} for result in results]


def terminal(results: Sequence[BenchResult]) -> Table:
    """Results for the terminal, the ratio first."""
    table = Table(title="peer's time over ours: above 1, we are faster", title_justify="left", title_style="dim")
    for title in ("ratio", "what", "ours", "peer", "", "compile", "device", "note"):
        table.add_column(title, justify="right" if title in ("ratio", "ours", "", "compile") else "left")
    for r in results:
        ratio = f"[bold {'green' if r.ratio >= 1 else 'red'}]{r.ratio:.2f}x[/]"
        times = (seconds(r.ours_s), r.peer, seconds(r.peer_s), seconds(r.compile_s))
        table.add_row(ratio, r.name, *times, r.device, r.note)
    return table


def seconds(value: float) -> str:
    """A duration in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
