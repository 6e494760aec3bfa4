"""Sizes of the study of the family."""

import dataclasses
from typing import Annotated

from core.checks import NonEmpty, Size, checked
from core.errors import ConfigError
from core.kinds import Range
from experiments.lab import Many, ManyOrNone, Rate, Weight

LEAST_WIDE = 24
"""A world has 11 features at least: six are active on average, the commonest nine times as often as the rarest."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Planted features, a sweep over sparsity, dead latents, a decoder's residual stream, and times."""

    features: Annotated[int, Range(11, 65_536)] = 128
    d: Size = 32
    latents: Annotated[int, Range(1, 10_000_000)] = 256
    k: Size = 6
    batch_size: Size = 512
    steps: ManyOrNone = 3_000
    learning_rate: Rate = 3e-3
    """Adam's, decaying linearly to 0."""
    dead_after: Many = 50_000
    examples: Many = 16_384
    """Fresh examples on which all is measured."""
    sweep_steps: Many = 800
    sweep_batch: Size = 256
    ks: NonEmpty[Size] = (3, 6, 12, 24)
    l1s: tuple[Weight, ...] = (0.1, 0.2, 0.3, 0.36, 0.42, 0.5)
    """Of ReLU with L1 and of gates."""
    l0s: tuple[Weight, ...] = (0.003, 0.01, 0.03, 0.06)
    """Weights of JumpReLU's penalty on L0."""
    wide: Annotated[int, Range(0, 10_000_000)] = 2_048
    """Latents where many of them die."""
    wide_rate: Rate = 1e-2
    wide_steps: Many = 3_000
    lm_steps: ManyOrNone = 300
    lm_width: Annotated[int, Range(4, 65_536)] = 64
    lm_sequences: Many = 1_024
    """Of 64 characters: those whose residual stream is stored."""
    real_steps: ManyOrNone = 400
    real_latents: NonEmpty[Annotated[int, Range(1, 10_000_000)]] = (128, 256, 512)
    real_ks: NonEmpty[Size] = (4, 8, 16, 32)
    repeats: ManyOrNone = 7

    def __post_init__(self) -> None:
        """Refuses a wide dictionary too small for the world of twice as many features as a quarter of its latents."""
        if 0 < self.wide < LEAST_WIDE:
            raise ConfigError(f"wide must be 0 (none) or at least {LEAST_WIDE}, not {self.wide}")


PRESETS = {
    "smoke": Config(steps=300, examples=2_048, sweep_steps=50, ks=(3, 12), l1s=(0.03, 0.14), l0s=(), wide=0,
                    lm_steps=0, repeats=0),
    "small": Config(),
    "paper": Config(steps=20_000, batch_size=2_048, sweep_steps=20_000, sweep_batch=2_048, examples=131_072,
                    wide=16_384, wide_steps=10_000, lm_steps=20_000, lm_width=256, lm_sequences=16_384,
                    real_steps=20_000, real_latents=(512, 2_048, 8_192, 32_768), real_ks=(8, 16, 32, 64), repeats=15),
}  # fmt: skip
