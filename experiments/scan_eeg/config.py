"""Settings and presets of ``scan_eeg``."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab import Many, Rate, Weight

UCI, SMNI, STOP = "UCI ERPs", "SMNI trials", "stop-signal ERPs"
"""What records call the real recordings."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Planted people first, then what is learned from them, then real recordings."""

    train: Annotated[int, Range(10, 1_000_000)] = 600
    test: Annotated[int, Range(10, 1_000_000)] = 600
    trials: Annotated[int, Range(1, 100_000)] = 40
    """Trials per average."""
    kept: Annotated[int, Range(1, 100_000)] = 8
    """Single trials kept of them, from which the denoiser's inputs are drawn."""
    betas: NonEmpty[Weight] = (2.0, 8.0, 16.0)
    models: Annotated[int, Range(1, 10_000)] = 2
    """Models per beta and seed."""
    reference_beta: Weight = 8.0
    """The beta at which the planted effects are judged."""
    features: tuple[Size, Size] = (8, 8)
    hidden: Size = 128
    latents: Size = 10
    steps: Many = 2_000
    supervised_steps: Many = 300
    """Of the supervised network, which overfits where it is trained for longer."""
    batch_size: Size = 64
    learning_rate: Rate = 2e-3
    scan_steps: Many = 4_000
    scan_batch: Size = 64
    scan_rate: Rate = 1e-3
    beta_y: Weight = 1.0
    lam: Weight = 10.0
    recombination_steps: Many = 3_000
    recombination_rate: Rate = 3e-3
    real: bool = True
    """Whether public recordings are used where they are found."""
    real_steps: Many = 200
    real_beta: Weight = 4.0
    repetitions: Annotated[int, Range(1, 10_000)] = 10
    """Of the cross-validation over real people."""
    cost_models: Annotated[int, Range(1, 10_000)] = 30
    cost_steps: Many = 5
    cost_repeats: Annotated[int, Range(1, 100_000)] = 7


PRESETS = {
    "smoke": Config(
        train=100, test=100, trials=10, kept=4, betas=(8.0,), features=(4, 4), hidden=16, steps=60,
        supervised_steps=60, scan_steps=300, recombination_steps=100, real=False, cost_models=2, cost_steps=3,
        cost_repeats=1,
    ),
    "small": Config(),
    "paper": Config(
        betas=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), models=10, features=(32, 32), hidden=128, steps=4_000,
        learning_rate=1e-3, supervised_steps=1_000, scan_steps=10_000, recombination_steps=10_000, real_steps=2_000,
        cost_steps=100, cost_repeats=10,
    ),
}  # fmt: skip
