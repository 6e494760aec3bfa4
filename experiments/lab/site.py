"""Hooks of MkDocs: the site has the pages of ``docs/``, README as its home, and the other pages of the root folder."""

import importlib
import posixpath
import re
from pathlib import Path
from typing import Any

from experiments.lab import registry

ROOT = Path(__file__).resolve().parents[2]
OF_ROOT = {"README.md": "index.md", "RESULTS.md": "RESULTS.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
"""Pages of the root folder, and where they stand in the site."""
FAMILIES = {
    "rec": "Recommenders",
    "latent": "Latent variables",
    "causal": "Causality",
    "interp": "Interpretation",
}


def navigation(root: Path = ROOT) -> list[dict[str, Any]]:
    """Titles and pages: what is general, then the systems by family, then what else lies in ``docs/``."""
    general = {
        "Home": "index.md",
        "Results": "RESULTS.md",
        "Architecture": "architecture.md",
        "Your own data": "your_data.md",
        "Adding a paper": "new_system.md",
        "Contributing": "CONTRIBUTING.md",
    }
    nav: list[dict[str, Any]] = [{title: page} for title, page in general.items()]
    left = {path.relative_to(root / "docs").as_posix() for path in (root / "docs").rglob("*.md")} - {*general.values()}
    for family, title in FAMILIES.items():
        pages = {e.slug: f"systems/{e.slug}.md" for e in registry.papers() if e.family == family}
        shown = [{slug: page} for slug, page in pages.items() if page in left]
        left -= {*pages.values()}
        nav += [{title: shown}] if shown else []
    return nav + ([{"Methods of several papers": sorted(left)}] if left else [])


def relinked(markdown: str, page: str) -> str:
    """A page of the site whose links name files of the repository, with links to where these stand in the site.

    Args:
      markdown: the text.
      page: its place in the site.
    """
    source = {place: name for name, place in OF_ROOT.items()}.get(page, f"docs/{page}")

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        place = OF_ROOT.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{found[2] or ''})" if place else found[0]

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", link, markdown)


def on_config(config: Any) -> Any:
    """Sets the navigation."""
    config["nav"] = navigation()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the root folder."""
    made = importlib.import_module("mkdocs.structure.files").File
    for name, place in OF_ROOT.items():
        files.append(made.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links around."""
    return relinked(markdown, page.file.src_uri)
