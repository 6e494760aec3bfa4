"""Settings and presets of ``image_cate``."""

import dataclasses

from experiments.settings import require_known

PARTS = ("S1", "S2", "coverage", "Uganda", "transport", "clusters", "IHDP", "cost", "baselines", "ablations")
"""What can be measured."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Simulated experiments on images, a real one, and tabular simulations."""

    images: int | None = None
    """How many images; all if None."""
    real_images: bool = True
    """Whether satellite images are used where they are found; textures with planted spots otherwise."""
    features: int = 12
    size: int = 7
    stride: int = 2
    layers: int = 1
    draws: int = 1
    """Of the weights, in each step."""
    predictive_draws: int = 8
    salience_draws: int = 20
    salience_images: int = 64
    batch_images: int = 32
    """Images per batch, each with its units."""
    steps: int = 800
    learning_rate: float = 1e-2
    cluster_rate: float = 3.0
    """Learning rate of the clusters' parameters, over that of the networks."""
    clusters: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of clusters compared by held-out likelihood."""
    parts: tuple[str, ...] = PARTS
    null_sets: int = 20
    """Simulated data sets without heterogeneity."""
    coverage_sets: int = 40
    coverage_steps: int = 400
    half_samples: int = 200
    folds: int = 5
    fold_seeds: int = 3
    trial_steps: int = 300
    """On the real experiment."""
    components: int = 10
    penalty: float = 100.0
    """Of the ridge regression on principal components."""
    replications: int = 3
    """Of IHDP."""
    tabular_steps: int = 1_000

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
