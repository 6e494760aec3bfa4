"""The documentation site shows every page, and its links lead from page to page."""

import re
import tomllib
from pathlib import Path

import pytest

from experiments.lab import site
from experiments.lab.site import OF_ROOT, navigation, relinked

ROOT = Path(__file__).resolve().parents[3]
PAGES = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def leaves(part) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [leaf for below in (part.values() if isinstance(part, dict) else part) for leaf in leaves(below)]


def test_the_navigation_names_every_page_once():
    named = leaves(navigation())
    assert sorted(named) == sorted(PAGES | set(OF_ROOT.values()))


def test_a_page_of_an_unknown_kind_is_shown_too(tmp_path):
    (tmp_path / "docs" / "systems").mkdir(parents=True)
    for name in ("architecture.md", "systems/dccf.md", "systems/lab.md"):
        (tmp_path / "docs" / name).touch()
    assert {"systems/dccf.md", "systems/lab.md"} <= set(leaves(navigation(tmp_path)))


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("index.md", "[a](docs/systems/dccf.md#claims)", "[a](systems/dccf.md#claims)"),
        ("index.md", "[a](RESULTS.md) [b](#here) [c](https://x.org/docs/y.md)", None),
        (
            "systems/dccf.md",
            "[a](../../RESULTS.md) [b](../architecture.md)",
            "[a](../RESULTS.md) [b](../architecture.md)",
        ),
        ("architecture.md", "[a](../README.md) [b](new_system.md)", "[a](index.md) [b](new_system.md)"),
        ("CONTRIBUTING.md", "![p](docs/report.png)", "![p](report.png)"),
    ],
)
def test_links_to_files_of_the_repository_lead_to_their_pages(page, markdown, expected):
    assert relinked(markdown, page) == (expected or markdown)


def test_every_relative_link_of_a_page_leads_to_a_file():
    """As files of the repository, and so by :func:`relinked` as pages."""
    places = {name: ROOT / name for name in OF_ROOT} | {page: ROOT / "docs" / page for page in PAGES}
    for path in places.values():
        prose = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:)([^)#\s]+)", prose):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_licence_version_and_authors_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"license: {project['license']}" in citation
    assert f"version: {project['version']}" in citation
    assert project["authors"][0]["name"] in citation
    assert site.ROOT == ROOT
