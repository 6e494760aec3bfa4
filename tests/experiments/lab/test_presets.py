"""Every preset of every system can be trained: its learners are traced at their real sizes, without computing.

A run goes up to the first training of each cell, whose initial state and one update are traced; then the next cell has
its turn. What is counted (people, images, repetitions) is cut down before, what networks are made of is not.
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from core import fit as core_fit
from experiments.concept_space.config import PRESETS as CONCEPT_PRESETS
from experiments.concept_space.study import images
from experiments.concept_space.study.report import Setting
from experiments.lab import registry, settings
from experiments.lab.cli import main
from experiments.lab.runner import measure
from experiments.lab.system import Place

PRESETS = ("smoke", "small", "paper")
PAPERS = {slug: importlib.import_module(f"tests.experiments.{slug}") for slug in registry.available()}
TRACED = [slug for slug, paper in PAPERS.items() if hasattr(paper, "CUT")]
"""Systems that train by ``core.fit.fit``; the others say ``BY_HAND`` why they do not."""


class Traced(BaseException):
    """The training was traced, and its cell is left."""


class Tracing:
    """A context in which every cell is left at its first training.

    Args:
      preset: name of the preset.
      folder: where nothing is written.
    """

    def __init__(self, preset: str, folder: Path):
        self.preset, self.seeds, self.workdir, self.data_dir = preset, (0,), folder, None
        self.traced: list[dict] = []
        self.left: set[str] = set()
        self.missing: list = []
        self._cell: dict = {}

    def cells(self, cells: Any) -> None:
        list(cells)

    def done(self, **cell: Any) -> bool:
        if str(cell) in self.left:
            return True
        self._cell = cell
        return False

    def record(self, **number: Any) -> None:
        pass

    def at(self, **place: Any) -> Place:
        return Place(self, place)  # type: ignore[arg-type]

    def require_all_belong(self, cells: Any) -> None:
        pass

    def finish(self, **cell: Any) -> None:
        self.left.add(str(cell))

    def say(self, message: str) -> None:
        pass

    def progress(self, description: str) -> Callable[[int, int], None]:
        return lambda done, total: None

    def leave(self) -> None:
        self.traced.append(self._cell)
        self.left.add(str(self._cell))


def trace(learner: Any, data: Any, *, key: jax.Array, **options: Any) -> None:
    """What ``fit`` would compile."""
    batch = next(iter(data)) if hasattr(data, "__next__") else data
    state = jax.eval_shape(learner.init, key, batch)
    new, _ = jax.eval_shape(learner.update, state, batch)
    before, after = ([(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (state, new))
    assert before == after
    raise Traced


def trace_all(
    slug: str, preset: str, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 1e9
) -> list[dict]:
    """The cells whose training was traced."""
    system = registry.load(slug).system
    config = settings.apply(system.presets[preset], counted(slug, system.presets[preset]))
    for module in list(sys.modules.values()):
        if getattr(module, "fit", None) is core_fit.fit and module is not core_fit:
            monkeypatch.setattr(module, "fit", trace)
    context = Tracing(preset, folder)
    while True:
        try:
            measure(system, config, context)
        except Traced:
            context.leave()
        else:
            return context.traced


def counted(slug: str, config: Any) -> list[str]:
    """The settings to be cut down, without those that are 0 in the preset already."""
    pairs = [text.partition("=") for text in PAPERS[slug].CUT.split(" ") if text]
    return [f"{name}={value}" for name, _, value in pairs if getattr(config, name) != 0]


def presets() -> list[Any]:
    return [
        pytest.param(slug, preset, marks=pytest.mark.slow, id=f"{slug}-{preset}")
        for slug in TRACED
        for preset in (*PRESETS, *(["demo"] if slug == "dccf" else []))
    ]


def test_every_system_is_traced_or_trains_by_hand():
    assert all(hasattr(paper, "CUT") != hasattr(paper, "BY_HAND") for paper in PAPERS.values())
    named = {(slug, preset) for slug in TRACED for preset in registry.load(slug).system.presets}
    assert named == {(slug, preset) for slug in TRACED for preset in PRESETS} | {("dccf", "demo")}


@pytest.mark.parametrize(("slug", "preset"), presets())
def test_what_a_preset_trains_can_be_traced(slug, preset, tmp_path, monkeypatch):
    assert trace_all(slug, preset, tmp_path, monkeypatch)


SMALLER = {"side": 8, "channels": (8, 16), "blocks": 1, "images": 8, "sampling_steps": 2}
"""Of the published images: quickly traced, with the same parts (dropout and attention among them)."""


@pytest.mark.parametrize("change", [{}, pytest.param({"shape": "triangle", "dropout": 0.0}, marks=pytest.mark.slow)])
def test_the_images_of_the_published_concept_space_can_be_trained_and_drawn(change):
    config = dataclasses.replace(CONCEPT_PRESETS["paper"], **SMALLER, **change)
    assert (config.attention, config.dropout > 0) == (True, not change)
    data = jax.eval_shape(lambda: images.disc_data(config, Setting(0.2).world, 0))
    learner = images.disc_learner(config)
    state = jax.eval_shape(learner.init, jax.random.key(0), data)
    jax.eval_shape(learner.update, state, data)
    prompt = jax.eval_shape(lambda cond: images.cs.plain(cond[:4]), data["cond"])
    x = jax.ShapeDtypeStruct((4, config.side, config.side, 3), "float32")
    drawn = jax.eval_shape(images.sampler(config), state.params, prompt, x, jax.random.key(0))
    assert drawn.shape == x.shape


@pytest.mark.slow
@pytest.mark.parametrize("slug", PAPERS)
def test_the_smoke_run_of_every_system_ends_well(slug, tmp_path):
    """Evaluation and figures too, which a traced training does not reach."""
    assert main(["run", slug, "--preset", "smoke", "--seeds", "1", "--workdir", str(tmp_path)]) == 0
    assert main(["report", str(tmp_path)]) == 0
