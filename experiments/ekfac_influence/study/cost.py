"""What the stages cost as width, depth, length and examples grow, and beside kronfluence where that is installed."""

import dataclasses
import importlib.util

import numpy as np

from experiments.bench import ekfac as bench
from experiments.ekfac_influence.config import Config
from experiments.lab import Context
from interp.ekfac.costs import STAGES, Size, Stages

DATASET, PEER = "cost", "kronfluence"
WHOLE = "end to end"
REPEATS = 5
GROWN: dict[str, tuple[int, ...]] = {
    "width": (64, 128, 256), "depth": (1, 2, 4), "length": (32, 64, 128), "examples": (64, 128, 256),
}  # fmt: skip
"""By axis, the values that it takes while the others stay."""


def cost(config: Config, context: Context, *, seed: int) -> None:
    """Notes seconds and slopes along every axis: of the fastest of three calls, and slopes of each of five."""
    del config
    for axis, values in GROWN.items():
        measured = [Stages(dataclasses.replace(Size(), **{axis: value})).seconds(REPEATS) for value in values]
        for stage in STAGES:
            at, seconds = context.at(dataset=DATASET, seed=seed), np.array([found[stage] for found in measured])
            best = seconds[:, :3].min(axis=1)
            for value, fastest in zip(values, best, strict=True):
                at.record(f"{stage}, s", fastest, method=f"{axis} {value}")
            at.record(f"{stage}, s", slope(values, best), method=f"slope in {axis}")
            for repeat in range(REPEATS):
                at.record(f"slope of {stage}", slope(values, seconds[:, repeat]), method=axis, repeat=repeat)


def slope(x: tuple[int, ...], y: np.ndarray) -> float:
    """In doubly logarithmic axes."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def has_peer() -> bool:
    """Whether kronfluence can be imported here."""
    return importlib.util.find_spec(PEER) is not None


def beside_peer(config: Config, context: Context, *, seed: int) -> None:
    """Notes kronfluence's time over ours, of every stage and of the whole at the small size, five times."""
    del config
    for repeat in range(REPEATS):
        for result in bench.compare(bench.SIZES["small"]):
            at = context.at(dataset=DATASET, method=PEER, seed=seed, repeat=repeat)
            at.record(f"ratio of times, {result.name.removeprefix('EK-FAC ')}", result.ratio)
