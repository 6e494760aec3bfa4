"""Settings of the counterfactual experiments."""

import dataclasses
from typing import Annotated

from causal.causal_diffae import Prediction
from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab.settings import Many, ManyOrNone, Rate, Share, Weight


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Strokes (all seeds of a method as one program), two worlds of four variables, and real digits."""

    # Strokes, 12 x 12.
    train: Many = 20_000
    test: Annotated[int, Range(2, 10_000_000)] = 96
    chain: Annotated[int, Range(2, 100_000)] = 200
    """T, linear betas."""
    sampling: Annotated[int, Range(1, 100_000)] = 30
    """DDIM steps each way."""
    block: Size = 8
    """k."""
    width: Size = 128
    """Of the denoiser."""
    blocks: Annotated[int, Range(1, 64)] = 3
    prediction: Prediction = "v"
    """What networks put out; the paper's is eps, which small networks learn much later."""
    steps: Many = 1_200
    batch: Size = 64
    rate: Rate = 1e-3
    """Of Adam, falling linearly to a hundredth of it."""
    ema: Share = 0.995
    dropped: Share = 0.1
    """Probability of leaving out the code or the labels (classifier-free training)."""
    small_gamma: Weight = 0.002
    fractions: NonEmpty[Annotated[float, Range(above=0, most=1)]] = (0.5, 0.2)
    """Shares of labelled examples, besides all of them."""
    weights: NonEmpty[Weight] = (0.0, 0.5, 1.0, 1.5)
    """Of guidance."""
    places: NonEmpty[Annotated[float, Range(-100, 100)]] = (-1.5, -0.75, 0.0, 0.75, 1.5, 2.25)
    """Of traversals, in standard deviations of the labels."""
    traversed: Size = 32
    """Test strokes that are moved through them."""
    classifier_scale: Weight = 10.0
    """Of Diff-SCM's gradients."""
    vae_steps: Many = 1_000
    predictor_steps: Many = 500
    nulls: NonEmpty[Annotated[int, Range(1, 1000)]] = (1, 10)
    """Numbers of null interventions for composition."""
    # Pendulum and circuit.
    world_side: Annotated[int, Range(4, 512)] = 14
    world_train: Many = 2_000
    world_steps: Many = 600
    world_width: Size = 128
    # Digits.
    digit_seeds: ManyOrNone = 1
    """Real digits are run for seeds below this."""
    digit_channels: NonEmpty[Size] = (16, 32)
    digit_block: Size = 8
    digit_steps: Many = 600
    digit_batch: Size = 32
    digit_test: Many = 256
    digit_sampling: Annotated[int, Range(1, 100_000)] = 20
    digit_rate: Rate = 1e-3
    classifier_steps: Many = 300


PRESETS = {
    "smoke": Config(
        train=512, test=16, sampling=6, width=32, blocks=1, steps=40, batch=32, fractions=(0.5,), weights=(0.0, 1.0),
        places=(-1.0, 1.0), traversed=4, vae_steps=30, predictor_steps=30, nulls=(1, 2),
        world_side=8, world_train=128, world_steps=20, world_width=16,
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
