"""What the cost of ``image_cate`` grows with."""

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
from experiments.lab.system import Context

REPEATS = 7


def cost(config: Config, context: Context, pictures: Pictures) -> None:
    """Seconds of a step by batch size and draws, of RATE by units and draws, and memory of transport by images."""
    for draws, images in ((1, 32), (4, 32), (8, 32), (1, 64), (1, 128)):
        seconds = step_seconds(config, pictures, draws, images)
        note(context, "a step", "seconds", seconds, draws=draws, images=images)
    for draws, n in ((200, 2_000), (400, 2_000), (200, 8_000)):
        note(context, "RATE", "seconds", rate_seconds(draws, n), draws=draws, n=n)
    for n in (4_096, 32_768):
        note(context, "transport", "bytes beside input and output", transport_bytes(n), n=n)


def note(context: Context, method: str, metric: str, value: float, **place: Any) -> None:
    """A record."""
    context.record(dataset="cost", method=method, metric=metric, seed=0, value=value, part="cost", **place)


def step_seconds(config: Config, pictures: Pictures, draws: int, images: int) -> float:
    """Least seconds of an update, without drawing the batch."""
    model = ic.ClusterModel(cluster_model(config).network, draws=draws)
    chosen = np.arange(images) % len(pictures.x)
    t = jnp.asarray(np.tile([[0.0, 1.0]], (images, 1)))
    units = te.Units(pictures.x[chosen].astype(jnp.float32), t, t + 0.1, jnp.ones_like(t))
    learner, data = model.learner(optax.nadam(1e-3)), ic.Training(units)
    state = learner.init(jax.random.key(0), data)
    update = jax.jit(learner.update).lower(state, data).compile()
    return min(first_call(lambda: update(state, data)) for _ in range(REPEATS))


def rate_seconds(draws: int, n: int) -> float:
    """Least seconds of AUTOC and Qini with their errors."""
    priority, scores = jax.random.normal(jax.random.key(0), (2, n))
    one = jax.jit(lambda key, a, b: te.rate_estimate(key, a, b, te.Clusters.single(n), draws))
    compiled = one.lower(jax.random.key(0), priority, scores).compile()
    return min(first_call(lambda: compiled(jax.random.key(0), priority, scores)) for _ in range(REPEATS))


def transport_bytes(n: int) -> float:
    """Temporary memory of transport over n images."""
    p = jax.ShapeDtypeStruct((4, n, 2), jnp.float32)
    vector = jnp.ones(2)
    posterior = ic.Posterior(jnp.arange(2), vector, vector, vector, vector)
    analysis: Any = jax.jit(lambda p: ic.transport(p, posterior, chunk=1024)).lower(p).compile().memory_analysis()
    return float(analysis.temp_size_in_bytes)
