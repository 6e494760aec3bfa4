"""The ``relic`` command. What it imports at the top is little, so that help and lists come at once."""

import contextlib
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from core.errors import ConfigError, Preempted, RelicError
from core.stopping import handled
from experiments.lab import streams
from experiments.lab.progress import Progress, tell

if TYPE_CHECKING:
    from experiments.lab.runs import Run

Output = Literal["table", "json"]
Slug = Annotated[Positional[str], arg(metavar="SLUG")]
Target = Annotated[Positional[str], arg(metavar="SLUG|FOLDER")]
Folder = Annotated[Path, arg(metavar="DIR")]
DataDir = Annotated[Path | None, arg(metavar="DIR")]
Name = Annotated[Positional[str], arg(metavar="NAME")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]

DESCRIPTION = """26 published systems in JAX: train, compare with the paper, report.

first steps:
  relic demo                               DCCF beside LightGCN in a few minutes, with a report
  relic list                               what there is
  relic run jepa_linear --preset smoke     a whole system in under a minute
  relic run dccf --seeds 5 --set layers=3  other seeds, other settings; run again to resume
  relic table dccf                         published beside reproduced
  relic claims dccf                        what a reproduction must show, and whether it does
  relic report runs/                       one HTML page of everything

`relic COMMAND --help` explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status: 0, 2 for an error, 75 for a run that was stopped and saved."""
    argv = list(sys.argv[1:] if argv is None else argv)
    streams.prepare()
    try:
        interrupts = handled(signal.SIGINT, by=signal.default_int_handler, importing=_leave)
        with interrupts, Progress(f"{shlex.join(['relic', *argv[:2]])} is at work"):
            tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="relic", description=DESCRIPTION, args=argv)
    except Preempted as stopped:
        from core.fit import EXIT_PREEMPTED

        tell(f"{stopped}\nto go on where it stopped:\n  {shlex.join(['relic', *argv])}")
        return EXIT_PREEMPTED
    except RelicError as error:
        tell(f"relic: {error}")
        if isinstance(error, streams.OutputError):
            streams.discard_output()
        return 2
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        tell(f"relic: JAX has no such device here: {error}")
        return 2
    except KeyboardInterrupt:
        tell("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe had enough
        streams.discard_output()
    except SystemExit:
        _flush_help()
        raise
    return 0


def _leave(number: int, frame: Any) -> None:
    """Ends the process where an exception might be lost and nothing is being written."""
    os.write(2, b"interrupted\n")  # the stream may be in use
    os._exit(128 + number)


def _flush_help() -> None:
    """Help and usage were printed by others; where they cannot be written the process ends as quietly as it can."""
    try:
        sys.stdout.flush()
    except OSError:
        streams.discard_output()


def _print(*renderables: Any) -> None:
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, force_terminal=sys.stdout.isatty(), width=streams.columns())
    for renderable in renderables:
        console.print(renderable, highlight=False)
    streams.write(text.getvalue())


def _print_json(document: Any) -> None:
    streams.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Sends what other code prints to standard error, so that standard output holds our document alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def list_(format: Output = "table") -> None:
    """The 26 systems and whether they can be run yet.

    Args:
        format: A table for people or one JSON document.
    """
    from experiments.lab import registry

    if format == "json":
        return _print_json(registry.as_json())
    return _print(registry.terminal())


def run(
    slug: Slug,
    /,
    preset: str = "small",
    seeds: str = "3",
    settings: Settings = (),
    workdir: Folder = Path("runs"),
    data_dir: DataDir = None,
    keep: Flag = False,
    again: Flag = False,
    distributed: Flag = False,
) -> None:
    """Train and evaluate a system, then print its table.

    The same command again resumes: finished cells are skipped, training goes on at its last checkpoint. A cell counts
    as finished as long as the raw data that it read and the code that computed it are the same. Where data changed it
    is computed again; where code changed the command stops, and --keep or --again says what to do.

    For example:
      relic run dccf --preset small --seeds 5
      relic run dccf --seeds 0,3,7 --set layers=3 --set learning_rate=0.01

    Args:
        slug: The system (see `relic list`), or a module of your own that defines SYSTEM (mylab.mypaper).
        preset: Size of the run: smoke (under a minute), small (minutes), paper (published scale).
        seeds: How many seeds (5), or which (0,3,7).
        settings: Changes a setting of the preset.
        workdir: Folder of all runs; this one goes to WORKDIR/SLUG/PRESET, or to PRESET,KEY=VALUE there.
        data_dir: Where raw data files lie (default: RELIC_DATA, then ../shared/data beside the project).
        keep: Keep the numbers that older code computed, and compute only what is missing.
        again: Compute again what older code computed.
        distributed: Join the processes of a cluster first (see `relic launch`).
    """
    if distributed:
        from core.parallel import initialize

        initialize()
    from core.compilation import keep_compiled
    from core.parallel import is_primary
    from experiments.lab import registry, runs
    from experiments.lab.launch import run_command
    from experiments.lab.runner import execute
    from experiments.lab.settings import seeds as parse_seeds

    keep_compiled()
    folder = execute(
        registry.load(slug),
        preset=preset,
        seeds=parse_seeds(seeds),
        assignments=settings,
        workdir=workdir,
        data_dir=data_dir,
        command=run_command(slug, preset, seeds, settings, workdir, data_dir),
        changed_code=_changed_code(keep, again),
    )
    if is_primary():
        _show(runs.read(folder))


def _changed_code(keep: bool, again: bool) -> Literal["ask", "keep", "again"]:
    if keep and again:
        raise ConfigError("--keep and --again exclude each other: numbers of older code are kept or computed again")
    return "keep" if keep else "again" if again else "ask"


def _show(run: "Run") -> None:
    from rich.markup import escape

    from experiments.lab import evidence, grids, standing

    shown = map(grids.Shown, grids.all_grids(run, evidence.beside(run)))
    _print(f"[bold]{run.system.title}[/bold]  {escape(run.name)}", *shown)
    _tell_standing(run)
    for command in standing.commands(run):
        tell(f"made by: {command}")


def _tell_standing(run: "Run") -> None:
    from experiments.lab import evidence, standing

    what = "the reference run that ships, " if evidence.is_reference(run) else ""
    tell(f"shown: {what}{run.name}, {run.folder}")
    for remark in standing.remarks(run):
        tell(remark)


def _tell_empty(found: "Sequence[Run]") -> None:
    from experiments.lab import standing

    for remark in filter(None, map(standing.empty, found)):
        tell(remark)


def table(
    target: Target,
    /,
    format: Literal["terminal", "md", "latex", "csv", "json", "table"] = "terminal",
    preset: str | None = None,
    settings: Settings = (),
    workdir: Folder = Path("runs"),
) -> None:
    """Published beside reproduced: numbers with 95 % intervals over seeds or people, tests against the baseline.

    Where the system has not run here, its reference run is shown, which ships with relic; else that stands beside it.

    For example:
      relic table dccf
      relic table dccf --set layers=3
      relic table runs/dccf --format latex > table.tex

    Args:
        target: A system, or the folder of a run.
        format: How to write it.
        preset: Which preset's run (default: the newest that is finished).
        settings: The run with these changes to its preset (default: without any).
        workdir: Folder of all runs.
    """
    from experiments.lab import evidence, grids, standing, tables

    with _quiet_stdout():
        run = standing.chosen(evidence.find(target, workdir, preset, settings))
        reference = evidence.beside(run)
        text = grids.render(run, format, reference) if format in ("md", "latex", "csv") else None
        shown = "reference" if evidence.is_reference(run) else "own"
        more = {"run": run.name, "shown": shown, "remarks": standing.remarks(run)}
        document = tables.as_json(run, reference) | more if format == "json" else None
    if text is not None:
        streams.write(text)
    elif document is not None:
        _print_json(document)
    else:
        return _show(run)
    return _tell_standing(run)


def claims(
    slug: Slug,
    /,
    format: Output = "table",
    preset: str | None = None,
    settings: Settings = (),
    workdir: Folder = Path("runs"),
) -> None:
    """The claims ledger: what a reproduction must show, the evidence, the measured value, met or not.

    It is read from the outcomes of tests (`make test`, `make test-all`) and from the records of runs of unchanged
    presets, finished ones first. What the reference run shows, which ships with relic, stands beside it.

    Args:
        slug: The system.
        format: A table for people or one JSON document.
        preset: Judge the run of this preset (default: paper, else small).
        settings: Judge the run with these changes to its preset.
        workdir: Folder of all runs.
    """
    from experiments.lab import ledger, registry

    with _quiet_stdout():
        reference = ledger.of_reference(registry.load(slug))
        system, lines = ledger.of(slug, workdir, preset, settings)
        judged = ledger.judged(ledger.runs_of(system, workdir, settings), preset, bool(settings))
        for run in judged:
            _tell_standing(run)
        _tell_empty(ledger.runs_of(system, workdir, settings))
        if not judged and (names := [run.name for run in ledger.runs_of(system, workdir)]):
            tell(f"runs that are not judged: {'; '.join(names)} (--preset and --set choose one)")
    if format == "json":
        _print_json(ledger.as_json(lines, reference))
    else:
        _print(ledger.terminal(system, lines, reference))


def report(
    target: Target = "",
    /,
    output: Path | None = None,
    preset: str | None = None,
    settings: Settings = (),
    workdir: Folder = Path("runs"),
) -> None:
    """One self-contained HTML page: claims, tables, figures, and where every number comes from.

    Args:
        target: The folder of all runs, of one system's or of one run; or a system (left out: WORKDIR, or the reference
            runs that ship where nothing has run there).
        output: The page to write (default: report.html in the folder); figures go into each run's folder.
        preset: Which preset's runs (default: the largest that is finished).
        settings: Runs with these changes to their preset (default: without any).
        workdir: Folder of all runs.
    """
    from experiments.lab import evidence, runs
    from experiments.lab.report import most_telling, write_report

    asked = (workdir, preset, settings)
    found = evidence.find(target, *asked) if target else evidence.everything(*asked)
    if not found:
        raise ConfigError(f"nothing has run under {workdir}; start a run with `relic run SLUG`")
    for run in most_telling(found):
        _tell_standing(run)
    _tell_empty(found)
    is_folder = not target or runs.is_folder(target)
    folder = Path(target or workdir) if is_folder else workdir / found[0].system.slug
    tell(f"wrote {write_report(found, output or folder / 'report.html', preset)}")


def reproduce(
    slug: Annotated[Positional[str], arg(metavar="[SLUG]")] = "",
    /,
    preset: str = "small",
    seeds: str = "",
    compare: Flag = False,
    workdir: Folder = Path("runs"),
    data_dir: DataDir = None,
    keep: Flag = False,
    again: Flag = False,
) -> None:
    """Run a system as its reference was run, or every available system; resumes like `relic run`.

    After all systems comes the report. For example:
      relic reproduce dccf --compare    # which numbers leave the intervals of the reference

    Args:
        slug: The system (left out: all of them).
        preset: Size of the runs.
        seeds: How many seeds, or which (default: those of the reference, else 3).
        compare: Say which numbers of the run lie outside of the intervals of the reference.
        workdir: Folder of all runs.
        data_dir: Where raw data files lie.
        keep: As in `relic run`.
        again: As in `relic run`.
    """
    from core.compilation import keep_compiled
    from experiments.lab.reproduce import reproduce_all, reproduced

    keep_compiled()
    changed = _changed_code(keep, again)
    if slug:
        run = reproduced(slug, preset, seeds, workdir, data_dir, changed)
        _show(run)
        if compare:
            _compare(run)
        return
    failures = reproduce_all(preset, seeds or "3", workdir, data_dir, tell, changed_code=changed)
    if failures:
        raise RelicError("; ".join(f"{name}: {message}" for name, message in failures.items()))


def _compare(run: "Run") -> None:
    from experiments.lab import comparison, evidence

    reference = evidence.beside(run)
    if reference is None:
        raise ConfigError(f"{run.system.slug} has no reference to compare with")
    _print(*comparison.terminal(comparison.compared(run, reference)))


def new(
    name: Annotated[Positional[str], arg(metavar="NAME")],
    /,
    outside: Annotated[Path | None, arg(metavar="DIR")] = None,
    family: Literal["rec", "latent", "causal", "interp"] = "latent",
) -> None:
    """Write a running paper: method, settings, study, claims, figures, tests and page, to be replaced by yours.

    For example:
      relic new mypaper --outside ~/mypaper
      cd ~/mypaper && relic run mypaper --preset smoke

    Args:
        name: Small letters, figures and _.
        outside: The folder of a project of its own (left out: the paper becomes part of relic).
        family: The room of its method, where it becomes part of relic.
    """
    from experiments.lab.new import write

    for path in write(name, family, outside):
        tell(f"wrote {path}")
    tell(f"try it: {f'cd {shlex.quote(str(outside))} && ' if outside else ''}relic run {name} --preset smoke")


def keep(
    slug: Slug,
    /,
    preset: str | None = None,
    workdir: Folder = Path("runs"),
    again: Flag = False,
    tests: Flag = False,
) -> None:
    """Make a run the reference of its system: records and outcomes of tests go to evidence/SLUG, to be committed.

    Args:
        slug: The system.
        preset: Which preset's run (default: the largest that is finished).
        workdir: Folder of all runs.
        again: Replace a reference of more seeds.
        tests: Keep the newest outcomes of tests alone, beside the reference that there is.
    """
    from experiments.lab import evidence, registry, runs, standing

    found = registry.load(slug)
    if tests:
        place = evidence.keep_outcomes(found)
    else:
        place = evidence.keep(found, standing.chosen(runs.find(slug, workdir, preset)), again)
    tell(f"wrote {place}; `relic docs` writes the pages from it")


def demo(workdir: Folder = Path("runs"), data_dir: DataDir = None) -> None:
    """DCCF beside LightGCN, on real data if there are any: the figure, the table, what may be concluded, the report.

    Every method is trained until held-out training items are ranked no better, and tested at its best step.

    Args:
        workdir: Folder of all runs.
        data_dir: Where raw data files lie.
    """
    from core.compilation import keep_compiled
    from experiments.lab.reproduce import run_demo

    keep_compiled()
    made = run_demo(workdir, data_dir, tell)
    tell(f"figure: {made.figure}")
    _show(made.run)
    _print(f"\n{made.sentence}")
    tell(f"\nreport: {made.report}")


def data(
    action: Positional[Literal["list", "prepare"]],
    name: Name = "",
    /,
    data_dir: DataDir = None,
) -> None:
    """Data sets: where they come from, whether they are here, and how to prepare one.

    For example:
      relic data list
      relic data prepare gowalla --data-dir ~/data

    Args:
        action: List all, or read, check and convert one.
        name: The data set to prepare.
        data_dir: Where raw data files lie.
    """
    from core.datasets import require_data_dir
    from experiments.lab import datasets

    require_data_dir(data_dir)
    if action == "list":
        _print(datasets.terminal(data_dir))
    else:
        tell(datasets.prepare(name, data_dir))


def bench(
    name: Name = "",
    /,
    format: Output = "table",
    workdir: Folder = Path("runs"),
    keep: Flag = False,
) -> None:
    """Speed beside the best peer, both sides in one run; the ratio comes first.

    What other processes take of the machine is measured too, and results of a busy machine are marked as such.

    Args:
        name: Which comparison (left out: lists them).
        format: A table for people or one JSON document.
        workdir: Folder of all runs; results are kept in WORKDIR/bench.
        keep: Keep them in evidence/bench too, to be committed, if the machine was idle.
    """
    from experiments.lab import benches, evidence, registry

    with _quiet_stdout():
        results = benches.run(name, workdir, tell, registry.ROOT / evidence.FOLDER if keep else None)
    if format == "json":
        _print_json(benches.as_json(results))
    else:
        _print(benches.terminal(results))


def docs(
    slug: Annotated[Positional[str], arg(metavar="[SLUG]")] = "",
    /,
) -> None:
    """Fill the marked regions of docs/systems, README and RESULTS.md from the runs under evidence/.

    Args:
        slug: A paper in a project of its own, whose page and RESULTS.md lie there (left out: all of this project).
    """
    from experiments.lab.docs import of_paper, regenerate

    for path in of_paper(slug) if slug else regenerate():
        tell(f"wrote {path}")


def launch(
    slug: Slug,
    /,
    on: Literal["tpu-vm", "slurm", "gke"],
    hosts: int = 2,
    preset: str = "paper",
    seeds: str = "3",
    settings: Settings = (),
    workdir: Folder = Path("runs"),
    data_dir: DataDir = None,
    hours: int = 12,
    accelerator: str = "",
    zone: str = "us-central1-a",
    image: str = "",
    bucket: str = "",
    relic: str = "relic",
    output: Path | None = None,
) -> None:
    """Write the job file which runs `relic run` on every host of a cluster, joined into one program.

    For example:
      relic launch dccf --on slurm --hosts 4 --accelerator gpu:8
      relic launch dccf --on tpu-vm --accelerator v5litepod-16 --zone us-west4-a
      relic launch dccf --on gke --accelerator tpu-v5-lite-podslice/4x4 --hosts 4 --image IMAGE

    Args:
        slug: The system.
        on: TPU VM pod through gcloud, Slurm through sbatch, or Kubernetes through a JobSet.
        hosts: Number of hosts, one process each (a TPU VM pod has as many as its accelerator type says).
        preset: As in `relic run`.
        seeds: As in `relic run`.
        settings: As in `relic run`.
        workdir: As in `relic run`; hosts write their checkpoints together, so it must be one folder that all share.
        data_dir: As in `relic run`, on the hosts.
        hours: Time limit.
        accelerator: TPU type (v5litepod-16), Slurm's --gres (gpu:8), or GKE's accelerator/topology.
        zone: Google Cloud zone of a TPU VM.
        image: Container image for GKE, with relic installed.
        bucket: Cloud Storage bucket to be mounted as the working folder of TPU VMs.
        relic: How relic is called on the hosts.
        output: The file to write (default: WORKDIR/launch/...).
    """
    from experiments.lab.launch import job, write_job

    planned = job(
        slug, preset=preset, seeds=seeds, assignments=settings, workdir=workdir, data_dir=data_dir, hosts=hosts,
        hours=hours, accelerator=accelerator, zone=zone, image=image, bucket=bucket, relic=relic,
    )  # fmt: skip
    path, submit = write_job(on, planned, output)
    tell(f"wrote {path}; submit it with\n  {submit}")


COMMANDS = {
    "list": list_,
    "run": run,
    "table": table,
    "claims": claims,
    "report": report,
    "reproduce": reproduce,
    "data": data,
    "bench": bench,
    "launch": launch,
    "new": new,
    "keep": keep,
    "docs": docs,
    "demo": demo,
}

if __name__ == "__main__":
    sys.exit(main())
