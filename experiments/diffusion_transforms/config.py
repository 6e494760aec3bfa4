"""Settings and presets of ``diffusion_transforms``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab.settings import Many, Rate


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Eight Gaussians on a ring, learned by a perceptron and drawn by every sampler."""

    steps: Many = 4_000
    batch_size: Size = 512
    width: Size = 128
    learning_rate: Rate = 2e-3
    samples: Annotated[int, Range(2, 10_000_000)] = 4_096
    projections: Size = 128
    calls: NonEmpty[Annotated[int, Range(2, 10_000)]] = (10, 20, 50, 100)
    """Network calls per sample; Heun's sampler takes half as many steps."""
    cost_width: Size = 1_024
    """Width of the perceptron of 13.7 M parameters whose sampling is timed."""
    cost_batch: Size = 512
    repeats: Annotated[int, Range(1, 100_000)] = 15


PRESETS = {
    "smoke": Config(steps=600, samples=1_024, calls=(10, 20), cost_width=256, repeats=3),
    "small": Config(),
    "paper": Config(steps=20_000, samples=16_384, calls=(5, 10, 20, 50, 100, 250), repeats=50),
}
