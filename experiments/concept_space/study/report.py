"""A run of either world: its setting, its training, and what is recorded of what it generated."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from core.fit import fit
from core.learner import LearnerLike
from experiments.concept_space.config import EXAGGERATIONS, STRENGTHS
from experiments.lab import Context, Place
from experiments.lab.looks import Looks
from interp import concept_space as cs

DRAWS = max(len(EXAGGERATIONS), len(STRENGTHS))
"""Naive draws, of which as many are taken for a comparison as there are eliciting prompts."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run: its world and what is done to its prompts."""

    sep_colour: float
    sep_size: float = 0.4
    sep_background: float | None = None
    variant: str = "plain"
    alpha: float = 0.0

    @property
    def cube(self) -> str:
        """Two or three concepts."""
        return "2 x 2" if self.sep_background is None else "2 x 2 x 2"

    @property
    def world(self) -> cs.World:
        """As numbers."""
        return cs.World(self.sep_colour, self.sep_size, self.sep_background)

    @property
    def place(self) -> dict[str, Any]:
        """Where its records belong."""
        own = dataclasses.asdict(self)
        own.pop("sep_background")
        return own | {"world": self.cube}


class Times(NamedTuple):
    """When to look at a training."""

    first: int
    """Steps to the first look; the others are at multiples, and at the end."""
    looks: list[int]

    @classmethod
    def of(cls, steps: int, count: int) -> "Times":
        """Evenly spaced square roots."""
        first = max(1, min(25, steps // count))
        roots = np.linspace(first**0.5, steps**0.5, count)
        inside = {round(root**2 / first) * first for root in roots}
        return cls(first, sorted({step for step in inside if step <= steps} | {steps}))


def train(
    learner: LearnerLike, data: Any, context: Context, name: str, folder: Path, at: Times, key: Any,
    seen: Callable[[Any], Any],
) -> tuple[Any, list[Any]]:  # fmt: skip
    """A trained state, and what was ``seen`` of the states at all looks: it is kept on disk until the cell is done."""
    looks = Looks(folder)

    def evaluate(state):
        step = int(np.max(state.step))
        if step in at.looks:
            looks.keep(step, seen(state))
        return {}

    state = fit(
        learner, data, key=key, steps=at.looks[-1], chunk=at.first, workdir=folder, evaluate=evaluate,
        evaluate_every=at.first, progress=context.progress(name),
    ).state  # fmt: skip
    like = jax.eval_shape(seen, state)
    return state, [looks.read(step, like) for step in at.looks]


def clear(folder: Path) -> None:
    """A cell that is recorded needs its checkpoints and looks no more, and they are many; others may still read.

    They go all at once: a run that is killed before its cell is written trains anew and never resumes from a part.
    """
    if jax.process_count() == 1:
        gone = folder.with_name(f"{folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def prompts(told: Callable[[Any], Any], concepts: int, *, elicit: bool) -> dict[str, cs.Prompt]:
    """Of all classes, and where asked what may elicit class 11."""
    more = cs.eliciting_prompts(told, EXAGGERATIONS, STRENGTHS) if elicit else {}
    return cs.class_prompts(told, concepts) | more


def controls(told: Callable[[Any], Any], key: Any, width: int) -> dict[str, cs.Prompt]:
    """What eliciting prompts are compared with; the random direction is one per run."""
    return cs.control_prompts(told, DRAWS, STRENGTHS, cs.random_direction(key, width))


class Seen(NamedTuple):
    """What a run generated, by prompt: points [checkpoints, generations, concepts] in concept space."""

    steps: np.ndarray
    points: dict[str, np.ndarray]
    signals: np.ndarray
    """Of the concepts."""

    def protocols(self) -> dict[str, list[np.ndarray]]:
        """Points by way of asking for class 11; of several prompts, such as strengths, the best counts."""
        several = {"over-prompting": "over", "latent": "latent", "patched": "patched", "random direction": "random"}
        found = {"naive": [self.points["class 11"]]}
        found |= {name: [p for key, p in self.points.items() if key.startswith(k)] for name, k in several.items()}
        naive = [points for key, points in self.points.items() if key.startswith("naive")]
        best_of = {len(found[name]) for name in ("over-prompting", "latent")} - {0}
        found |= {f"naive, best of {count}": naive[:count] for count in best_of}
        return {name: points for name, points in found.items() if points}


def report(at: Place, seen: Seen) -> None:
    """Records the trajectory of the unseen class, and times of learning and elicitation."""
    for name, signal in zip(("colour", "size", "background"), seen.signals, strict=False):
        at.record(f"signal of {name}", signal, method="world")
    if len(seen.signals) > 2:
        report_cube(at, seen)
        return
    naive, target, steps = at.at(method="naive"), np.ones(2), seen.steps
    unseen = seen.points["class 11"]
    path, right = unseen.mean(axis=1), cs.accuracy(unseen, target)
    report_elicitation(at, seen)
    for k, step in enumerate(steps.tolist()):
        naive.record_all({"colour": path[k, 0], "size": path[k, 1]}, step=step)
    for concept, (name, carrier) in enumerate((("colour", "class 10"), ("size", "class 01"))):
        own = np.array([int(digit) for digit in carrier[-2:]])
        curve = cs.accuracy(seen.points[carrier], own)[:, concept]
        naive.record(f"time to learn {name}", cs.learning_time(steps, curve))
        naive.record(f"final {name} of {carrier}", curve[-1])
        naive.record(f"final {name} of class 11", right[-1, concept])
        for asked, values in ((carrier, own), ("class 11", target)):
            one = slice(concept, concept + 1)
            near = cs.success(seen.points[asked][..., one], values[one])
            naive.record(f"{name} of {asked} learned at", cs.learned_at(steps, near))
    report_shape(naive, path, seen)


def report_elicitation(at: Place, seen: Seen) -> None:
    """How often, and when, each way of asking shows class 11."""
    target = np.ones(2)
    for method, each in seen.protocols().items():
        own = at.at(method=method)
        if not method.startswith(("naive, best", "random")):
            curve = np.max([cs.joint_accuracy(points, target) for points in each], axis=0)
            for step, value in zip(seen.steps.tolist(), curve, strict=True):
                own.record("both right", value, step=step)
            own.record("time", cs.first_time(seen.steps, curve))
            if method == "naive":
                own.record("final both right", curve[-1])
        near = np.max([cs.success(points, target) for points in each], axis=0)
        own.record("shown at", cs.learned_at(seen.steps, near, 0.8))
        own.record("final success", near[-1])


def report_shape(at: Place, path: np.ndarray, seen: Seen) -> None:
    """Where the path turns, which seen class it resembles first, and how a toy model fits it."""
    bend, weaker = cs.turn(path), int(np.argmin(seen.signals))
    toy = cs.fit_toy(seen.steps, path[:, [weaker, 1 - weaker]])
    at.record_all({
        "turn in degrees": bend.degrees,
        "turn inside": bend.is_inside,
        "turn at": seen.steps[bend.index],
        "first to the stronger": cs.stereotype(path) == (1 if weaker == 0 else 2),
        "toy R2": toy.r2,
        "toy release": toy.weaker,
    })  # fmt: skip


def report_cube(at: Place, seen: Seen) -> None:
    """Joint accuracy of every class of three concepts."""
    for name, points in seen.points.items():
        curve = cs.joint_accuracy(points, np.array([int(digit) for digit in name[-3:]]))
        for step, value in zip(seen.steps.tolist(), curve, strict=True):
            at.record("all right", value, method=name, step=step)
        at.record("time", cs.first_time(seen.steps, curve), method=name)
