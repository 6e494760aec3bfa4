"""Every preset of every system can be trained: its learners are traced at their real sizes, without computing.

A run goes up to the first training of each cell, whose initial state and one update are traced; then the next cell has
its turn. What is counted (people, images, repetitions) is cut down before, what networks are made of is not.
"""

import dataclasses
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
from tests.experiments.lab.test_many_devices import MODULES

COUNTS = {
    "causal_diffae": "train=256 test=6 traversed=4 world_train=256",
    "concept_space": "images=64 generations=2 cubes=1",
    "dccf": "users=300 items=200 dataset=intents simulate_if_missing=true",
    "diffusion_transforms": "samples=64 projections=4 repeats=1",
    "ekfac_influence": "image_train=96 language_train=32 mislabelled=200 cost=false costly_seeds=1 subsets=2"
    " retrained=1",
    "image_cate": "images=60 salience_images=4 null_sets=1 coverage_sets=1 half_samples=8 fold_seeds=1 replications=1"
    " real_images=false clusters=1 parts=S1,S2,coverage,clusters",
    "mm_gpvae": "trials=24 test_trials=4 digits=drawn restarts=1 other_restarts=1 monkey_steps=0 repeats=1",
    "recsae": "walk_users=300 walk_items=60 walk_groups=6 dataset=",
    "rep4ex": "worlds=1 rows=600 fresh=100 validation=100 outcome_rows=600 actions=20 oracle_seeds=1 tests=2"
    " plain_worlds=1 test_rows=60 refit_worlds=1 refits=2 bootstrap=2 cost_repeats=0 cost_seeds=1 features=20",
    "sae_family": "examples=512 lm_steps=0 real_steps=0 repeats=0",
    "scan_eeg": "train=100 test=100 trials=4 kept=2 models=1 real=false cost_models=1 cost_steps=1 cost_repeats=1",
}
"""Settings that are cut down, of the systems that train by ``core.fit.fit``."""
PRESETS = ("smoke", "small", "paper")
BY_HAND = {
    "jepa_linear": "gradient flows of closed form, which the tests of the system run at every preset's depth",
    "moe_trajectories": "an optimiser of its own, on tables of the preset's columns whatever their number of rows",
    "pac_invariance": "subset tests and two regressions, all of them small",
}
"""Systems that train nothing by ``core.fit.fit``."""


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
    pairs = [text.partition("=") for text in COUNTS[slug].split(" ") if text]
    return [f"{name}={value}" for name, _, value in pairs if getattr(config, name) != 0]


def presets() -> list[Any]:
    return [
        pytest.param(slug, preset, marks=pytest.mark.slow, id=f"{slug}-{preset}")
        for slug in COUNTS
        for preset in (*PRESETS, *(["demo"] if slug == "dccf" else []))
    ]


def test_every_system_is_traced_or_trains_by_hand():
    assert set(COUNTS) | set(BY_HAND) == set(registry.available()) == set(MODULES)
    named = {(slug, preset) for slug in COUNTS for preset in registry.load(slug).system.presets}
    assert named == {(slug, preset) for slug in COUNTS for preset in PRESETS} | {("dccf", "demo")}


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
@pytest.mark.parametrize("slug", sorted(set(COUNTS) | set(BY_HAND)))
def test_the_smoke_run_of_every_system_ends_well(slug, tmp_path):
    """Evaluation and figures too, which a traced training does not reach."""
    assert main(["run", slug, "--preset", "smoke", "--seeds", "1", "--workdir", str(tmp_path)]) == 0
    assert main(["report", str(tmp_path)]) == 0
