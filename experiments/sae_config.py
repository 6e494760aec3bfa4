"""Sizes of the study of the family."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """Planted features, a sweep over sparsity, dead latents, a decoder's residual stream, and times."""

    features: int = 128
    d: int = 32
    latents: int = 256
    k: int = 6
    batch_size: int = 512
    steps: int = 3_000
    learning_rate: float = 3e-3
    """Adam's, decaying linearly to 0."""
    dead_after: int = 50_000
    examples: int = 16_384
    """Fresh examples on which all is measured."""
    sweep_steps: int = 800
    sweep_batch: int = 256
    ks: tuple[int, ...] = (3, 6, 12, 24)
    l1s: tuple[float, ...] = (0.1, 0.2, 0.3, 0.36, 0.42, 0.5)
    """Of ReLU with L1 and of gates."""
    l0s: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    """Weights of JumpReLU's penalty on L0."""
    wide: int = 2_048
    """Latents where many of them die."""
    wide_rate: float = 1e-2
    wide_steps: int = 3_000
    lm_steps: int = 300
    lm_width: int = 64
    lm_sequences: int = 1_024
    """Of 64 characters: those whose residual stream is stored."""
    real_steps: int = 400
    real_latents: tuple[int, ...] = (128, 256, 512)
    real_ks: tuple[int, ...] = (4, 8, 16, 32)
    repeats: int = 7


PRESETS = {
    "smoke": Config(steps=300, examples=2_048, sweep_steps=50, ks=(3, 12), l1s=(0.03, 0.14), l0s=(), wide=0,
                    lm_steps=0, repeats=0),
    "small": Config(),
    "paper": Config(steps=20_000, batch_size=2_048, sweep_steps=20_000, sweep_batch=2_048, examples=131_072,
                    wide=16_384, wide_steps=10_000, lm_steps=20_000, lm_width=256, lm_sequences=16_384,
                    real_steps=20_000, real_latents=(512, 2_048, 8_192, 32_768), real_ks=(8, 16, 32, 64), repeats=15),
}  # fmt: skip
