"""Fills the marked regions of the documentation, ``<!-- name -->`` to ``<!-- /name -->``, from records and outcomes.

What is not measured under the folder of runs at hand stays as an earlier run left it: a table of many systems grows by
the runs of many machines.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from experiments.lab import benches, grids, ledger, registry, runs, standing
from experiments.lab.report import most_telling, provenance
from experiments.lab.runs import Run

ROOT = ledger.ROOT
RESULTS = "RESULTS.md"

Writer = Callable[[str], str]
"""From what a region holds to what it shall hold; nothing where there is nothing new to say."""


def regenerate(workdir: Path, root: Path = ROOT) -> list[Path]:
    """Fills README, the pages of the systems and RESULTS.md; returns the files that changed."""
    made = dict(telling_runs(workdir))
    filled = [_fill(root / "README.md", {"systems": _systems(made, workdir, root), "benches": _benches(workdir)})]
    for slug, run in made.items():
        filled.append(_fill(root / "docs" / "systems" / f"{slug}.md", _regions(run, workdir)))
    if made:
        filled.append(write_results(workdir, root))
    return [path for path in filled if path]


def telling_runs(workdir: Path) -> Mapping[str, Run]:
    """The most telling run of each system under a folder, by slug; demonstrations, smoke tests and runs with changed
    settings tell nothing.
    """
    try:
        found = runs.find(str(workdir), workdir)
    except ConfigError:
        return {}
    main = [run for run in found if run.preset in ledger.JUDGED and not run.changes]
    return {run.system.slug: run for run in most_telling(main)}


def write_results(workdir: Path, root: Path = ROOT) -> Path:
    """Writes RESULTS.md: claims and tables of every system that was run."""
    parts = [
        "# Results",
        "Written by `relic docs` from the records of the last full run; not to be edited by hand.",
    ]
    path = root / RESULTS
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    made = dict(telling_runs(workdir))
    known, kept = [entry.slug for entry in registry.papers()], re.findall(r"^<!-- (\w+) -->$", before, re.MULTILINE)
    for slug in dict.fromkeys([*known, *sorted({*kept, *made})]):
        section = _section(made[slug], workdir) if slug in made else content(before, slug)
        parts += [f"<!-- {slug} -->\n{section}\n<!-- /{slug} -->"] if section else []
    runs.write(path, "\n\n".join(parts) + "\n")
    return path


def _section(run: Run, workdir: Path) -> str:
    regions = _regions(run, workdir)
    return "\n\n".join([f"## {run.system.title}", *(regions[name]("") for name in ("provenance", "claims", "table"))])


def content(text: str, name: str) -> str:
    """What the region of a name holds; nothing where there is no such region."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    return found[1].strip() if found else ""


def fill(text: str, name: str, content: str) -> str:
    """The text with the region of a name replaced; unchanged where there is no such region."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return marks.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def _fill(path: Path, regions: Mapping[str, Writer]) -> Path | None:
    if not path.exists():
        return None
    before = after = path.read_text(encoding="utf-8")
    for name, write in regions.items():
        fresh = write(content(before, name)) if f"<!-- {name} -->" in before else ""
        after = fill(after, name, fresh) if fresh else after
    if after == before:
        return None
    runs.write(path, after)
    return path


def _regions(run: Run, workdir: Path) -> dict[str, Writer]:
    return {
        "claims": lambda _: _claims(run, workdir),
        "table": lambda _: "\n".join(map(grids.markdown, grids.all_grids(run))).strip(),
        "provenance": lambda _: _provenance(run),
    }


def _claims(run: Run, workdir: Path) -> str:
    lines = ledger.of(run.info["module"], workdir)[1]
    tally = ", ".join(f"{count} {state}" for state, count in ledger.counts(lines).items())
    return f"{len(lines)} claims: {tally}.\n\n{ledger.markdown(lines)}" if lines else ""


def _provenance(run: Run) -> str:
    facts = provenance(run)
    origin = "; ".join(facts[name] for name in ("device", "commit", "measured"))
    remarks = "".join(f" {remark[0].upper()}{remark[1:]}." for remark in standing.doubts(run))
    return f"Preset {run.preset}, seeds {facts['seeds']}; {origin}.{remarks}\n\n```\n{facts['command']}\n```"


def _systems(made: Mapping[str, Run], workdir: Path, root: Path) -> Writer:
    def write(old: str) -> str:
        rows = ["| system | paper | family | status | claims met |", "| --- | --- | --- | --- | ---: |"]
        for entry in registry.papers():
            page = Path("docs", "systems", f"{entry.slug}.md")
            name = f"[{entry.slug}]({page})" if (root / page).exists() else entry.slug
            claims = _met(entry.slug, workdir) if entry.slug in made else _claims_column(old, entry.slug)
            rows.append(f"| {name} | {entry.title} | {entry.family} | {entry.status} | {claims} |")
        return "\n".join(rows)

    return write


def _claims_column(table: str, slug: str) -> str:
    found = re.search(rf"^\| (?:\[{slug}\]|{slug} ).*\|(.*)\|$", table, re.MULTILINE)
    return found[1].strip() if found else ""


def _met(slug: str, workdir: Path) -> str:
    lines = ledger.of(slug, workdir)[1]
    return f"{ledger.counts(lines).get('met', 0)} of {len(lines)}"


def _benches(workdir: Path) -> Writer:
    def write(old: str) -> str:
        kept = benches.kept(workdir)
        rows = {bench["name"]: [_bench_row(bench["name"], result) for result in bench["results"]] for bench in kept}
        for row in old.splitlines()[2:]:
            if (command := re.search(r"`relic bench (\S+)` \|$", row)) and command[1] not in {b["name"] for b in kept}:
                rows.setdefault(command[1], []).append(row)
        head = [
            "| ratio | what | ours | peer | its time | device | command |",
            "| ---: | --- | ---: | --- | ---: | --- | --- |",
        ]
        return "\n".join(head + [row for name in sorted(rows) for row in rows[name]]) if rows else ""

    return write


def _bench_row(name: str, r: Mapping[str, Any]) -> str:
    ours, peer = (benches.timing(r[f"{side}_s"], r.get(f"{side}_spread")) for side in ("ours", "peer"))
    return f"| {r['ratio']:.1f}x | {r['name']} | {ours} | {r['peer']} | {peer} | {r['device']} | `relic bench {name}` |"
