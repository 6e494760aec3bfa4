"""The report is one file that needs nothing else, and shows claims, tables, figures and provenance."""

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from experiments.lab import docs, evidence, ledger, registry, runs, summaries, system
from experiments.lab.registry import Found
from experiments.lab.report import LARGEST_SVG, most_telling, spans, write_report
from experiments.lab.runner import execute
from tests.experiments.toy import SYSTEM, measuring, quick_run

WRITTEN = "<!doctype html><title>What a &amp; b share</title>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Outline(HTMLParser):
    """Checks nesting and keeps text and addresses."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run = quick_run(folder)
    written = run.folder / "work" / runs.fingerprint(SYSTEM.presets["small"], (0, 1, 2)) / "a page.html"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(WRITTEN)
    stale = run.folder / "work" / "of other settings" / "stale.html"
    stale.parent.mkdir(parents=True)
    stale.write_text(WRITTEN)
    quick_run(folder, preset="smoke", seeds=(0, 1))
    return folder


@pytest.fixture(scope="module")
def page(workdir):
    return write_report(runs.find(str(workdir), workdir), workdir / "report.html").read_text()


@pytest.fixture(scope="module")
def outline(page):
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    return outline


def test_the_page_needs_no_other_file_and_no_script(page, outline):
    assert all(address.startswith(("data:", "#")) or address in linked(outline) for address in outline.addresses)
    assert not {"script", "link", "iframe"} & set(outline.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_suits_phones_dark_rooms_and_paper(page):
    assert 'name="viewport"' in page
    assert "@media print" in page
    assert "light-dark(" in page


def linked(outline):
    return [address for address in outline.addresses if address.endswith(".html")]


def test_results_come_first_the_figure_at_their_head_and_claims_after_them(page):
    parts = ("<figure", 'class="lead"', "<h3>line</h3>", "<h3>Pages</h3>", "<h3>Claims</h3>", "Where the numbers come")
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_the_sentence_of_a_system_is_computed_from_its_main_table(outline):
    told = "On line, error beside sgd: adam and <b>& above (95 % intervals of differences paired over 3 seeds)."
    assert told in " ".join(" ".join(outline.text).split())


def test_a_method_is_not_distinguishable_where_the_interval_of_its_difference_holds_zero(tmp_path):
    def numbers(config, at):
        for method, value in (("sgd", 0.5), ("adam", 0.5 + (-1) ** at.place["seed"])):
            at.record("error", value, dataset="line", method=method)

    found = Found(dataclasses.replace(SYSTEM, plan=measuring(numbers, {})), "tests.experiments.toy")
    run = runs.read(execute(found, seeds=range(4), workdir=tmp_path))
    assert summaries.against_baseline(run).startswith("On line, error beside sgd: adam not distinguishable (95 %")


def test_claims_of_a_section_are_those_that_the_claims_command_gives_for_the_same_runs(tmp_path):
    toy = "tests.experiments.toy"

    def constant(config, context):
        for seed in context.seeds:
            context.record(dataset="line", method="adam", metric="error", seed=seed, value=config.steps)
            context.record(dataset="line", method="adam", metric="loss", seed=seed, value=1.0, step=1)

    found = Found(
        dataclasses.replace(SYSTEM, plan=lambda config, context: [system.part(constant, dataset="line")]), toy
    )
    execute(found, seeds=(0, 1), assignments=["steps=1"], workdir=tmp_path)
    for preset in ("small", "smoke"):
        execute(found, seeds=(0, 1), preset=preset, workdir=tmp_path)
    states = {}
    for preset, settings in ((None, []), (None, ["steps=1"]), ("smoke", [])):
        chosen = runs.find(toy, tmp_path, preset, settings)
        text = write_report(chosen, tmp_path / "report.html", preset).read_text()
        [line] = [line for line in ledger.of(toy, tmp_path, preset, settings)[1] if line.claim == "2"]
        states[preset, *settings] = line.state
        assert line.source in html.unescape(text)
        assert line.value in text
    assert states == {(None,): "not met", (None, "steps=1"): "met", ("smoke",): "not met"}


def test_claims_without_evidence_have_no_full_bar(page):
    rule = re.search(r"\.bar \.not-measured, \.bar \.not-shown \{([^}]*)\}", page)
    assert "background" not in rule[1]
    for state in ("not-measured", "not-shown"):
        assert not re.search(rf"--{state}:", page), "what was not measured has the grey of what is missing"


def test_text_is_set_to_the_left_and_figures_to_the_right(page):
    assert '<th class="text">method</th><th>error</th>' in page
    assert re.search(r'<th class="text"><span class="swatch" [^>]*></span>&#8288;sgd</th><td>0\.0600', page)


def test_a_method_has_its_colour_of_the_figures_in_the_tables(page):
    colour = SYSTEM.colours["adam"]
    assert f'<span class="swatch" style="color: {colour}"></span>&#8288;adam' in page
    svg = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)" alt="Training loss', page)[1]).decode()
    assert colour.lower() in svg.lower()


def test_pages_that_a_system_wrote_are_linked_where_they_lie_under_the_report(workdir, outline, tmp_path):
    (address,) = linked(outline)
    page = workdir / unquote(address)
    assert page.read_text() == WRITTEN
    assert "What a & b share" in outline.text
    elsewhere = write_report(runs.find(str(workdir), workdir), tmp_path / "report.html").read_text()
    assert "a%20page.html" not in elsewhere
    assert str(page) in elsewhere


def test_figures_of_a_page_can_be_read_with_a_sentence_in_place_of_sight(page):
    assert (
        page.count("<figcaption>") == page.count("<figure") == len(re.findall(r'<img src="[^"]+" alt="[^"]+\."', page))
    )


def test_the_page_has_claims_tables_and_provenance(outline):
    text = " ".join(" ".join(outline.text).split())
    for part in ("Adam finds the line", "✓ met", "no data from there", "0.0500†", "recalled, not read again"):
        assert part in text
    for part in ("relic run toy", "learning_rate", "3 in small/records.jsonl", "jax "):
        assert part.removeprefix("3 ") in text


def test_names_are_escaped(page):
    assert "&lt;b&gt;&amp;" in page


def test_the_most_telling_preset_is_shown(workdir):
    assert [run.preset for run in most_telling(runs.find(str(workdir), workdir))] == ["small"]


def test_figures_are_in_the_page_and_saved_for_papers(page, workdir):
    figures = workdir / "toy" / "small" / "figures"
    assert (figures / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (figures / "loss.pdf").read_bytes().startswith(b"%PDF")
    kind, data = re.search(r'src="data:image/(svg\+xml|png);base64,([^"]+)" alt="Training loss', page).groups()
    assert kind == "svg+xml"
    assert b"<svg" in base64.b64decode(data)
    assert len(base64.b64decode(data)) < LARGEST_SVG
    assert "<figcaption>Training loss, mean over seeds.</figcaption>" in page


def test_the_same_records_give_the_same_figures(page, workdir):
    again = write_report(runs.find(str(workdir), workdir), workdir / "again.html").read_text()
    assert re.findall('base64,[^"]+', again) == re.findall('base64,[^"]+', page)


def region(name: str) -> str:
    return f"<!-- {name} -->\nold\n<!-- /{name} -->\n"


@pytest.fixture
def project(workdir, tmp_path, monkeypatch):
    """A project that ships a run of the toy as evidence."""
    found, load = Found(SYSTEM, "tests.experiments.toy"), registry.load
    monkeypatch.setattr(registry, "available", lambda: ["toy"])
    monkeypatch.setattr(registry, "load", lambda name: found if name == "toy" else load(name))
    monkeypatch.setattr(evidence, "unfit", lambda run: "")  # its numbers are not those of the toy's own code
    evidence.keep(found, runs.find(str(workdir), workdir, "small")[0], root=tmp_path)
    return tmp_path


def test_marked_regions_of_the_docs_are_filled_and_the_rest_is_kept(project):
    pages = project / "docs" / "systems"
    pages.mkdir(parents=True)
    (project / "README.md").write_text(f"# relic\n{region('systems')}{region('benches')}")
    (pages / "toy.md").write_text(f"by hand\n{region('claims')}end\n{region('table')}")
    written = docs.regenerate(project)
    assert {path.name for path in written} == {"README.md", "toy.md", "RESULTS.md"}
    readme, toy = (project / "README.md").read_text(), (pages / "toy.md").read_text()
    assert readme.count("| planned |") + readme.count("| available |") == 26
    assert region("benches") in readme  # nothing was measured
    assert toy.startswith("by hand\n<!-- claims -->\n4 claims: ")
    assert "old" not in toy
    assert "| sgd | 0.0600" in toy
    assert "A line through points" in (project / "RESULTS.md").read_text()
    assert docs.regenerate(project) == []


def test_what_has_no_evidence_is_kept(project):
    rows = (
        "| 15 met, 1 open |",
        "| 3.0x | EK-FAC covariances | 266 ms | a peer | 788 ms | cpu | `relic bench ekfac` |",
    )
    (project / "README.md").write_text(
        f"<!-- systems -->\n| head |\n| --- |\n| [dccf](x.md) | paper | rec | available {rows[0]}\n<!-- /systems -->\n"
        f"<!-- benches -->\n| head |\n| --- |\n{rows[1]}\n| 9.9x | old | `relic bench toy` |\n<!-- /benches -->\n"
    )
    (project / "RESULTS.md").write_text(
        "<!-- dccf -->\n## Other runs\n\n| 1 |\n<!-- /dccf -->\n\n<!-- mine -->\n## My paper\n<!-- /mine -->\n"
    )
    result = {"ratio": 2.0, "name": "new", "ours_s": 1.0, "peer": "p", "peer_s": 2.0, "device": "cpu"}
    bench = {"name": "toy", "commit": "1", "time": "2026-01-01", "results": [result]}
    (project / "evidence" / "bench").mkdir()
    (project / "evidence" / "bench" / "toy.json").write_text(json.dumps(bench))
    docs.regenerate(project)
    readme, results = (project / "README.md").read_text(), (project / "RESULTS.md").read_text()
    assert all(row in readme for row in rows)
    assert "| 2.0x | new | 1 s | p | 2 s | cpu | `relic bench toy` |" in readme
    assert "old" not in readme
    assert results.index("## Other runs") < results.index("## My paper") < results.index("A line through points")
    docs.regenerate(project)
    assert (project / "RESULTS.md").read_text() == results


def test_long_runs_of_seeds_are_told_by_their_ends():
    assert spans([2, 0, 1]) == "0, 1, 2"
    assert spans([*range(200), 300]) == "0 to 199, 300"
