"""What the parts of ``rep4ex`` share: worlds by seed, pools of encoders that are trained on them, step 2."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
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


def place(context: Context, case: rep.Case, dataset: str = "") -> Place:
    """Of the numbers of a case."""
    design = case.world.design
    return context.at(dataset=dataset or named(design.d, design.alpha), seed=case.seed - FIRST_SEED)


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
    """A pool of encoders, in the configuration's way but for what is given."""
    given: dict[str, Any] = {"coder": coder(config), "steps": config.steps, "batch": config.batch} | way
    return rep.train_cases(
        cases, lams, rep.Way(**given, learning_rate=config.learning_rate, is_constrained=limits is not None), limits,
        context.workdir / name, context.progress(f"rep4ex: {name}"),
    )  # fmt: skip


def ridge(config: Config) -> rep.Ridge:
    """The settings of step 2 where nothing else is said."""
    return rep.Ridge(config.features, config.length, config.ridge)


def second_step(config: Config, w: np.ndarray, a: np.ndarray, y: np.ndarray) -> rep.SecondStep:
    """Step 2."""
    step = rep.SecondStep(w, a, y, ridge(config))
    step.check()
    return step


def mse(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error."""
    return float(np.mean((found - truth) ** 2))


def direct_linear(a: np.ndarray, y: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Least squares of Y on (1, A)."""
    rows = rep.Rows(jnp.asarray(a, jnp.float32), jnp.asarray(y, jnp.float32))
    return np.asarray(rep.linear(rows, jnp.asarray(actions, jnp.float32)))
