"""Settings and presets of ``image_cate``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab import Many, Rate, Scale, Weight, require_known

PARTS = ("S1", "S2", "coverage", "Uganda", "transport", "clusters", "IHDP", "cost", "baselines", "ablations")
"""What can be measured."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Simulated experiments on images, a real one, and tabular simulations."""

    images: Annotated[int, Range(20, 1_000_000)] | None = None
    """How many images; all if None."""
    real_images: bool = True
    """Whether satellite images are used where they are found; textures with planted spots otherwise."""
    features: Size = 12
    size: Annotated[int, Range(1, 64)] = 7
    stride: Annotated[int, Range(1, 64)] = 2
    layers: Annotated[int, Range(1, 16)] = 1
    draws: Size = 1
    """Of the weights, in each step."""
    predictive_draws: Size = 8
    salience_draws: Size = 20
    salience_images: Size = 64
    batch_images: Size = 32
    """Images per batch, each with its units."""
    steps: Many = 800
    learning_rate: Rate = 1e-2
    cluster_rate: Scale = 3.0
    """Learning rate of the clusters' parameters, over that of the networks."""
    clusters: NonEmpty[Annotated[int, Range(1, 64)]] = (1, 2, 3, 4)
    """Numbers of clusters compared by held-out likelihood."""
    parts: NonEmpty[str] = PARTS
    null_sets: Annotated[int, Range(1, 100_000)] = 20
    """Simulated data sets without heterogeneity."""
    coverage_sets: Annotated[int, Range(1, 100_000)] = 40
    members: Annotated[int, Range(2, 1_000)] = 8
    """Of each ensemble, fits to halves of the images."""
    coverage_steps: Many = 400
    """Of designs S2 and S3."""
    half_samples: Annotated[int, Range(2, 1_000_000)] = 200
    folds: Annotated[int, Range(2, 100)] = 5
    fold_seeds: Annotated[int, Range(1, 10_000)] = 3
    trial_steps: Many = 300
    """On the real experiment."""
    components: Size = 10
    penalty: Weight = 100.0
    """Of the ridge regression on principal components."""
    replications: Annotated[int, Range(1, 1000)] = 3
    """Of IHDP."""
    tabular_steps: Many = 1_000

    def __post_init__(self):
        require_known("part", self.parts, PARTS)


PRESETS = {
    "smoke": Config(
        images=60, real_images=False, features=4, size=5, stride=4, predictive_draws=2, salience_draws=2,
        salience_images=4, batch_images=16, steps=50, parts=("S1",),
        half_samples=50,
    ),
    "small": Config(),
    "paper": Config(
        features=64, size=3, stride=1, layers=2, draws=10, predictive_draws=20, salience_draws=100,
        salience_images=1_420, batch_images=50, steps=2_000, learning_rate=5e-3, coverage_steps=2_000,
        trial_steps=2_000, replications=10,
    ),
}  # fmt: skip
