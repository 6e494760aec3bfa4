"""Every learner of the project at small size: what tests/core/test_every_learner.py runs on."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from core.learner import gradient_learner
from experiments.system import Example


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
    return Example(learner, {"x": x, "y": x[:, 0] ** 2, "offset": jnp.float32(0.1)}, {"x": 0, "y": 0, "offset": None})


EXAMPLES: dict[str, Callable[[], Example]] = {"regression": regression}
