"""Figures of all systems: a caption that is a sentence, and a look per method that comes from one place."""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.lab import drawing, evidence, plots, registry
from experiments.lab.style import Palette

ROOT = Path(__file__).resolve().parents[3]
MODULES = [
    path
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if path.parent.name != "lab" and (path.name == "figures.py" or "matplotlib" in path.read_text())
]


COLOURED = ("plot", "loglog", "step", "bar", "barh", "errorbar")
"""Methods of axes which would take a colour of matplotlib's own cycle."""


@pytest.mark.parametrize("slug", [*registry.available()])
def test_every_figure_has_a_caption_that_is_a_sentence(slug):
    run = evidence.reference(registry.load(slug))
    if run is None:
        pytest.skip("no reference run of it ships")
    shown = dict(plots.drawn(run.system.figures, run.frame))
    assert shown
    for stem, figure in shown.items():
        caption = " ".join(str(figure.get_label()).split())
        assert re.match(r"[A-Z0-9]", caption), stem
        assert caption.endswith("."), stem
        assert len(caption.split()) >= 8, stem


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
    @drawing("loss")
    def draw(frame: pd.DataFrame) -> Figure | None:
        """What is shown,
        and how.
        """
        return None if frame["value"].isna().all() else Figure()

    shown = draw(pd.DataFrame({"metric": ["loss"], "value": [1.0]}))
    assert shown is not None
    assert shown.get_label() == "What is shown, and how."
    assert draw(pd.DataFrame({"metric": ["loss"], "value": [np.nan]})) is None
    assert draw(pd.DataFrame({"metric": ["error"], "value": [1.0]})) is None
