"""Settings and presets of ``mm_gpvae``."""

from experiments.mm_gpvae.study import training
from experiments.mm_gpvae.study.training import Config

PRESETS = {
    "smoke": Config(
        digits="drawn", trials=16, test_trials=8, bins=30, neurons=20, side=6, circle=60,
        neural_hidden=(16,), behaviour_hidden=(16,), decoder_hidden=(16,), steps=100, restarts=2, other_restarts=1,
        variants=("MM-GPVAE", "time domain"), gpfa_steps=50, monkey_steps=0, scale_bins=(), repeats=3,
    ),
    "small": Config(),
    "paper": Config(
        trials=240, test_trials=60, side=36, behaviour_hidden=(784, 512, 256, 256),
        decoder_hidden=(256, 256, 512, 784), steps=8_400, batch_size=20, gpfa_steps=1_000,
        variants=tuple(training.VARIANTS), monkey_steps=12_000,
    ),
}  # fmt: skip
