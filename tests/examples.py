"""Every learner of the project at small size: what tests/core/test_every_learner.py runs on."""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from core.learner import LearnerLike, gradient_learner
from experiments.system import Example
from latent import jepa_linear as jepa
from rec.dccf import dccf_learner
from rec.dgcf import dgcf_learner
from rec.graph import RecData
from rec.graph_contrast import sgl_learner, simgcl_learner
from rec.intents import simulate
from rec.lightgcn import lightgcn_learner


class Mlp(nn.Module):
    """Two layers, one output."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(8)(x))
        return nn.Dense(1)(x)[..., 0]


def regression() -> Example:
    """Least squares with a small net: a mean over examples, one shared leaf in the batch."""
    module = Mlp()

    def loss(params, key, batch):
        residual = module.apply(params, batch["x"]) - batch["y"] + batch["offset"]
        return jnp.mean(residual**2), {"mae": jnp.mean(jnp.abs(residual))}

    learner = gradient_learner(lambda key, batch: module.init(key, batch["x"]), loss, optax.adam(1e-2))
    x = jax.random.normal(jax.random.key(1), (16, 3))
    batch = {"x": x, "y": x[:, 0] ** 2, "offset": jnp.float32(0.1)}
    return Example(learner, batch, {"x": 0, "y": 0, "offset": None})


def recommender(learner: Callable[..., LearnerLike], **settings) -> Example:
    """A recommender which draws its own triples from a small simulated graph."""
    data, _ = simulate(0, users=40, items=30)
    return Example(learner(dim=8, batch_size=32, **settings), RecData.build(data), None)


def self_distillation(objective: jepa.Objective, decay: float | None = None) -> Example:
    """A deep linear encoder on population moments, which all replicas share."""
    features = jepa.Features(jnp.array([1.0, 0.5]), jnp.array([0.9, 0.4]))
    model = jepa.DeepLinear(2, 2, reconstructs=objective == "MAE")
    start, tx = jepa.orthogonal(model, 0.3), optax.sgd(0.1)
    if decay is not None:
        return Example(jepa.ema_target_learner(model, tx, decay, start), features.moments(), None)
    return Example(jepa.learner(objective, model, tx, start), features.moments(), None)


EXAMPLES: Mapping[str, Callable[[], Example]] = {
    "regression": regression,
    "jepa": partial(self_distillation, "JEPA"),
    "jepa_averaged_target": partial(self_distillation, "JEPA", 0.9),
    "mae": partial(self_distillation, "MAE"),
    "lightgcn": partial(recommender, lightgcn_learner, layers=2),
    "sgl": partial(recommender, sgl_learner, layers=2),
    "simgcl": partial(recommender, simgcl_learner, layers=2),
    "dgcf": partial(recommender, dgcf_learner, layers=1),
    "dccf": partial(recommender, dccf_learner, layers=2, intents=4),
}
