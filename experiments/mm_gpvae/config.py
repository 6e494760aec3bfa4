"""Settings, presets and variants of ``mm_gpvae``."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from core.checks import Fraction, NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab import Many, ManyOrNone, Rate, require_known
from latent.mm_gpvae import Partition

VARIANTS: Mapping[str, dict[str, Any]] = {
    "MM-GPVAE": {},
    "time domain": {"domain": "time", "mixes_time": False},
    "time domain with map": {"domain": "time"},
    "unpruned": {"shortest": None},
    "VAE": {"domain": "white", "mixes_time": False},
    "product of experts": {"fusion": "product"},
    "images only": {"partition": Partition(0, 0, 2), "neurons": 0},
    "counts only": {"partition": Partition(2, 0, 0), "outputs": 0},
    "N = 10": {"neurons": 10},
    "N = 1": {"neurons": 1},
}
"""What differs from the main model."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; lengths are in bins."""

    digits: Literal["drawn", "mnist"] = "mnist"
    """Threes of two arcs, without data, or those of MNIST's test split."""
    trials: Annotated[int, Range(2, 1_000_000)] = 96
    test_trials: Annotated[int, Range(2, 1_000_000)] = 24
    bins: Annotated[int, Range(4, 100_000)] = 60
    neurons: Size = 100
    side: Annotated[int, Range(4, 256)] = 12
    circle: Size = 100
    shortest: Annotated[float, Range(above=0, most=1e5)] = 10.0
    neural_hidden: NonEmpty[Size] = (80, 40, 20)
    behaviour_hidden: NonEmpty[Size] = (128, 64)
    decoder_hidden: NonEmpty[Size] = (64, 128)
    steps: Many = 1_500
    batch_size: Size = 16
    learning_rate: Rate = 2e-3
    optimizer: Literal["cosine", "code"] = "cosine"
    image_weight: Fraction = 0.03
    """Weight of the image term up to half of the steps; it is 1 from four fifths of them on."""
    restarts: Annotated[int, Range(1, 10_000)] = 4
    """Of the main model; the best by ELBO counts."""
    other_restarts: Annotated[int, Range(1, 10_000)] = 2
    """Of every variant, compared with as many of the main model."""
    variants: tuple[str, ...] = (
        "MM-GPVAE", "time domain", "counts only", "images only", "N = 10", "N = 1", "time domain with map", "unpruned",
    )  # fmt: skip
    gpfa_steps: Many = 200
    monkey_steps: ManyOrNone = 6_000
    """At 1,500 the bound on the training trials still rises steeply and length scales stand where they started."""
    scale_bins: tuple[Annotated[int, Range(4, 100_000)], ...] = (128, 256, 512)
    repeats: ManyOrNone = 7
    """Of every timing."""

    def __post_init__(self):
        require_known("variant", self.variants, VARIANTS)


PRESETS = {
    "smoke": Config(
        digits="drawn", trials=16, test_trials=8, bins=30, neurons=20, side=6, circle=60,
        neural_hidden=(16,), behaviour_hidden=(16,), decoder_hidden=(16,), steps=100, restarts=2, other_restarts=1,
        variants=("MM-GPVAE", "time domain"), gpfa_steps=50, monkey_steps=0, scale_bins=(), repeats=3,
    ),
    "small": Config(),
    "paper": Config(
        trials=240, test_trials=60, side=36, behaviour_hidden=(784, 512, 256, 256),
        decoder_hidden=(256, 256, 512, 784), steps=8_400, batch_size=20, gpfa_steps=1_000, variants=tuple(VARIANTS),
        monkey_steps=12_000,
    ),
}  # fmt: skip
