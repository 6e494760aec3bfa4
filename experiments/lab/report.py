"""The report: one self-contained HTML page of results (figures, tables, a sentence), claims and provenance."""

import base64
import datetime
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from core.errors import ConfigError
from core.records import commit
from core.workdir import replacing
from experiments.lab import evidence, grids, ledger, outcomes, plots, registry, runs, standing, summaries
from experiments.lab.grids import Grid
from experiments.lab.ledger import Line, State
from experiments.lab.registry import Found
from experiments.lab.runs import Run

LARGEST_SVG = 300_000
"""Bytes above which a figure is embedded as PNG."""
WIDE = 2.2
"""Ratio of width to height above which a figure gets the whole width of the page."""
RANK = ("paper", "small", "demo", "smoke")
"""Presets, the more informative first."""


class Picture(NamedTuple):
    """A figure as it stands in the page."""

    source: str
    """A data URI."""
    file: Path
    """The same as PNG."""
    caption: str
    wide: bool


class Page(NamedTuple):
    """An HTML page that a system wrote itself."""

    title: str
    link: str | None
    """Its address from the report, where it lies under the report's folder."""
    path: Path


class Section(NamedTuple):
    """A system in the report."""

    run: Run
    sentence: str
    """What a reader may conclude."""
    is_evidence: bool
    """Whether claims are judged by this run."""
    is_reference: bool
    """Whether it is the run that ships as evidence."""
    lines: list[Line]
    counts: Mapping[State, int]
    reference: Mapping[str, Line]
    """What the reference run says of each claim, where another run is shown."""
    grids: list[Grid]
    pictures: list[Picture]
    pages: list[Page]
    provenance: dict[str, str]
    config: dict[str, Any]
    changes: dict[str, Any]


def write_report(found: Sequence[Run], path: Path, preset: str | None = None) -> Path:
    """Writes the page, and the figures as PNG and PDF into each run's folder.

    Each system has its results first (a sentence, figures, tables), then its claims, then where its numbers come from.

    Args:
      found: runs; of a system's several, that of the most telling preset is shown.
      path: the page.
      preset: that by which claims are judged; those of :data:`experiments.lab.ledger.JUDGED` if None.

    Raises:
      ConfigError: where it cannot be written.
    """
    sections = [_section(run, found, path, preset) for run in most_telling(found)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    lines = [line for section in sections for line in section.lines]
    page = environment.get_template("report.html").render(
        sections=sections,
        counts=ledger.counts(lines),
        claims=len(lines),
        looks={state: sign for state, (sign, _) in ledger.LOOKS.items()},
        families=registry.FAMILIES,
        measured=ledger.measured,
        judged=ledger.JUDGED,
        commit=commit(),
        time=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    runs.write(path, page)
    return path


def most_telling(found: Sequence[Run]) -> list[Run]:
    """One run of each system: of an unchanged preset if there is one; of a preset by which claims are judged; finished;
    of the larger preset; the newest.
    """
    order = [entry.slug for entry in registry.entries()]
    best: dict[str, Run] = {}
    for run in sorted((r for r in found if r.records), key=lambda run: run.info["time"]):
        held = best.get(run.system.slug)
        if held is None or _rank(run) <= _rank(held):
            best[run.system.slug] = run
    return sorted(best.values(), key=lambda r: order.index(r.system.slug) if r.system.slug in order else len(order))


def _rank(run: Run) -> tuple[bool, int, bool, int]:
    size = RANK.index(run.preset) if run.preset in RANK else len(RANK)
    kind = 0 if run.preset in ledger.JUDGED else size
    return bool(run.changes), kind, bool(run.unfinished), size


def _section(run: Run, found: Sequence[Run], report: Path, preset: str | None) -> Section:
    same = [other for other in found if other.system.slug == run.system.slug and other.changes == run.changes]
    own, root = Found(run.system, run.info["module"]), registry.home(run.info["module"])
    its, reference = ledger.of_reference(own), evidence.beside(run)
    lines = its if evidence.is_reference(run) else ledger.ledger(
        run.system, same, outcomes.read(root), preset, root, changed=bool(run.changes)
    )  # fmt: skip
    counts = ledger.counts(lines)
    return Section(
        run,
        summaries.sentence(run, counts),
        run.preset == preset if preset else run.preset in ledger.JUDGED,
        evidence.is_reference(run),
        lines,
        counts,
        {} if evidence.is_reference(run) else {line.claim: line for line in its},
        grids.all_grids(run, reference),
        pictures(run, report),
        pages(run, report),
        provenance(run),
        dict(run.records[-1].provenance["config"]),
        dict(run.info.get("changes") or {}),
    )


def pictures(run: Run, report: Path) -> list[Picture]:
    """The system's figures, saved beside the records and as data URIs; those of a reference beside the page.

    A figure's label is its caption, see :func:`experiments.lab.plots.drawing`; its file name stands in where there is
    none.
    """
    figures = dict(plots.drawn(run.system.figures, run.frame)) if run.records else {}
    place, top = (run.folder, run.top)
    if evidence.is_reference(run):
        place, top = report.parent / run.system.slug / "reference", report.parent
    folder = place / "figures"
    if figures:
        runs.require_no_link(folder, top)
    return [_picture(folder, stem, figure) for stem, figure in figures.items()]


def _picture(folder: Path, stem: str, figure: Figure) -> Picture:
    drawn = {"png": io.BytesIO(), "pdf": io.BytesIO(), "svg": io.BytesIO()}
    with mpl.rc_context({"svg.hashsalt": "relic", "svg.fonttype": "path", "pdf.fonttype": 42}):
        figure.savefig(drawn["png"], format="png", dpi=200)
        figure.savefig(drawn["pdf"], format="pdf", metadata={"CreationDate": None})
        figure.savefig(drawn["svg"], format="svg", metadata={"Date": None})
    name = re.sub(r"[^\w.+-]", "_", stem)
    for suffix in ("png", "pdf"):
        try:
            with replacing(folder / f"{name}.{suffix}") as file:
                file.write(drawn[suffix].getvalue())
        except OSError as error:
            raise ConfigError(f"cannot save figure {stem} to {folder}: {error.strerror}") from error
    small = drawn["svg"].tell() <= LARGEST_SVG
    data = drawn["svg" if small else "png"].getvalue()
    kind = "svg+xml" if small else "png"
    caption = str(figure.get_label()) or stem.replace("_", " ").capitalize()
    width, height = figure.get_size_inches()
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(source, folder / f"{name}.png", caption, width > WIDE * height)


def pages(run: Run, report: Path) -> list[Page]:
    """The HTML pages that the system wrote for the records shown, with their addresses from the report's folder."""
    cells = [(record.provenance["config"], record.provenance["seeds"]) for record in run.records]
    names = dict.fromkeys(runs.fingerprint(config, seeds) for config, seeds in cells)
    of_any_code = [list((run.folder / "work").glob(f"{name}*")) for name in names]
    folders = [max(made, key=lambda folder: folder.stat().st_mtime) for made in of_any_code if made]
    return [_page(path, report.parent) for folder in folders for path in sorted(folder.rglob("*.html"))]


def _page(path: Path, root: Path) -> Page:
    named = re.search(r"<title>(.*?)</title>", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    title = html.unescape(" ".join(named[1].split())) if named else path.stem
    here, top = path.resolve(), root.resolve()
    link = quote(here.relative_to(top).as_posix()) if here.is_relative_to(top) else None
    return Page(title, link, path)


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers in words, "0, 1, 2" or "0 to 199"; runs of more than five are cut short."""
    runs_of: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs_of and number == runs_of[-1][-1] + 1:
            runs_of[-1].append(number)
        else:
            runs_of.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 5 else ", ".join(map(str, r)) for r in runs_of)


def provenance(run: Run) -> dict[str, str]:
    """Where the numbers of a run come from, in words."""
    sources = [record.provenance for record in run.records]
    times = sorted(source["time"] for source in sources)
    versions = {f"{name} {version}": None for source in sources for name, version in source["versions"].items()}
    remarks = standing.remarks(run)
    return {
        "command": "\n".join(standing.commands(run)),
        **({"remarks": "; ".join(remarks)} if remarks else {}),
        "commit": ", ".join(dict.fromkeys(source["commit"] for source in sources)),
        "device": ", ".join(dict.fromkeys(source["device"] for source in sources)),
        "measured": times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}",
        "seeds": spans({record.seed for record in run.records}),
        "numbers": f"{len(run.records):,} in {run.folder.name}/{runs.RECORDS}",
        "versions": ", ".join(versions),
    }
