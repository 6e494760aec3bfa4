"""Fills the marked regions of the documentation, ``<!-- name -->`` to ``<!-- /name -->``, from records and outcomes."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from core.errors import ConfigError
from experiments import benches, grids, ledger, registry, runs
from experiments.report import most_telling, provenance
from experiments.runs import Run

ROOT = ledger.ROOT
RESULTS = "RESULTS.md"


def regenerate(workdir: Path, root: Path = ROOT) -> list[Path]:
    """Fills README, the pages of the systems and RESULTS.md; returns the files that changed.

    Regions whose records are not there are left as they are.
    """
    made = dict(telling_runs(workdir))
    filled = [_fill(root / "README.md", {"systems": _systems(made, workdir, root), "benches": _benches(workdir)})]
    for slug, run in made.items():
        filled.append(_fill(root / "docs" / "systems" / f"{slug}.md", _regions(run, workdir)))
    if made:
        filled.append(write_results(workdir, root))
    return [path for path in filled if path]


def telling_runs(workdir: Path) -> Mapping[str, Run]:
    """The most telling run of each system under a folder, by slug."""
    try:
        found = runs.find(str(workdir), workdir)
    except ConfigError:
        return {}
    return {run.system.slug: run for run in most_telling(found)}


def write_results(workdir: Path, root: Path = ROOT) -> Path:
    """Writes RESULTS.md: claims and tables of every system that was run."""
    parts = [
        "# Results",
        "Written by `relic docs` from the records of the last full run; not to be edited by hand.",
    ]
    for run in telling_runs(workdir).values():
        regions = _regions(run, workdir)
        parts += [f"## {run.system.title}", *(regions[name]() for name in ("provenance", "claims", "table"))]
    path = root / RESULTS
    runs.write(path, "\n\n".join(parts) + "\n")
    return path


def fill(text: str, name: str, content: str) -> str:
    """The text with the region of a name replaced; unchanged where there is no such region."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return marks.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def _fill(path: Path, regions: Mapping[str, Callable[[], str]]) -> Path | None:
    if not path.exists():
        return None
    before = after = path.read_text()
    for name, write in regions.items():
        content = write() if f"<!-- {name} -->" in before else ""
        after = fill(after, name, content) if content else after
    if after == before:
        return None
    runs.write(path, after)
    return path


def _regions(run: Run, workdir: Path) -> dict[str, Callable[[], str]]:
    return {
        "claims": lambda: _claims(run, workdir),
        "table": lambda: "\n".join(map(grids.markdown, grids.all_grids(run))).strip(),
        "provenance": lambda: _provenance(run),
    }


def _claims(run: Run, workdir: Path) -> str:
    lines = ledger.of(run.info["module"], workdir)[1]
    tally = ", ".join(f"{count} {state}" for state, count in ledger.counts(lines).items())
    return f"{len(lines)} claims: {tally}.\n\n{ledger.markdown(lines)}" if lines else ""


def _provenance(run: Run) -> str:
    facts = provenance(run)
    origin = "; ".join(facts[name] for name in ("device", "commit", "measured"))
    return f"Preset {run.preset}, seeds {facts['seeds']}; {origin}.\n\n```\n{facts['command']}\n```"


def _systems(made: Mapping[str, Run], workdir: Path, root: Path) -> Callable[[], str]:
    def write() -> str:
        rows = ["| system | paper | family | status | claims met |", "| --- | --- | --- | --- | ---: |"]
        for entry in registry.ENTRIES:
            page = Path("docs", "systems", f"{entry.slug}.md")
            name = f"[{entry.slug}]({page})" if (root / page).exists() else entry.slug
            claims = _met(entry.slug, workdir) if entry.status == "available" else ""
            rows.append(f"| {name} | {entry.title} | {entry.family} | {entry.status} | {claims} |")
        return "\n".join(rows)

    return write


def _met(slug: str, workdir: Path) -> str:
    lines = ledger.of(slug, workdir)[1]
    return f"{ledger.counts(lines).get('met', 0)} of {len(lines)}"


def _benches(workdir: Path) -> Callable[[], str]:
    def write() -> str:
        kept = [json.loads(path.read_text()) for path in sorted((workdir / "bench").glob("*.json"))]
        rows = [
            f"| {r['ratio']:.1f}x | {r['name']} | {benches.seconds(r['ours_s'])} | {r['peer']} "
            f"| {benches.seconds(r['peer_s'])} | {r['device']} | `relic bench {bench['name']}` |"
            for bench in kept
            for r in bench["results"]
        ]
        head = [
            "| ratio | what | ours | peer | its time | device | command |",
            "| ---: | --- | ---: | --- | ---: | --- | --- |",
        ]
        return "\n".join(head + rows) if rows else ""

    return write
