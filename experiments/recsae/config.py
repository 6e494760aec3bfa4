"""Settings of the RecSAE experiment."""

import dataclasses
from typing import Annotated, Literal

from core.checks import Fraction, NonEmpty, Size, checked
from core.datasets.interactions import Ordered
from core.kinds import Range
from experiments.lab import ManyOrNone, Rate, Share, Weight, require_known

WALKS = "planted walks"
"""The generator's data set."""
TRAINED = ("SASRec", "GRU4Rec", "BERT4Rec")
COUNTED = ("Popularity", "Item-kNN", "Markov chain")
SUBJECT = "SASRec"
"""The recommender that is interpreted."""
MAIN_K, PAPER_K = 8, 32
"""Active latents: the number that concepts are judged at here, and the paper's."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Recommenders on real sequences and on planted walks, dictionaries of their user vectors, concepts, steering."""

    dataset: Literal[Ordered, ""] = "amazon_beauty"
    """Real data; planted walks alone where it is empty or not there."""
    methods: NonEmpty[str] = ("SASRec", "GRU4Rec", *COUNTED)
    # Recommenders.
    dim: Size = 64
    length: Annotated[int, Range(2, 10_000)] = 20
    dropout: Share = 0.3
    epochs: Annotated[int, Range(1, 100_000)] = 10
    batch_rows: Size = 32
    """Packed rows of 32 places."""
    learning_rate: Rate = 1e-3
    negatives: Size = 512
    # Planted walks.
    walk_users: Annotated[int, Range(10, 10_000_000)] = 2_500
    walk_items: Annotated[int, Range(10, 10_000_000)] = 1_000
    walk_groups: Size = 40
    walk_epochs: Annotated[int, Range(1, 100_000)] = 12
    walk_dim: Size = 64
    # Dictionaries.
    expansion: Annotated[int, Range(1, 1024)] = 32
    """Latents per dimension of the state."""
    ks: NonEmpty[Size] = (4, 8, 16, 32)
    walk_expansion: Annotated[int, Range(1, 1024)] = 8
    walk_ks: NonEmpty[Size] = (4, 8)
    sae_epochs: Annotated[int, Range(1, 100_000)] = 3
    sae_batch: Size = 1024
    sae_rate: Rate = 1e-3
    # Concepts.
    top: Size = 10
    """Instances from which a concept is read."""
    checked: Size = 40
    """Active instances on which it is checked, and as many inactive ones."""
    threshold: Fraction = 0.5
    clusters: Size = 256
    # Steering.
    steered: Size = 50
    """Most confident latents to ablate."""
    doses: NonEmpty[Weight] = (0.0, 0.5, 1.0, 2.0, 4.0)
    correlated: Fraction = 0.05
    """Share of latents, those most correlated with popularity, that are scaled down."""
    page_latents: ManyOrNone = 40

    def __post_init__(self):
        require_known("method", self.methods, (*TRAINED, *COUNTED))


PRESETS = {
    "smoke": Config(
        dataset="", methods=("SASRec", "Popularity", "Markov chain"), walk_users=1_200, walk_items=400, walk_groups=20,
        walk_epochs=16, walk_dim=32, negatives=128, sae_epochs=6, clusters=40, steered=20,
    ),
    "small": Config(),
    "paper": Config(
        methods=("SASRec", "GRU4Rec", "BERT4Rec", *COUNTED), epochs=60, walk_users=5_000, walk_epochs=60, sae_epochs=50
    ),
}  # fmt: skip
