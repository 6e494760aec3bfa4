"""What the parts of ``rep4ex`` share: worlds by seed, pools of encoders that are trained on them, step 2."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from causal import rep4ex as rep
from experiments.lab import Context, Place
from experiments.rep4ex.config import Config

FIRST_SEED = 10
"""Of the worlds of identification and robustness; run seed s has world FIRST_SEED + s."""
NAMES = {True: "AE-MMR", False: "AE-Vanilla"}
"""With the restriction, and without."""
MSE = "MSE of E[Y|do(a)]"
OUTER = 2.0
"""Test actions lie within [-OUTER, OUTER]^d and outside of the support."""


def cases_of(
    config: Config, seeds: Iterable[int], design: rep.Design, rows: int = 0, generator: rep.Generator = rep.gen1,
    first: int = FIRST_SEED,
) -> list[rep.Case]:  # fmt: skip
    """The worlds of a run's seeds, of which 0 has the world ``first``."""
    sizes = rows or config.rows, config.validation, config.fresh
    return [rep.make_case(first + seed, design, *sizes, generator) for seed in seeds]


def place(context: Context, case: rep.Case, dataset: str = "", **along: str) -> Place:
    """Of the numbers of a case."""
    design = case.world.design
    return context.at(dataset=dataset or named(design.d, design.alpha), seed=case.seed - FIRST_SEED, **along)


def named(d: int, alpha: float) -> str:
    """A data set of identification."""
    return f"d = {d}, alpha = {alpha:g}"


def coder(config: Config, d: int = 2) -> rep.Autoencoder:
    """The networks of this configuration."""
    return rep.Autoencoder(d, config.observed, config.hidden)


def train(
    config: Config, context: Context, name: str, cases: Sequence[rep.Case], lams: Sequence[float],
    limits: np.ndarray | None = None, **way: Any,
) -> rep.TrainedCases:  # fmt: skip
    """A pool of encoders, in the configuration's way but for what is given; read from its checkpoint if it is there."""
    given: dict[str, Any] = {"coder": coder(config), "steps": config.steps, "batch": config.batch} | way
    made = rep.Way(**given, learning_rate=config.learning_rate, is_constrained=limits is not None)
    return rep.train_cases(cases, lams, made, limits, context.workdir / name, context.progress(f"rep4ex: {name}"))


def runs(trained: rep.TrainedCases) -> Iterator[tuple[int, rep.Case, str]]:
    """Every run's number, case and method."""
    yield from ((run, case, NAMES[bool(trained.lam[run] > 0)]) for run, case in trained.runs())


def ridge(config: Config) -> rep.Ridge:
    """The settings of step 2 where nothing else is said."""
    return rep.Ridge(config.features, config.length, config.ridge)
