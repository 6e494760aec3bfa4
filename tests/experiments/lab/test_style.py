"""Figures of all systems: a caption that is a sentence, and a look per method that comes from one place."""

import ast
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.lab.style import Palette, captioned

ROOT = Path(__file__).resolve().parents[3]
MODULES = [
    path
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if path.parent.name != "lab" and re.search("matplotlib|experiments.lab import", path.read_text())
]


DRAWING = [
    pytest.param(node, id=f"{path.relative_to(ROOT)}::{node.name}")
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and node.returns and not node.name.startswith("_")
    if ast.unparse(node.returns) in ("Figure", "Figure | None")
]
DECLARED = [
    pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")
    for path in MODULES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("lines", "compared")
]
"""Calls that declare a figure."""
COLOURED = ("plot", "loglog", "step", "bar", "barh", "errorbar")
"""Methods of axes which would take a colour of matplotlib's own cycle."""


@pytest.mark.parametrize("function", DRAWING)
def test_every_figure_has_a_caption_that_is_a_sentence(function):
    assert [d for d in map(ast.unparse, function.decorator_list) if d == "captioned" or d.startswith("drawing(")]
    require_sentence(ast.get_docstring(function) or "")


@pytest.mark.parametrize("call", DECLARED)
def test_every_declared_figure_has_a_caption_that_is_a_sentence(call):
    require_sentence(ast.literal_eval(call.args[0]))


def require_sentence(text):
    caption = " ".join(text.split())
    assert re.match(r"[A-Z0-9]", caption)
    assert caption.endswith(".")
    assert len(caption.split()) >= 8


def test_the_law_of_captions_sees_the_figures_of_the_systems():
    assert len(DRAWING) + len(DECLARED) > 50


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_takes_a_colour_by_its_place(path):
    """Such colours, and those of matplotlib's own cycle, differ between figures as methods come and go."""
    source = path.read_text()
    assert not re.search(r"COLOURS\[\s*\d|zip\(\s*COLOURS|enumerate\(\s*COLOURS", source)
    assert not re.search(r"""colou?r\w*\s*[=:]\s*f?["'](C\d|#|tab:)""", source)
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr in COLOURED:
            names = {keyword.arg for keyword in call.keywords}
            drawn_black = any(isinstance(a, ast.Constant) and str(a.value).startswith("k") for a in call.args)
            assert drawn_black or names & {"color", None}, f"line {call.lineno}: {ast.unparse(call)}"


def test_a_palette_gives_every_name_a_look_of_its_own():
    palette = Palette(*"abcdefghijkl")
    looks = {(palette.line(name)["color"], palette.line(name)["linestyle"]) for name in palette}
    assert len(looks) == len(palette) == 12
    assert [palette.is_repeated(name) for name in "afgl"] == [False, False, True, True]
    assert palette.marker("a") != palette.marker("g")


def test_the_look_of_a_name_depends_on_the_name_alone():
    assert Palette("a", "b").line("unforeseen") == Palette("b").line("unforeseen")
    assert "unforeseen" not in Palette("a")


def test_the_docstring_of_a_drawing_function_is_the_caption():
    @captioned
    def draw(label: str) -> Figure | None:
        """What is shown,
        and how.
        """
        figure = Figure()
        figure.set_label(label)
        return figure if label != "none" else None

    assert draw("").get_label() == "What is shown, and how."
    assert draw("Another caption.").get_label() == "Another caption."
    assert draw("none") is None
