"""Settings and presets of ``rep4ex``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab.settings import Many, ManyOrNone, Rate, Scale, Weight


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Identification of the latents first, then extrapolation of an outcome, then what can go wrong."""

    strengths: NonEmpty[Weight] = (0.0, 1.0, 2.0, 4.0)
    """alpha: how far actions move the latents."""
    dimensions: NonEmpty[Annotated[int, Range(1, 64)]] = (2, 4)
    strengths_wide: NonEmpty[Weight] = (1.0, 2.0)
    """The same where there are more than two latents."""
    worlds: Annotated[int, Range(1, 10_000)] = 20
    """Seeds of identification, beside which ``--seeds`` is that of the rest."""
    observed: Annotated[int, Range(1, 1024)] = 10
    """Coordinates of X."""
    rows: Many = 4_000
    fresh: Many = 4_000
    """Rows on which R^2 is measured."""
    validation: Many = 1_000
    steps: Many = 850
    batch: Size = 512
    hidden: NonEmpty[Size] = (64, 64)
    learning_rate: Rate = 1e-3
    lam: Weight = 10.0
    restarts: Annotated[int, Range(1, 1000)] = 3
    """Encoders per representation, of which the one of least validation loss is kept."""
    outcome_rows: Many = 8_000
    outcome_steps: Many = 2_250
    features: Size = 300
    """Of the random Fourier ridge, for nu and for psi each."""
    length: Scale = 2.5
    """Its length-scale, in deviations of V_phi."""
    ridge: Scale = 1e-6
    actions: Many = 300
    """Test actions that are drawn on [-2, 2]^d."""
    network_steps: Many = 2_000
    """Of the networks that regress Y."""
    bootstrap: Annotated[int, Range(2, 1_000_000)] = 25
    """Draws of rows for intervals from step 2."""
    refits: Annotated[int, Range(2, 100_000)] = 20
    """Draws for intervals from both steps, each with encoders of its own."""
    refit_restarts: Annotated[int, Range(1, 1000)] = 2
    refit_worlds: Annotated[int, Range(0, 10_000)] = 5
    """Of the extrapolation's, those which have such intervals."""
    folds: Annotated[int, Range(2, 100)] = 2
    """Of cross-fitting: encoders from some, step 2 on the others."""
    supports: NonEmpty[Scale] = (0.5, 1.0, 1.5)
    """gamma: half the width of the actions' support."""
    oracle_seeds: Annotated[int, Range(1, 100_000)] = 8
    tests: Annotated[int, Range(1, 1_000_000)] = 400
    """Repetitions of the constraint's test under the null."""
    plain_worlds: Annotated[int, Range(1, 10_000)] = 20
    """Plain encoders whose codes the test has to reject."""
    test_rows: Many = 2_000
    thorough: bool = True
    """Whether violated assumptions, ablations, other codes and other regressions are looked at."""
    lambdas: NonEmpty[Weight] = (0.1, 1.0, 10.0, 100.0)
    image_steps: ManyOrNone = 400
    image_seeds: ManyOrNone = 1
    cost_seeds: Annotated[int, Range(1, 10_000)] = 20
    cost_strengths: Annotated[int, Range(1, 1000)] = 5
    cost_steps: Many = 10
    cost_repeats: ManyOrNone = 5

    @property
    def regression(self) -> tuple[int, int, float]:
        """Steps, batch and learning rate of the networks that regress Y."""
        return self.network_steps, self.batch, self.learning_rate


PRESETS = {
    "smoke": Config(
        strengths=(0.0, 2.0), dimensions=(2,), worlds=1, rows=1_000, fresh=500, validation=300, steps=50, batch=256,
        hidden=(32, 32), restarts=1, outcome_rows=1_000, outcome_steps=50, features=50, actions=60, network_steps=50,
        bootstrap=5, refits=2, refit_restarts=1, refit_worlds=1, supports=(0.5, 1.0), oracle_seeds=2, tests=10,
        plain_worlds=1, test_rows=300, thorough=False, image_steps=0, cost_repeats=0,
    ),
    "small": Config(),
    "paper": Config(
        strengths=(0.0, 0.5, 1.0, 2.0, 4.0), dimensions=(2, 4, 10), strengths_wide=(0.0, 0.5, 1.0, 2.0, 4.0),
        worlds=20, rows=10_000, steps=20_000, restarts=4, outcome_rows=10_000, outcome_steps=20_000,
        network_steps=20_000, bootstrap=500, refits=200, refit_restarts=4, refit_worlds=20, oracle_seeds=100,
        lambdas=(0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0), image_steps=5_000, image_seeds=10, cost_repeats=10,
    ),
}  # fmt: skip
