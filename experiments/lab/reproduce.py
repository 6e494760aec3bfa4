"""Several systems in turn, and the demonstration."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.datasets import interactions, require_data_dir
from core.errors import ConfigError, DataError, Preempted, RelicError
from experiments.lab import evidence, plots, registry, runs, settings, summaries
from experiments.lab.launch import run_command
from experiments.lab.report import write_report
from experiments.lab.runner import ChangedCode, execute
from experiments.lab.runs import Run

DEMO_SEEDS = 4
"""Runs of each method; the interval of a difference needs several."""


def reproduce_all(
    preset: str,
    seeds: str,
    workdir: Path,
    data_dir: Path | None,
    tell: Callable[[str], None],
    changed_code: ChangedCode = "ask",
) -> dict[str, str]:
    """Runs every available system, then writes the report; returns error messages by slug.

    An error of one system does not end the others. Finished cells that other code computed are such an error, unless
    ``changed_code`` says what to do with them.

    Raises:
      Preempted: where the command was asked to stop.
    """
    require_data_dir(data_dir)
    chosen_seeds = settings.seeds(seeds)
    failures = {}
    for slug in registry.available():
        tell(f"== {slug}, preset {preset}")
        command = run_command(slug, preset, seeds, (), workdir, data_dir)
        try:
            execute(
                registry.load(slug),
                preset=preset,
                seeds=chosen_seeds,
                workdir=workdir,
                data_dir=data_dir,
                command=command,
                changed_code=changed_code,
            )
        except Preempted:
            raise
        except RelicError as error:
            failures[slug] = str(error)
    try:
        tell(f"wrote {write_report(runs.find(str(workdir), workdir), workdir / 'report.html')}")
    except ConfigError as error:  # no run at all, or a page that cannot be written
        failures["report"] = str(error)
    return failures


def reproduced(
    slug: str, preset: str, seeds: str, workdir: Path, data_dir: Path | None, changed_code: ChangedCode
) -> Run:
    """Runs a system with the seeds of its reference unless others are given; returns the run."""
    require_data_dir(data_dir)
    found = registry.load(slug)
    kept = evidence.reference(found)
    if kept and not seeds:
        asked = re.search(r"--seeds[ =](\S+)", kept.info["command"])
        seeds = asked[1] if asked else ",".join(map(str, kept.info["seeds"])) + ","
    seeds = seeds or "3"
    folder = execute(
        found,
        preset=preset,
        seeds=settings.seeds(seeds),
        workdir=workdir,
        data_dir=data_dir,
        command=run_command(slug, preset, seeds, (), workdir, data_dir),
        changed_code=changed_code,
    )
    return runs.read(folder)


class Demo(NamedTuple):
    """What the demonstration leaves."""

    run: Run
    report: Path
    """The HTML page."""
    figure: Path
    """The main figure, as PNG."""
    sentence: str
    """What a reader may conclude."""


def run_demo(workdir: Path, data_dir: Path | None, tell: Callable[[str], None]) -> Demo:
    """DCCF beside LightGCN on Last.FM artists, or on the generator where those are not to be had.

    Every method is trained until held-out training items are ranked no better, and tested at its best step.
    """
    require_data_dir(data_dir)
    source = _demo_data(data_dir, tell)
    folder = execute(
        registry.load("dccf"),
        preset="demo",
        seeds=range(DEMO_SEEDS),
        assignments=source,
        workdir=workdir,
        data_dir=data_dir,
        changed_code="again",
        command=run_command("dccf", "demo", str(DEMO_SEEDS), source, workdir, data_dir),
    )
    run = runs.read(folder)
    page = write_report([run], workdir / "report.html")
    first = next((stem for stem, _ in plots.drawn(run.system.figures, run.frame)), "")
    return Demo(run, page, folder / "figures" / f"{first}.png", summaries.sentence(run, {}))


def _demo_data(data_dir: Path | None, tell: Callable[[str], None]) -> tuple[str, ...]:
    try:
        interactions.load("lastfm_cf", data_dir=data_dir)
    except DataError as error:
        tell(f"data: simulated (the real data are not to be had: {error})")
        return ("dataset=intents",)
    tell("data: Last.FM artists (real)")
    return ()
