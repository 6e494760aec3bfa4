"""Settings of the DCCF comparison, and the names of its data sets and methods."""

import dataclasses
import re
from typing import Annotated, Literal

from core.checks import NonEmpty, Size, checked
from core.datasets.interactions import Name
from core.kinds import Range
from experiments.lab.settings import Many, Rate, Scale, Share, Weight, require_known
from rec.dccf import VARIANTS

SIMULATED = "intents"
"""The generator's name as a data set."""
BASELINE = "LightGCN"
PEER = "LightGCN d=64 L=3"
"""The configuration for which a learning curve of the authors' repository is known; nothing in Config changes it."""
PEER_EPOCHS = 40
CLOSED_FORM = ("Popularity", "Item-kNN", "EASE")
MAIN = (*CLOSED_FORM, "BPR-MF", BASELINE, "SGL-ED", "SimGCL", "DGCF", "DCCF", "DCCF -Disen", "DCCF -SSL")
CURVES = ("recall@20", "ndcg@20")
"""Metrics whose course is recorded."""
VALIDATED = "ndcg@20"
"""The metric that chooses when to stop, on held-out training items."""
GAINS = f"{VALIDATED} over"
"""With the name of another method: the mean gain per user over it."""
DRAWS = 1000
"""Of users, for its interval."""
BEST_STEP, STOPPED = "best step", "stopped by validation"
"""What is recorded of stopping: the step whose parameters are tested, and 1 where patience ended before the steps."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a comparison."""

    dataset: Literal[Name, "intents"] = "lastfm_cf"
    """The data of the main comparison: a data set, or "intents" for the generator."""
    simulate_if_missing: bool = True
    """Whether the generator stands in where the data set cannot be found."""
    methods: NonEmpty[str] = MAIN
    ablations: tuple[str, ...] = ()
    """Methods compared on simulated intents."""
    robust: tuple[str, ...] = ()
    """Methods trained on simulated intents without and with false edges."""
    false_edges: Annotated[float, Range(above=0, most=10)] = 0.2
    """False training edges as a share of the true ones."""
    evaluations: Annotated[int, Range(1, 100_000)] = 20
    """How often a learning curve is measured."""
    validation: Share = 0.0
    """Share of each user's training items held out to choose when to stop; 0: every method trains for its steps."""
    patience: Annotated[int, Range(1, 100_000)] = 4
    """Measurements without a better one after which a method stops, where it stops by validation."""
    tuned: tuple[str, ...] = ()
    """Methods whose settings are chosen by held-out training items of the main data, which also stop them."""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.1
    """The share of each user's training items that chooses."""
    tuned_steps: Many = 8000
    """Of BPR-MF and LightGCN, if nothing stops them before."""
    tuned_dccf_steps: Many = 1500

    dim: Size = 32
    layers: Annotated[int, Range(1, 64)] = 2
    learning_rate: Rate = 1e-3
    """Of every method but DCCF."""
    batch_size: Annotated[int, Range(1, 10_000_000)] = 2048
    """Triples per step of every method but DCCF."""
    steps: Many = 4000
    """Of BPR-MF and LightGCN."""
    costly_steps: Many = 1500
    """Of SGL, SimGCL and DGCF, whose steps take several times as long."""
    reg: Weight = 1e-4
    sgl_weight: Weight = 0.1
    simgcl_weight: Weight = 0.5

    dccf_batch_size: Annotated[int, Range(1, 10_000_000)] = 512
    dccf_learning_rate: Rate = 1e-3
    dccf_steps: Many = 600
    intents: Size = 64
    """K."""
    temperature: Scale = 1.0
    ssl: Weight = 0.1
    """lambda_1."""
    embedding_reg: Weight = 2.5e-5
    """lambda_2 at the published batch of 10,240; the term is a sum, so it is scaled by 10,240 / batch."""
    prototype_reg: Weight = 5e-3
    """lambda_3."""

    users: Annotated[int, Range(10, 10_000_000)] = 1000
    """Of the generator."""
    items: Annotated[int, Range(30, 1_000_000)] = 750
    simulated_steps: Many = 1000
    simulated_dccf_steps: Many = 600
    simulated_intents: Size = 16
    """K on simulated intents, of which there are 4."""
    simulated_ssl: Weight = 0.01
    """lambda_1 there; with lambda_2 chosen by N@20 on draws of the generator with other seeds."""
    simulated_embedding_reg: Weight = 4e-4
    """lambda_2 there, at a batch of 10,240."""

    def __post_init__(self):
        named = (*self.methods, *self.ablations, *self.robust, *self.tuned)
        plain = [name for name in named if not re.fullmatch(rf"({'|'.join(VARIANTS)}) K=[1-9]\d{{0,3}}", name)]
        require_known("method", plain, dict.fromkeys((*MAIN, PEER, *VARIANTS)))


TUNED = (BASELINE, "DCCF", "DCCF -Disen", "DCCF -SSL")
SMOKE = Config(
    dataset=SIMULATED, methods=("Popularity", "EASE", BASELINE, "SGL-ED", "DCCF"), robust=(BASELINE, "DCCF"),
    evaluations=5, dim=16, learning_rate=5e-3, batch_size=512, dccf_batch_size=256, dccf_learning_rate=5e-3, users=300,
    items=200, simulated_steps=100, simulated_dccf_steps=60,
)  # fmt: skip
DEMO = Config(
    methods=("EASE", BASELINE, "DCCF"), evaluations=30, validation=0.1, learning_rate=3e-3, steps=6000, dccf_steps=600
)
"""Learning rates by how held-out training items were ranked, 1e-3 on seeds 0 to 4 and 3e-3 on seeds 10 and 11: LightGCN
did better at 3e-3, DCCF at 1e-3."""
SMALL = Config(
    methods=(*MAIN, PEER), ablations=(*VARIANTS, "DCCF K=1", "DCCF K=4", BASELINE), robust=(BASELINE, "DCCF"),
    tuned=TUNED,
)  # fmt: skip
"""Leaves to ``paper`` Gowalla (item 9), the generator at its published size, and SGL with false edges, which no claim
needs and which would take a fifth of the time. Seconds of one core for six seeds: SGL 800, SimGCL 360, DGCF 340, all
others on Last.FM artists 360, simulated intents 530, settings that are chosen 1,200 at most.
"""
PAPER = Config(
    dataset="gowalla", simulate_if_missing=False,
    methods=("Popularity", "BPR-MF", BASELINE, "SGL-ED", "SimGCL", "DGCF", "DCCF", "DCCF -Disen", "DCCF -SSL"),
    ablations=SMALL.ablations, robust=(BASELINE, "SGL-ED", "DCCF"), evaluations=50, dim=64, layers=3, steps=1000 * 396,
    costly_steps=100 * 396, dccf_batch_size=10240, dccf_steps=150 * 40, intents=128, users=2000, items=1500,
    simulated_steps=4000, simulated_dccf_steps=2000,
)  # fmt: skip
PRESETS = {"smoke": SMOKE, "demo": DEMO, "small": SMALL, "paper": PAPER}


def noisy(config: Config) -> str:
    """The generator's name where false edges were added."""
    return f"{SIMULATED} + {config.false_edges:.0%} false edges"


def tuned(dataset: str) -> str:
    """The name under which numbers with settings of their own stand."""
    return f"{dataset}, tuned"
