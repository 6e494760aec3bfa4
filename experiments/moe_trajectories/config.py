"""Settings and presets of ``moe_trajectories``."""

import dataclasses
from typing import Annotated, Literal

from core.checks import NonEmpty, checked
from core.kinds import Range
from experiments.lab import ManyOrNone, require_known

Network = Literal["expert", "gating"]
MODELS: dict[str, tuple[Network, ...]] = {
    "full MoE": (),
    "gating network": ("expert",),
    "expert network": ("gating",),
    "finite mixture": ("expert", "gating"),
}
"""The paper's four mixtures, by the networks that they lack."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    starts: Annotated[int, Range(1, 100_000)] = 12
    """Random starts of each fit of one data set."""
    persons: Annotated[int, Range(50, 10_000_000)] = 500
    replications: Annotated[int, Range(2, 1_000_000)] = 2_000
    """Simulated data sets; the first of them also serve the comparison of models. With so many an interval for all 47
    coverages at once is 0.035 wide, half of the range that is allowed; with the list's 200 it is 0.11."""
    compared: ManyOrNone = 600
    """With so many the share that two steps lose is known to 0.02; with the list's 60 to 0.06."""
    models: NonEmpty[str] = tuple(MODELS)
    classes: Annotated[int, Range(0, 16)] = 2
    """Fits of the mathematics data have 1 to this many classes, as has the enumeration on the example."""
    batches: tuple[Annotated[int, Range(1, 1_000_000)], ...] = (1, 8, 64)
    """Replications per call whose time is taken."""
    trees: Annotated[int, Range(0, 100_000)] = 32
    """Of each forest; none are grown where it is 0."""
    forest_persons: Annotated[int, Range(50, 10_000_000)] = 1000
    forest_depth: Annotated[int, Range(1, 30)] = 4
    refitted: Annotated[int, Range(1, 1000)] = 3
    """Cuts of a node that are compared by exact likelihood ratios."""
    lanes: Annotated[int, Range(1, 65_536)] = 16

    def __post_init__(self):
        require_known("model", self.models, MODELS)


PRESETS = {
    "smoke": Config(4, 200, 4, 0, ("finite mixture",), 0, (), trees=0),
    "small": Config(),
    "paper": Config(starts=100, replications=10_000, compared=10_000, classes=4, batches=(1, 8, 64, 256, 1000),
                    trees=128, forest_depth=4, lanes=64),
}  # fmt: skip
