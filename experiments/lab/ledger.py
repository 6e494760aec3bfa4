"""The claims ledger: each thing a reproduction must show, its evidence and what was measured; nothing is typed in."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments.lab import benches, bindings, evidence, outcomes, registry, runs, sources, standing
from experiments.lab.outcomes import Outcome
from experiments.lab.registry import Found
from experiments.lab.runs import Run
from experiments.lab.system import Claim, NotShown, ShownByBench, ShownByTest, System, Verdict
from experiments.lab.text import interval_text

ROOT = Path(__file__).resolve().parents[2]
JUDGED = ("paper", "small")
"""Presets that count as evidence unless one is asked for, the larger first."""

State = Literal["met", "not met", "open", "not measured", "not shown"]
LOOKS: dict[State, tuple[str, str]] = {
    "met": ("✓", "green"),
    "not met": ("✗", "red"),
    "open": ("◐", "yellow"),
    "not measured": ("○", "cyan"),
    "not shown": ("–", "bright_black"),
}


class Line(NamedTuple):
    """One claim in the ledger."""

    claim: str
    statement: str
    shown_by: str | None
    """A test's node id or a query of records; None where nothing shows the claim."""
    met: bool | None
    value: str
    interval: tuple[float, float] | None
    source: str
    """Where the outcome comes from (commit and time of a test, preset of a run), or why there is none."""

    @property
    def state(self) -> State:
        """The verdict in words; open where what was measured leaves it undecided."""
        if self.shown_by is None:
            return "not shown"
        if self.met is None:
            return "open" if self.value else "not measured"
        return "met" if self.met else "not met"


class Basis(NamedTuple):
    """What claims are judged by."""

    judged: Sequence[tuple[Run, str]]
    """Runs with their sources in words, the one that decides first."""
    tests: Mapping[str, Outcome]
    speed: Sequence[Path]
    """Folders of comparisons of speed."""
    root: Path
    """The folder that node ids start from."""
    dated: bool
    """Whether outcomes of tests count for the present code only."""


def ledger(
    system: System,
    found: Sequence[Run],
    tests: Mapping[str, Outcome],
    preset: str | None = None,
    root: Path = ROOT,
    changed: bool = False,
    workdir: Path | None = None,
    dated: bool = True,
) -> list[Line]:
    """The ledger of a system.

    Args:
      system: whose claims.
      found: its runs.
      tests: their newest outcomes, see :func:`experiments.lab.outcomes.read`.
      preset: judge the run of this preset; those of :data:`JUDGED` if None.
      root: the folder that node ids start from.
      changed: whether ``found`` has been restricted to runs with certain changes to their preset, which are judged
        then; without it only runs of unchanged presets are.
      workdir: the folder around comparisons of speed; only those that ship as evidence if None.
      dated: whether outcomes of tests count for the present code only; those that ship as evidence count for theirs.
    """
    chosen = [(run, _source(run) if dated else f"preset {run.name}") for run in judged(found, preset, changed)]
    speed = (*([workdir] if workdir else []), root / evidence.FOLDER)
    basis = Basis(chosen, tests, speed, root, dated)
    return [_line(claim, basis) for claim in sorted(system.claims, key=_natural)]


def of_reference(found: Found, root: Path | None = None) -> list[Line]:
    """The ledger by the evidence that ships with a system; empty where there is none."""
    run, place = evidence.reference(found, root), root or registry.home(found.module)
    if run is None:
        return []
    return ledger(found.system, [run], evidence.outcomes_of(found, root), run.preset, place, dated=False)


def judged(found: Sequence[Run], preset: str | None = None, changed: bool = False) -> list[Run]:
    """The runs that count as evidence in the order in which claims are judged by them: finished, preset, newest.

    Args:
      found: runs of a system, the newest first.
      preset: only this one; those of :data:`JUDGED` if None.
      changed: see :func:`ledger`.
    """
    presets = JUDGED if preset is None else (preset,)
    own = [r for name in presets for r in found if r.preset == name and r.records and (changed or not r.changes)]
    return sorted(own, key=lambda run: bool(run.unfinished))


def runs_of(system: System, workdir: Path, assignments: Sequence[str] = ()) -> list[Run]:
    """A system's runs in a folder of runs; none where it has not run."""
    folder = workdir / system.slug
    if not any(folder.glob(f"*/{runs.INFO}")):
        return []
    return runs.find(str(folder), workdir, assignments=assignments)


def of(
    slug: str, workdir: Path, preset: str | None = None, assignments: Sequence[str] = ()
) -> tuple[System, list[Line]]:
    """A system and its ledger, from the runs in a folder and the newest outcomes of this project's tests."""
    found = registry.load(slug)
    system, root = found.system, registry.home(found.module)
    if preset is not None:
        system.require_preset(preset)
    own = runs_of(system, workdir, assignments)
    return system, ledger(system, own, outcomes.read(root), preset, root, bool(assignments), workdir)


def _natural(claim: Claim) -> list[tuple[int, str]]:
    """8 before 8a before 9 before 10."""
    return [(int(digits or -1), letters) for digits, letters in re.findall(r"(\d+)|(\D+)", claim.number)]


def _line(claim: Claim, basis: Basis) -> Line:
    head = (claim.number, f"{claim.statement} ({claim.note})" if claim.note else claim.statement)
    match claim.evidence:
        case NotShown(reason):
            return Line(*head, None, None, "", None, reason)
        case ShownByTest(nodeid):
            return _by_test(head, nodeid, basis)
        case ShownByBench() as asked:
            verdict, source = benches.judge(asked, *basis.speed)
            value = f"on the wrong side: {verdict.value}" if verdict.misses else verdict.value
            return Line(*head, f"relic bench {asked.bench}", verdict.met, value, verdict.interval, source)
        case judge:
            verdict, source = _verdict(judge, basis.judged)
    value = f"on the wrong side: {verdict.value}" if verdict.misses else verdict.value
    return Line(*head, f"records: {judge.words}", verdict.met, value, verdict.interval, source)


def _by_test(head: tuple[str, str], nodeid: str, basis: Basis) -> Line:
    fault = bindings.fault(nodeid, basis.root)
    if fault:
        return Line(*head, None, None, "", None, f"bound to {nodeid}, but {fault}")
    outcome = basis.tests.get(nodeid)
    if outcome is None:
        return Line(*head, nodeid, None, "", None, "not run yet: make test, make test-all")
    if outcome.passed is None:
        return Line(*head, nodeid, None, "", None, f"skipped when last run, {outcome.time[:10]}")
    if basis.dated and outcome.code != sources.total(sources.of_test(nodeid.partition("::")[0], basis.root)):
        return Line(*head, nodeid, None, "", None, f"older than the code it tests ({outcome.time[:10]}): make test")
    source = f"test at {outcome.commit}, {outcome.time[:10]}"
    return Line(*head, nodeid, outcome.passed, outcome.value, outcome.interval, source)


def _verdict(judge: Callable[[pd.DataFrame], Verdict], judged: Sequence[tuple[Run, str]]) -> tuple[Verdict, str]:
    """The verdict of the largest preset that ran, and its source; open while some of its seeds are missing."""
    if not judged:
        return Verdict(None), f"no run of preset {' or '.join(JUDGED)} yet"
    run, source = judged[0]
    verdict = judge(run.frame)
    if verdict.met is not None and run.unfinished:
        verdict = dataclasses.replace(verdict, met=None)
    if verdict.met is None and not verdict.value:
        return verdict, f"the records of {source} do not suffice yet"
    return verdict, source


def _source(run: Run) -> str:
    """The run and, in a few words, what weakens it as evidence; `relic table` says more."""
    doubts = {"not finished": run.unfinished, "by other code than the present": standing.other_code(run)}
    return ", ".join([f"preset {run.name}", run.info["time"][:10], *(text for text, holds in doubts.items() if holds)])


def as_json(lines: Sequence[Line], reference: Sequence[Line] = ()) -> list[dict[str, Any]]:
    """The ledger as plain values; what the reference run shows is ``reference`` of each claim."""
    own, its = _plain(lines), {line["claim"]: line for line in _plain(reference)}
    return [line | ({"reference": its.get(line["claim"])} if reference else {}) for line in own]


def _plain(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {
            "claim": line.claim,
            "statement": line.statement,
            "shown_by": line.shown_by,
            "state": line.state,
            "met": line.met,
            "value": line.value or None,
            "interval": list(line.interval) if line.interval else None,
            "source": line.source,
        }
        for line in lines
    ]


def counts(lines: Sequence[Line]) -> dict[State, int]:
    """How many claims are in each state, those in use."""
    found: dict[State, int] = {state: sum(line.state == state for line in lines) for state in LOOKS}
    return {state: count for state, count in found.items() if count}


def measured(line: Line) -> str:
    """Value and interval on one line."""
    return " ".join(filter(None, (line.value, interval_text(line.interval))))


def terminal(system: System, lines: Sequence[Line], reference: Sequence[Line] = ()) -> RenderableType:
    """The ledger for the terminal, with what the reference run shows beside it."""
    beside = {line.claim: line for line in reference}
    table = Table(box=None, show_header=False, padding=(0, 1, 1, 0), expand=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for line in lines:
        sign, colour = LOOKS[line.state]
        table.add_row(line.claim, Text(f"{sign} {line.state}", style=colour), _account(line, beside.get(line.claim)))
    title = Text.assemble((system.title, "bold"), f"\n{system.paper}\n", _tally(lines))
    if reference:
        title.append("\nreference: ").append(_tally(reference))
    return Group(title, Padding(table, (1, 0, 0, 0)))


def _account(line: Line, reference: Line | None = None) -> Text:
    text = Text(line.statement)
    if reference is not None:
        sign, colour = LOOKS[reference.state]
        text.append(f"\nreference: {sign} {reference.state} ", style=colour).append(measured(reference), style="cyan")
    if measured(line):
        text.append(f"\n{measured(line)}", style="cyan")
    text.append(f"\n{' · '.join(filter(None, (line.shown_by, line.source)))}", style="dim")
    return text


def _tally(lines: Sequence[Line]) -> Text:
    text = Text(f"{len(lines)} claims: ")
    parts = [Text(f"{count} {state}", style=LOOKS[state][1]) for state, count in counts(lines).items()]
    return text.append(Text(", ").join(parts))


def markdown(lines: Sequence[Line]) -> str:
    """The ledger as a table of Markdown."""
    rows = ["| | claim | measured | shown by |", "| --- | --- | --- | --- |"]
    for line in lines:
        sign = LOOKS[line.state][0]
        evidence = f"`{line.shown_by}`" if line.shown_by else line.source
        cells = (f"{line.claim} {sign}", line.statement, measured(line) or line.state, evidence)
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows)
