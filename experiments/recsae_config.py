"""Settings of the RecSAE experiment."""

import dataclasses
from typing import Literal

from core.datasets.interactions import Ordered
from experiments.settings import require_known

WALKS = "planted walks"
"""The generator's data set."""
TRAINED = ("SASRec", "GRU4Rec", "BERT4Rec")
COUNTED = ("Popularity", "Item-kNN", "Markov chain")
SUBJECT = "SASRec"
"""The recommender that is interpreted."""
MAIN_K, PAPER_K = 8, 32
"""Active latents: the number that concepts are judged at here, and the paper's."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Recommenders on real sequences and on planted walks, dictionaries of their user vectors, concepts, steering."""

    dataset: Literal[Ordered, ""] = "amazon_beauty"
    """Real data; planted walks alone where it is empty or not there."""
    methods: tuple[str, ...] = ("SASRec", "GRU4Rec", *COUNTED)
    # Recommenders.
    dim: int = 64
    length: int = 20
    dropout: float = 0.3
    epochs: int = 10
    batch_rows: int = 32
    """Packed rows of 32 places."""
    learning_rate: float = 1e-3
    negatives: int = 512
    # Planted walks.
    walk_users: int = 2_500
    walk_items: int = 1_000
    walk_groups: int = 40
    walk_epochs: int = 12
    walk_dim: int = 64
    # Dictionaries.
    expansion: int = 32
    """Latents per dimension of the state."""
    ks: tuple[int, ...] = (4, 8, 16, 32)
    walk_expansion: int = 8
    walk_ks: tuple[int, ...] = (4, 8)
    sae_epochs: int = 3
    sae_batch: int = 1024
    sae_rate: float = 1e-3
    # Concepts.
    top: int = 10
    """Instances from which a concept is read."""
    checked: int = 40
    """Active instances on which it is checked, and as many inactive ones."""
    threshold: float = 0.5
    clusters: int = 256
    # Steering.
    steered: int = 50
    """Most confident latents to ablate."""
    doses: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    correlated: float = 0.05
    """Share of latents, those most correlated with popularity, that are scaled down."""
    page_latents: int = 40

    def __post_init__(self):
        require_known("method", self.methods, (*TRAINED, *COUNTED))


PRESETS = {
    "smoke": Config(
        dataset="",
        methods=("SASRec", "Popularity", "Markov chain"),
        walk_users=1_200,
        walk_items=400,
        walk_groups=20,
        walk_epochs=16,
        walk_dim=32,
        negatives=128,
        sae_epochs=6,
        clusters=40,
        steered=20,
    ),
    "small": Config(),
    "paper": Config(
        methods=("SASRec", "GRU4Rec", "BERT4Rec", *COUNTED), epochs=60, walk_users=5_000, walk_epochs=60, sae_epochs=50
    ),
}
