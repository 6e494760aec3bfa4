"""``relic new``: a filled-in, running paper, to be replaced piece by piece."""

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigError
from experiments.lab import registry, runs

TEMPLATES = Path(__file__).with_name("templates") / "paper"
ROOT = Path(__file__).resolve().parents[2]


def write(slug: str, family: str = "latent", outside: Path | None = None, root: Path = ROOT) -> list[Path]:
    """Writes the files of a paper; returns them.

    Args:
      slug: its name, an identifier.
      family: the room of its method, where it becomes part of relic.
      outside: the folder of a project of its own, in place of this one.
      root: of this project.

    Raises:
      ConfigError: where the name cannot be one, or a file is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug) or keyword.iskeyword(slug):
        raise ConfigError(f"a paper is named by small letters, figures and _, such as my_paper, not {slug!r}")
    if family not in registry.FAMILIES:
        raise ConfigError(f"there is no family {family!r}; possible: {', '.join(registry.FAMILIES)}")
    if slug in {entry.slug for entry in registry.entries() if entry.status == "available"}:
        raise ConfigError(f"{slug} is a system already")
    base = root if outside is None else outside
    made = {base / place: text for place, text in _files(slug, family, outside is not None).items()}
    there = [path for path in made if path.exists()]
    if there:
        raise ConfigError(f"{there[0]} is there already, and nothing was written; name another paper or folder")
    for path, text in made.items():
        runs.write(path, text)
    return list(made)


def _files(slug: str, family: str, outside: bool) -> Mapping[str, str]:
    package = slug if outside else f"experiments.{slug}"
    folder = package.replace(".", "/")
    tests = f"tests/test_{slug}.py" if outside else f"tests/experiments/{slug}/test_{slug}.py"
    words = {
        "slug": slug, "name": slug, "family": family, "package": package, "tests": tests,
        "method": f"{slug}.method" if outside else f"{family}.{slug}", "title": slug.replace("_", " ").capitalize(),
    }  # fmt: skip
    places = {
        "init.py": f"{folder}/__init__.py",
        "method.py": f"{folder}/method.py" if outside else f"{family}/{slug}.py",
        "test.py": tests,
        "page.md": f"docs/{slug}.md" if outside else f"docs/systems/{slug}.md",
    } | {f"{room}.py": f"{folder}/{room}.py" for room in ("config", "study", "claims", "figures")}
    found = {place: _filled(name, words) for name, place in places.items()}
    if outside:
        return found | {"pyproject.toml": _filled("pyproject.toml", words)}
    return found | {f"tests/experiments/{slug}/__init__.py": ""}


def _filled(name: str, words: Mapping[str, str]) -> str:
    text = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    return text if name == "method.py" else text.format(**words)
