"""Fills the marked regions of the documentation, ``<!-- name -->`` to ``<!-- /name -->``, from the evidence that ships.

A system without a reference run keeps what its regions hold.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.lab import benches, evidence, grids, ledger, registry, runs, standing
from experiments.lab.ledger import Line
from experiments.lab.report import provenance
from experiments.lab.runs import Run

ROOT = ledger.ROOT
RESULTS = "RESULTS.md"

Writer = Callable[[str], str]
"""From what a region holds to what it shall hold; nothing where there is nothing new to say."""


def regenerate(root: Path = ROOT) -> list[Path]:
    """Fills README, the pages of the systems and RESULTS.md of this project; returns the files that changed."""
    made = references(registry.available(), root)
    filled = [_fill(root / "README.md", {"systems": _systems(made, root), "benches": _benches(root / evidence.FOLDER)})]
    filled += [_fill(root / "docs" / "systems" / f"{slug}.md", _regions(each)) for slug, each in made.items()]
    return [path for path in [*filled, write_results(made, root)] if path]


def of_paper(slug: str) -> list[Path]:
    """Fills the page and RESULTS.md of a paper in a project of its own, where it has them."""
    found = registry.load(slug)
    root = registry.home(found.module)
    made = references([slug], root)
    pages = [_fill(root / "docs" / f"{found.system.slug}.md", _regions(each)) for each in made.values()]
    return [path for path in [*pages, write_results(made, root)] if path]


class Shown(NamedTuple):
    """A system's reference run and what it says of the claims."""

    run: Run
    lines: Sequence[Line]

    @property
    def tally(self) -> str:
        """How many claims are in each state, in words."""
        return ", ".join(f"{count} {state}" for state, count in ledger.counts(self.lines).items())


def references(slugs: Iterable[str], root: Path) -> dict[str, Shown]:
    """The reference runs that a project ships, by slug."""
    loaded = {slug: registry.load(slug) for slug in slugs}
    kept = {slug: (found, evidence.reference(found, root)) for slug, found in loaded.items()}
    return {slug: Shown(run, ledger.of_reference(found, root)) for slug, (found, run) in kept.items() if run}


def write_results(made: Mapping[str, Shown], root: Path = ROOT) -> Path | None:
    """Writes RESULTS.md, claims and tables of every system that has evidence; returns it where it changed."""
    if not made:
        return None
    parts = ["# Results", "Written by `relic docs` from the runs under `evidence/`; not to be edited by hand."]
    path = root / RESULTS
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known, kept = [entry.slug for entry in registry.entries()], re.findall(r"^<!-- (\w+) -->$", before, re.MULTILINE)
    for slug in dict.fromkeys([*known, *sorted({*kept, *made})]):
        section = _section(made[slug]) if slug in made else content(before, slug)
        parts += [f"<!-- {slug} -->\n{section}\n<!-- /{slug} -->"] if section else []
    text = "\n\n".join(parts) + "\n"
    if text == before:
        return None
    runs.write(path, text)
    return path


def _section(shown: Shown) -> str:
    regions, run = _regions(shown), shown.run
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


def _regions(shown: Shown) -> dict[str, Writer]:
    return {
        "claims": lambda _: _claims(shown),
        "table": lambda _: "\n".join(map(grids.markdown, grids.all_grids(shown.run))).strip(),
        "provenance": lambda _: _provenance(shown.run),
    }


def _claims(shown: Shown) -> str:
    return f"{len(shown.lines)} claims: {shown.tally}.\n\n{ledger.markdown(shown.lines)}" if shown.lines else ""


def _provenance(run: Run) -> str:
    facts = provenance(run)
    origin = "; ".join(facts[name] for name in ("device", "commit", "measured"))
    remark = standing.incomplete(run)
    told = f" {remark[0].upper()}{remark[1:]}." if remark else ""
    return f"Preset {run.preset}, seeds {facts['seeds']}; {origin}.{told}\n\n```\n{facts['command']}\n```"


def _systems(made: Mapping[str, Shown], root: Path) -> Writer:
    def write(old: str) -> str:
        rows = ["| system | paper | family | status | claims |", "| --- | --- | --- | --- | --- |"]
        for entry in registry.papers():
            page = Path("docs", "systems", f"{entry.slug}.md")
            name = f"[{entry.slug}]({page})" if (root / page).exists() else entry.slug
            claims = made[entry.slug].tally if entry.slug in made else _claims_column(old, entry.slug)
            rows.append(f"| {name} | {entry.title} | {entry.family} | {entry.status} | {claims} |")
        return "\n".join(rows)

    return write


def _claims_column(table: str, slug: str) -> str:
    found = re.search(rf"^\| (?:\[{slug}\]|{slug} ).*\|(.*)\|$", table, re.MULTILINE)
    return found[1].strip() if found else ""


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
