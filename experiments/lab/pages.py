"""Pages of HTML: templates beside a paper's study, and text and numbers as they are shown there."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jinja2

from experiments.lab.files import write_page

__all__ = ["number", "separator", "template", "visible", "write_page"]
_CONTROL = {"\n": "↵\n", "\t": "⇥\t"}


def visible(text: str) -> str:
    """Text with its line ends, tabs and unprintable characters made visible; an empty one is ∅."""
    return "".join(_CONTROL.get(c) or (c if c.isprintable() else _escaped(c)) for c in str(text)) or "∅"


def number(value: float) -> str:
    """A number with its sign and three digits."""
    return f"{value:+.3g}".replace("-", "−")


def separator(tokens: Sequence[str]) -> str:
    """What stands between shown tokens: a space, unless the tokens bring their own."""
    return "" if any(c.isspace() for token in tokens for c in token) else " "


@functools.cache
def template(path: Path) -> jinja2.Template:
    """The template of a page: what is put in is escaped, what is not given is an error.

    It has the filters ``visible``, ``number`` and ``separator``, and ``percent`` for a share as "12%".

    Args:
      path: of the template; others beside it may be included.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "visible": visible, "number": number, "separator": separator, "percent": lambda share: f"{share:.0%}",
    }  # fmt: skip
    return environment.get_template(path.name)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
