"""Settings and presets of ``jepa_linear``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, OpenFraction, Size, checked
from core.errors import ConfigError
from core.kinds import Range
from experiments.lab.settings import ManyOrNone, Share

Step = Annotated[float, Range(above=0, most=1)]
Until = Annotated[float, Range(1, 1e7)]


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; times are in units of gradient flow with unit rate on every matrix."""

    depths: NonEmpty[Annotated[int, Range(1, 16)]] = (1, 2, 3, 4)
    simulated_depths: NonEmpty[Annotated[int, Range(1, 16)]] = (1, 3)
    replications: Annotated[int, Range(1, 1_000_000)] = 100
    """Random starts of each simulated setting."""
    eps: OpenFraction = 0.05
    """Scale of the encoder at random starts."""
    dt: Step = 0.05
    until: Until = 4000.0
    """Length of simulations of JEPA from random starts."""
    until_mae: Until = 400.0
    """That of MAE, which learns sooner."""
    every: Annotated[float, Range(above=0, most=10_000)] = 0.2
    """Time between two looks at JEPA, and four times that at MAE: below the differences of the times compared."""
    slow_eps: OpenFraction = 0.01
    """Scale of the encoder on dynamic and static views: at a larger one fast features lie above what they can learn."""
    slow_until: Until = 10_000.0
    """Length of JEPA's simulations there, of at most forty starts; MAE's take a fiftieth of it."""
    share: OpenFraction = 0.5
    """A feature counts as learned at this share of its fixed point."""
    grid: Annotated[int, Range(2, 10_000)] = 13
    """Points along each axis of the phase diagram."""
    batch_size: Size = 256
    batch_dt: Step = 0.02
    batch_until: Until = 600.0
    """Length of JEPA's simulations with mini-batches; MAE's take a twentieth of it."""
    ema_decay: Share = 0.99
    cost_steps: ManyOrNone = 10_000
    """Of the program of a thousand configurations that is timed; none is if 0."""

    def __post_init__(self) -> None:
        """Refuses settings with which nothing would be simulated."""
        if min(self.until_mae, self.slow_until / 50, self.batch_until / 20) < 10 * self.dt:
            raise ConfigError("until_mae, slow_until / 50 and batch_until / 20 must be at least ten steps of dt")


PRESETS = {
    "smoke": Config(
        depths=(1, 3), simulated_depths=(3,), replications=3, until=200.0, until_mae=30.0, dt=0.08, eps=0.2, every=0.4,
        slow_until=1000.0, batch_until=100.0, grid=4, cost_steps=0,
    ),
    "small": Config(),
    "paper": Config(simulated_depths=(1, 2, 3, 4), replications=400, dt=0.04, grid=31),
}  # fmt: skip
