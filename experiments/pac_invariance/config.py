"""Settings and presets of ``pac_invariance``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, OpenFraction, checked
from core.kinds import Range
from experiments.lab import Many, Statistic, Weight

PANELS = (("hard", "hard"), ("hard", "rademacher"), ("soft", "soft"), ("soft", "rademacher"))
"""Families of training and of new environments."""
MEDIAN = "median generalization %"
"""Of the accepted subsets of a repeat."""
GENERALIZATION = Statistic("share", "*generalization*%", whole=100, trials=100)
"""Shares of a hundred fresh environments, in per cent."""

Radius = Annotated[float, Range(above=0, most=1)]


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; those of the paper's code unless said otherwise."""

    samples: NonEmpty[Annotated[int, Range(10, 1_000_000_000)]] = (10_000, 15_000, 30_000, 45_000)
    sizes: NonEmpty[Annotated[int, Range(2, 10_000)]] = (3, 5, 8, 11, 14, 17, 20)
    """Numbers of training environments."""
    radius: Radius = 0.02
    sd: Annotated[float, Range(above=0, most=1e3)] = 0.02
    """Of the noise."""
    repeats: Annotated[int, Range(1, 1_000_000)] = 12
    """Independent runs of the experiment; the paper's code makes one."""
    radii: NonEmpty[Radius] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    repeated: Annotated[int, Range(20, 100_000_000)] = 2000
    """Repeats of the bound's experiment, a multiple of 20."""
    bound_sizes: NonEmpty[Annotated[int, Range(2, 10_000)]] = (3, 5, 8, 11, 21, 40, 72)
    bound_radii: NonEmpty[Radius] = (0.02, 0.3)
    pool: Annotated[int, Range(1, 100_000_000)] = 200
    """Further repeats, from which violation probabilities are taken."""
    dags: Annotated[int, Range(1, 100_000)] = 20
    """Random SEMs of comparisons with other methods."""
    trend_dags: Annotated[int, Range(1, 100_000)] = 80
    """Random SEMs of trends."""
    d: Annotated[int, Range(2, 64)] = 8
    """Nodes of the random SEMs of trends."""
    sites: NonEmpty[Annotated[int, Range(1, 64)]] = (1, 2, 3, 4, 5)
    trend_radius: Radius = 0.1
    trend_samples: NonEmpty[Annotated[int, Range(10, 1_000_000_000)]] = (1_000, 3_000, 10_000, 30_000, 100_000)
    trend_sizes: NonEmpty[Annotated[int, Range(2, 10_000)]] = (3, 5, 8, 12, 20)
    compared: NonEmpty[Annotated[int, Range(2, 64)]] = (8, 10)
    """Nodes of the random SEMs of comparisons with other methods."""
    penalty: Weight = 100.0
    irm_steps: Many = 3_000
    mixings: Annotated[int, Range(1, 100_000)] = 10
    noise: NonEmpty[Weight] = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
    """Variances of the noise on indirect observations."""
    timed: NonEmpty[Annotated[int, Range(10, 1_000_000_000_000)]] = (1_000, 100_000, 100_000_000)
    """Sample sizes whose cost is compared."""
    alpha: OpenFraction = 0.05


PRESETS = {
    "smoke": Config(
        samples=(45_000,), sizes=(3, 11), repeats=2, radii=(0.02,), repeated=20, bound_sizes=(3, 11), pool=20,
        dags=3, trend_dags=3, d=5, sites=(2,), trend_samples=(1_000, 30_000), trend_sizes=(3, 8), compared=(5,),
        irm_steps=300, mixings=2, timed=(1_000, 100_000_000),
    ),
    "small": Config(),
    "paper": Config(repeats=100, repeated=20_000, pool=2_000, dags=200, trend_dags=200, compared=(8, 10, 12),
        mixings=100),
}  # fmt: skip
