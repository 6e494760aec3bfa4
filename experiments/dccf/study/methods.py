"""The methods of the DCCF comparison by name: a model, its learner and how long it is trained."""

import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn

from core.errors import ConfigError
from core.learner import LearnerLike
from experiments.dccf.config import MAIN, PEER, PEER_EPOCHS, SIMULATED, Config
from rec.dccf import DCCF, VARIANTS, dccf_learner
from rec.dgcf import DGCF, dgcf_learner
from rec.graph import RecData
from rec.graph_contrast import SimGCL, sgl_learner, simgcl_learner
from rec.lightgcn import LightGCN, lightgcn_learner
from rec.sampling import steps_per_epoch


class Method(NamedTuple):
    """A model, how it is trained and for how long."""

    model: nn.Module
    learner: LearnerLike
    steps: int


def method_of(config: Config, dataset: str, name: str, data: RecData) -> Method:
    """A method by its name in tables."""
    is_simulated = dataset.startswith(SIMULATED)
    if name.startswith("DCCF"):
        return dccf(on_simulated_data(config) if is_simulated else config, name)
    if name == PEER:
        steps = PEER_EPOCHS * steps_per_epoch(data.graph.user_item.num_edges, 2048)
        return Method(LightGCN(64, 3), lightgcn_learner(dim=64, layers=3, batch_size=2048), steps)
    size: dict[str, Any] = {"dim": config.dim, "layers": config.layers}
    shared = {"batch_size": config.batch_size, "learning_rate": config.learning_rate}
    cheap = name in ("BPR-MF", "LightGCN")
    steps = config.simulated_steps if is_simulated else config.steps if cheap else config.costly_steps
    match name:
        case "SGL-ED":
            learner = sgl_learner(**size, **shared, reg=config.reg, ssl=config.sgl_weight)
            return Method(LightGCN(**size), learner, steps)
        case "SimGCL":
            learner = simgcl_learner(**size, **shared, reg=config.reg, ssl=config.simgcl_weight)
            return Method(SimGCL(**size), learner, steps)
        case "DGCF":
            return Method(DGCF(config.dim, 1), dgcf_learner(dim=config.dim, **shared), steps)
        case "BPR-MF" | "LightGCN":
            size["layers"] = 0 if name == "BPR-MF" else config.layers
            return Method(LightGCN(**size), lightgcn_learner(**size, **shared, reg=config.reg), steps)
    raise ConfigError(f"there is no method {name!r}; possible: {', '.join((*MAIN, PEER, *VARIANTS))}, DCCF K=<number>")


def on_simulated_data(config: Config) -> Config:
    """DCCF's settings for the generator in the place of those for real data."""
    return dataclasses.replace(
        config,
        dccf_steps=config.simulated_dccf_steps,
        intents=config.simulated_intents,
        ssl=config.simulated_ssl,
        embedding_reg=config.simulated_embedding_reg,
    )


def dccf(config: Config, name: str) -> Method:
    """DCCF or one of its variants; "DCCF K=4" has four intents."""
    variant_name, fixed, number = name.partition(" K=")
    variant, intents = VARIANTS[variant_name], int(number) if fixed else config.intents
    learner = dccf_learner(
        dim=config.dim,
        layers=config.layers,
        intents=intents,
        batch_size=config.dccf_batch_size,
        learning_rate=config.dccf_learning_rate,
        variant=variant,
        ssl=config.ssl,
        embedding_reg=config.embedding_reg * 10240 / config.dccf_batch_size,
        prototype_reg=config.prototype_reg,
        tau=config.temperature,
    )
    return Method(DCCF(config.dim, config.layers, intents, variant.views), learner, config.dccf_steps)
