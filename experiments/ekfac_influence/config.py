"""Settings of the influence experiments."""

import dataclasses
from typing import Annotated, Literal

from core.checks import NonEmpty, Size, checked
from core.kinds import Range
from experiments.lab.settings import Many, ManyOrNone, Scale, require_known
from interp.planted_facts import PlantedFacts

TINY_FACTS = PlantedFacts(
    facts=8, paraphrases=(1, 4), orders="both", fillers=96, length=24, vocabulary=128, relations=2, template_words=8,
    name_pieces=12, name_lengths=(2, 2), branching=3,
)  # fmt: skip
SMALL_FACTS = PlantedFacts(
    facts=24, paraphrases=(1, 4, 16), orders="both", fillers=1536, length=24, vocabulary=256, relations=4,
    template_words=16, name_pieces=48, name_lengths=(2, 2),
)  # fmt: skip


EARLY = "mislabelled digits, early"
"""Data set of the mislabel detection after a sixth of the training."""
TASKS = ("regression", "image", "language")
"""Problems on which attributions are compared."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; every cell of the run is one (part, seed)."""

    tasks: NonEmpty[Literal["regression", "image", "language"]] = TASKS
    costly_seeds: ManyOrNone = 5
    """Images, language and the planted corpus are run for seeds below this; all seeds run the rest."""
    damping: Scale = 1e-2
    """lambda, the same for the response and all curvatures."""
    dampings: NonEmpty[Scale] = (1e-3, 1e-2, 1e-1)
    """lambda of the comparison with the exact influence."""
    width: Size = 24
    """Of the two hidden layers of the regression network."""
    regression_steps: Many = 500
    image_train: Annotated[int, Range(10, 60_000)] = 500
    image_steps: Many = 600
    image_width: Size = 16
    language_train: Many = 64
    language_steps: Many = 300
    language_width: Annotated[int, Range(4, 65_536)] = 16
    moved: Size = 12
    """Training examples whose response is optimised."""
    queries: Size = 16
    response_steps: Many = 500
    lissa_iterations: Many = 1000
    lissa_batch: Size = 32
    subsets: Annotated[int, Range(2, 100_000)] = 50
    """Random halves of the training set for the linear datamodelling score."""
    retrained: Annotated[int, Range(1, 10_000)] = 2
    """Seeds per subset."""
    mislabelled: Annotated[int, Range(20, 60_000)] = 2000
    """Digits of the mislabel detection, a tenth of them with a wrong label."""
    corpus: PlantedFacts = dataclasses.field(default_factory=lambda: SMALL_FACTS)
    widths: NonEmpty[Annotated[int, Range(4, 65_536)]] = (32, 48, 64)
    """Of the decoders on the planted corpus; the last is also studied token by token."""
    depths: NonEmpty[Annotated[int, Range(1, 256)]] = (1, 2, 3)
    corpus_steps: Many = 1500
    top: Size = 20
    """Sequences looked at per query."""
    rank: Size = 32
    """Of the queries' gradients where these are approximated."""
    cost: bool = True
    """Whether to time the stages along width, depth, length and number of examples, once."""
    candidates: Annotated[float, Range(above=0, most=1)] = 0.1
    """Share of the training sequences that the token filter keeps."""

    def __post_init__(self):
        require_known("task", self.tasks, TASKS)


PRESETS = {
    "smoke": Config(
        tasks=("regression",), costly_seeds=1,
        width=8, regression_steps=100, image_train=96, image_steps=100, image_width=8, language_train=32,
        language_steps=60, moved=4, queries=6, response_steps=100, lissa_iterations=100, subsets=8, retrained=1,
        mislabelled=200, corpus=TINY_FACTS, widths=(16,), depths=(1,), corpus_steps=150, top=5,
        rank=8, candidates=0.3, cost=False,
    ),
    "small": Config(),
    "paper": Config(
        width=128, regression_steps=2000, image_train=5000, image_steps=3000, image_width=128, language_train=512,
        language_steps=2000, language_width=64, moved=64, queries=64, response_steps=3000, lissa_iterations=10_000,
        retrained=5, mislabelled=10_000, corpus=PlantedFacts(orders="both"), widths=(64, 128, 256),
        depths=(2, 4, 6), corpus_steps=10_000, top=100,
    ),
}  # fmt: skip
