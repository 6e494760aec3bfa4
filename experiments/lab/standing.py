"""Remarks on a run for readers of its numbers: what is missing, which code and commands made them, other runs."""

import collections
import json
from collections.abc import Iterable, Sequence
from typing import Any

from core.records import to_plain
from experiments.lab import inputs, runs, sources
from experiments.lab.runs import Run

MOST_NAMED = 4
"""Cells, or runs, that one line names."""


def chosen(found: Sequence[Run]) -> Run:
    """The run to show of several: of an unchanged preset if there is one, a finished one, the newest."""
    return max(runs.main_ones(found), key=lambda run: (not run.unfinished, run.info["time"]))


def remarks(run: Run) -> list[str]:
    """Sentences about a run and on which other runs of the system there are."""
    return [*filter(None, (*doubts(run), others(run)))]


def doubts(run: Run) -> list[str]:
    """Sentences about what limits the numbers of a run."""
    return [*filter(None, (empty(run), incomplete(run), leftover(run), other_code(run), other_preset(run)))]


def empty(run: Run) -> str:
    """Whether a run has no number at all; empty where it has some."""
    if run.records:
        return ""
    there = (run.folder / runs.RECORDS).exists()
    return f"no numbers: {run.folder / runs.RECORDS} {'has no whole cell of this run' if there else 'is missing'}"


def incomplete(run: Run) -> str:
    """Which seeds that were asked for are missing; empty where none is."""
    if not run.unfinished:
        return ""
    asked = run.info["seeds"]
    done = by_cell(run)
    missing = {name: [seed for seed in run.unfinished if seed not in seeds] for name, seeds in done.items()}
    if not done:
        return f"not finished: no cell of {len(asked)} seeds is done yet"
    counts = {name: len(asked) - len(seeds) for name, seeds in missing.items()}
    if len({tuple(seeds) for seeds in missing.values()}) == 1:
        [count] = set(counts.values())
        tail = f" ({spelled(next(iter(missing.values())))} missing)" if count < len(asked) else ", some of their cells"
        return f"not finished: {count} of {len(asked)} seeds{tail}; the same `relic run` goes on"
    short = [f"{name} {count} of {len(asked)}" for name, count in counts.items() if count < len(asked)]
    more = f" and {len(short) - MOST_NAMED} more" if len(short) > MOST_NAMED else ""
    return f"not finished, by seeds: {', '.join(short[:MOST_NAMED])}{more}; the same `relic run` goes on"


def leftover(run: Run) -> str:
    """Which seeds are shown although no run that ended computed them; empty where there are none."""
    seeds = sorted({seed for r in run.records for seed in runs.seeds_of(r.provenance)} - {*run.info["seeds"]})
    if not seeds:
        return ""
    return f"numbers of {spelled(seeds)} come from an interrupted run, of which cells may be missing"


def by_cell(run: Run) -> dict[str, set[int]]:
    """The seeds that are done, by the cell's other names (data set, method, ...)."""
    done: dict[str, set[int]] = collections.defaultdict(set)
    for source in {r.provenance["cell"]["write"]: r.provenance for r in run.records}.values():
        cell = {name: value for name, value in runs.cell_of(source).items() if name not in ("seed", "seeds")}
        done[", ".join(map(str, cell.values()))] |= {*runs.seeds_of(source)} & {*run.info["seeds"]}
    return done


def spelled(seeds: Sequence[int]) -> str:
    """Seeds by their numbers; of more than five the first and the last."""
    if len(seeds) > 5:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def other_code(run: Run) -> str:
    """Whether an older version of the code computed the numbers, and which modules changed since."""
    entries = run.info.get("entries") or sources.entries_of(run.system.plan, run.system.config_type, run.info["module"])
    now = sources.of_run(entries)
    made = collections.Counter(_writes(run))
    old = {code: count for code, count in made.items() if code != sources.total(now)}
    if not old:
        return ""
    share = "" if len(old) == len(made) else f"{sum(old.values())} of {sum(made.values())} cells were "
    what = "; ".join(inputs.changed_modules(run.folder, code, now) for code in old)
    return f"{share}computed by other code than the present ({what}); `relic run --again` computes them again"


def _writes(run: Run) -> list[str | None]:
    return list({r.provenance["cell"]["write"]: r.provenance.get("code") for r in run.records}.values())


def other_preset(run: Run) -> str:
    """Which settings of the preset have changed since; empty where none has."""
    preset = run.system.presets.get(run.preset)
    if preset is None or not run.records:
        return ""
    before = run.records[-1].provenance["config"]
    now = json.loads(json.dumps(to_plain(preset))) | dict(run.changes)
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    changed = ", ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in sorted(names)[:MOST_NAMED])
    return f"preset {run.preset} has other settings now: {changed}" if names else ""


def others(run: Run) -> str:
    """Which other runs of the system there are, and how to see them; empty where there are none."""
    beside = runs.others(run)
    if not beside:
        return ""
    names = "; ".join(beside[:MOST_NAMED])
    more = f" and {len(beside) - MOST_NAMED} more" if len(beside) > MOST_NAMED else ""
    return f"other runs: {names}{more} (--preset and --set, or their folders, choose one)"


def commands(run: Run) -> list[str]:
    """The command lines that made the numbers, oldest first."""
    noted: Iterable[Any] = (r.provenance.get("command") or run.info["command"] for r in run.records)
    return list(dict.fromkeys(filter(None, noted)))
