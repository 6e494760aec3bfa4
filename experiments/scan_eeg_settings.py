"""Settings and presets of ``scan_eeg``."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """Planted people first, then what is learned from them, then real recordings."""

    train: int = 600
    test: int = 600
    trials: int = 40
    """Trials per average."""
    kept: int = 8
    """Single trials kept of them, from which the denoiser's inputs are drawn."""
    betas: tuple[float, ...] = (2.0, 8.0, 16.0)
    models: int = 2
    """Models per beta and seed."""
    reference_beta: float = 8.0
    """The beta at which the planted effects are judged."""
    features: tuple[int, ...] = (8, 8)
    hidden: int = 128
    latents: int = 10
    steps: int = 2_000
    supervised_steps: int = 300
    """Of the supervised network, which overfits where it is trained for longer."""
    batch_size: int = 64
    learning_rate: float = 2e-3
    scan_steps: int = 4_000
    scan_batch: int = 64
    scan_rate: float = 1e-3
    beta_y: float = 1.0
    lam: float = 10.0
    recombination_steps: int = 3_000
    recombination_rate: float = 3e-3
    real: bool = True
    """Whether public recordings are used where they are found."""
    real_steps: int = 200
    real_beta: float = 4.0
    repetitions: int = 10
    """Of the cross-validation over real people."""
    cost_models: int = 6
    cost_steps: int = 10
    cost_repeats: int = 3


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
        cost_models=30, cost_steps=100, cost_repeats=10,
    ),
}  # fmt: skip
