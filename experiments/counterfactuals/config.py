"""Settings of the counterfactual experiments."""

import dataclasses

from causal.causal_diffae import Prediction


@dataclasses.dataclass(frozen=True)
class Config:
    """Strokes (all seeds of a method as one program), two worlds of four variables, and real digits."""

    # Strokes, 12 x 12.
    train: int = 20_000
    test: int = 96
    chain: int = 200
    """T, linear betas."""
    sampling: int = 30
    """DDIM steps each way."""
    block: int = 8
    """k."""
    width: int = 128
    """Of the denoiser."""
    blocks: int = 3
    prediction: Prediction = "v"
    """What networks put out; the paper's is eps, which small networks learn much later."""
    steps: int = 1_200
    batch: int = 64
    rate: float = 1e-3
    """Of Adam, falling linearly to a hundredth of it."""
    ema: float = 0.995
    dropped: float = 0.1
    """Probability of leaving out the code or the labels (classifier-free training)."""
    small_gamma: float = 0.002
    fractions: tuple[float, ...] = (0.5, 0.2)
    """Shares of labelled examples, besides all of them."""
    weights: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    """Of guidance."""
    classifier_scale: float = 10.0
    """Of Diff-SCM's gradients."""
    vae_steps: int = 1_000
    predictor_steps: int = 500
    nulls: tuple[int, ...] = (1, 10)
    """Numbers of null interventions for composition."""
    # Pendulum and circuit.
    world_side: int = 14
    world_train: int = 2_000
    world_steps: int = 600
    world_width: int = 128
    # Digits.
    digit_seeds: int = 1
    """Real digits are run for seeds below this."""
    digit_channels: tuple[int, ...] = (16, 32)
    digit_block: int = 8
    digit_steps: int = 600
    digit_batch: int = 32
    digit_test: int = 64
    digit_sampling: int = 20
    digit_rate: float = 1e-3
    classifier_steps: int = 300


PRESETS = {
    "smoke": Config(
        train=512, test=16, sampling=6, width=32, blocks=1, steps=40, batch=32, fractions=(0.5,), weights=(0.0, 1.0),
        vae_steps=30, predictor_steps=30, nulls=(1, 2), world_side=8, world_train=128, world_steps=20, world_width=16,
        digit_seeds=0,
    ),
    "small": Config(),
    "paper": Config(
        prediction="eps",
        test=512, chain=1_000, sampling=250, steps=20_000, batch=128, vae_steps=20_000, predictor_steps=10_000,
        world_side=96, world_train=5_482, world_steps=35_000, world_width=512, digit_seeds=5,
        digit_channels=(64, 128, 256), digit_block=256, digit_steps=14_000, digit_batch=128, digit_test=2_000,
        digit_sampling=250, digit_rate=1e-4, classifier_steps=5_000,
    ),
}  # fmt: skip
