"""What many configurations of ``jepa_linear`` cost as one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from experiments.jepa_linear.config import Config
from experiments.lab import Context
from latent import jepa_linear as jepa

WIDTH, DEPTH, CONFIGURATIONS, DT = 8, 3, 1_000, 0.02


def configurations() -> tuple[np.ndarray, ...]:
    """Start, lambda and rho of every run; the same for every comparison."""
    rng = np.random.default_rng(0)
    eps = rng.uniform(0.05, 0.2, CONFIGURATIONS)
    return eps, rng.uniform(0.3, 1.5, (CONFIGURATIONS, WIDTH)), rng.uniform(0.2, 0.95, (CONFIGURATIONS, WIDTH))


def compiled(runs: tuple[np.ndarray, ...], steps: int) -> Callable[[], Any]:
    """A compiled call that descends JEPA's loss from aligned starts, all runs at once, and keeps ten rows of each."""
    model = jepa.DeepLinear(WIDTH, DEPTH)

    def single(eps, lam, rho):
        moments = jepa.Features(lam, rho).moments()
        gd = jepa.learner("JEPA", model, optax.sgd(DT), jepa.aligned(model, eps))
        start = gd.init(jax.random.key(0), moments)
        return jepa.record(gd, jepa.encoder_norms(model), steps, steps // 10)(start, moments)[1]

    arguments = [jnp.asarray(column, jnp.float32) for column in runs]
    program = jax.jit(jax.vmap(single)).lower(*arguments).compile()
    return lambda: program(*arguments)


def cost(config: Config, context: Context) -> None:
    """Seconds of one call."""
    place = {"part": "cost", "steps": config.cost_steps, "configurations": CONFIGURATIONS}
    seconds = first_call(compiled(configurations(), config.cost_steps))
    context.at(dataset="cost", method="JEPA", seed=0, **place).record("seconds", seconds)
