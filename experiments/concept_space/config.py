"""Settings and presets of ``concept_space``."""

import dataclasses
from typing import Annotated, Literal

import numpy as np

from core.checks import Fraction, NonEmpty, OpenFraction, Size, checked
from core.kinds import Range
from experiments.lab.settings import Many, ManyOrNone, Rate, Share, Weight

EXAGGERATIONS = (1.0, 1.5, 2.5, 3.5, 4.5)
"""Over-prompting: multiples of the colour's distance from the middle."""
STRENGTHS = (1.5, 2.0, 3.0, 4.0)
"""Latent interventions: multiples of the colour's contribution to the embedding of the prompt."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Two worlds: images (a U-Net per run, one after another) and vectors (all runs as one program)."""

    # Images.
    shape: Literal["disc", "triangle"] = "disc"
    side: Annotated[int, Range(4, 256)] = 12
    channels: NonEmpty[Annotated[int, Range(8, 65_536)]] = (8, 16)
    blocks: Annotated[int, Range(1, 16)] = 1
    dropout: Share = 0.0
    attention: bool = False
    """In the middle of the U-Net."""
    separations: NonEmpty[OpenFraction] = (0.2, 0.8)
    """sep_colour of the runs with images, at sep_size 0.4."""
    elicited: NonEmpty[OpenFraction] = (0.2,)
    """Those at which more than naive prompts are tried; exaggerated colours must stay in [0, 1]."""
    cubes: ManyOrNone = 1
    """Seeds of the images with three concepts."""
    images: Many = 2_048
    """Training images per class."""
    steps: Many = 1_200
    batch_size: Size = 64
    learning_rate: Rate = 2e-3
    weight_decay: Weight = 0.01
    checkpoints: Annotated[int, Range(2, 10_000)] = 14
    """Quadratically spaced."""
    generations: Size = 16
    sampling_steps: Annotated[int, Range(1, 10_000)] = 20
    # Vectors.
    sweep: NonEmpty[OpenFraction] = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
    """sep_colour at sep_size 0.4, and sep_size at sep_colour 0.4."""
    alphas: NonEmpty[Fraction] = (0.0, 0.3, 0.6, 0.9, 1.0)
    """Probabilities of leaving out the colour in prompts of class 01."""
    dropped: Share = 0.1
    """Share of conditions replaced by -1 where guidance is to be used."""
    guidance: Weight = 3.0
    vector_steps: Many = 1_800
    vector_batch: Size = 64
    vector_width: Size = 64
    vector_rate: Rate = 1e-3
    vector_checkpoints: Annotated[int, Range(2, 10_000)] = 24
    vector_generations: Size = 32
    cost_repeats: ManyOrNone = 5
    """How often the time of one run and of many as one program is taken."""


PRESETS = {
    "smoke": Config(
        side=8, separations=(0.2,), cubes=0, images=256, steps=60, checkpoints=3, generations=4, sampling_steps=5,
        sweep=(0.2, 0.8), alphas=(0.0, 1.0), vector_steps=600, vector_checkpoints=8,
        cost_repeats=0,
    ),
    "small": Config(),
    "paper": Config(
        side=32, channels=(64, 128, 256), blocks=2, dropout=0.1, attention=True,
        separations=(0.2, *np.linspace(0.1, 0.8, 20).round(4).tolist()), elicited=(0.1, 0.1368, 0.1737, 0.2, 0.2105),
        cubes=5, steps=20_000, learning_rate=1e-3, checkpoints=60, generations=32, sampling_steps=50,
        sweep=tuple(np.linspace(0.1, 0.8, 15).round(2).tolist()), vector_steps=20_000, vector_checkpoints=60,
    ),
}  # fmt: skip
