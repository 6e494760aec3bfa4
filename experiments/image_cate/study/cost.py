"""What the cost of ``image_cate`` grows with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import image_cate as ic
from causal import treatment_effects as te
from core.bench import first_call
from experiments.image_cate.config import Config
from experiments.image_cate.study.worlds import Pictures, cluster_model
from experiments.lab import Context

REPEATS = 7


def cost(config: Config, context: Context, pictures: Pictures) -> None:
    """Seconds of a step by batch size and draws, of RATE by units and draws, and memory of transport by images."""
    at = context.at(dataset="cost", seed=0, part="cost")
    for draws, images in ((1, 32), (4, 32), (8, 32), (1, 64), (1, 128)):
        seconds = step_seconds(config, pictures, draws, images)
        at.record("seconds", seconds, method="a step", draws=draws, images=images)
    for draws, n in ((200, 2_000), (400, 2_000), (200, 8_000)):
        at.record("seconds", rate_seconds(draws, n), method="RATE", draws=draws, n=n)
    for n in (4_096, 32_768):
        at.record("bytes beside input and output", transport_bytes(n), method="transport", n=n)


def least_seconds(call: Callable[..., Any], *args: Any) -> float:
    """Of several calls, compilation apart."""
    compiled = jax.jit(call).lower(*args).compile()
    return min(first_call(lambda: compiled(*args)) for _ in range(REPEATS))


def step_seconds(config: Config, pictures: Pictures, draws: int, images: int) -> float:
    """Of an update, without drawing the batch."""
    model = ic.ClusterModel(cluster_model(config).network, draws=draws)
    t = jnp.asarray(np.tile([[0.0, 1.0]], (images, 1)))
    x = pictures.x[np.arange(images) % len(pictures.x)].astype(jnp.float32)
    learner, data = model.learner(optax.nadam(1e-3)), ic.Training(te.Units(x, t, t + 0.1, jnp.ones_like(t)))
    return least_seconds(learner.update, learner.init(jax.random.key(0), data), data)


def rate_seconds(draws: int, n: int) -> float:
    """Of AUTOC and Qini with their errors."""
    key, (priority, scores) = jax.random.key(0), jax.random.normal(jax.random.key(0), (2, n))
    return least_seconds(lambda k, p, s: te.rate_estimate(k, p, s, te.Clusters.single(n), draws), key, priority, scores)


def transport_bytes(n: int) -> float:
    """Temporary memory of transport over n images."""
    one = jnp.ones(2)
    posterior = ic.Posterior(jnp.arange(2), one, one, one, one)
    program = jax.jit(lambda p: ic.transport(p, posterior, chunk=1024))
    compiled = program.lower(jax.ShapeDtypeStruct((4, n, 2), jnp.float32)).compile()
    return float(getattr(compiled.memory_analysis(), "temp_size_in_bytes"))  # noqa: B009
