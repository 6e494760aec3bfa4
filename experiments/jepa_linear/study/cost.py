"""What many configurations of ``jepa_linear`` cost as one program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from experiments.lab.system import Context
from latent.jepa_linear import DeepLinear, Features, aligned, encoder_norms, learner, record

WIDTH, DEPTH, CONFIGURATIONS, DT = 8, 3, 1_000, 0.02


class Configurations(NamedTuple):
    """Starts and features, one of each for every run."""

    eps: np.ndarray
    lam: np.ndarray
    rho: np.ndarray


def configurations() -> Configurations:
    """The same for every comparison."""
    rng = np.random.default_rng(0)
    eps = rng.uniform(0.05, 0.2, CONFIGURATIONS)
    lam, rho = rng.uniform(0.3, 1.5, (CONFIGURATIONS, WIDTH)), rng.uniform(0.2, 0.95, (CONFIGURATIONS, WIDTH))
    return Configurations(eps, lam, rho)


def compiled(runs: Configurations, steps: int) -> Callable[[], Any]:
    """A compiled call that descends JEPA's loss from aligned starts, all runs at once, and keeps ten rows of each."""
    model = DeepLinear(WIDTH, DEPTH)

    def single(eps, lam, rho):
        moments = Features(lam, rho).moments()
        gd = learner("JEPA", model, optax.sgd(DT), aligned(model, eps))
        start = gd.init(jax.random.key(0), moments)
        return record(gd, encoder_norms(model), steps, steps // 10)(start, moments)[1]

    arguments = [jnp.asarray(column, jnp.float32) for column in runs]
    program = jax.jit(jax.vmap(single)).lower(*arguments).compile()
    return lambda: program(*arguments)


def cost(context: Context, steps: int) -> None:
    """Seconds of one call."""
    place = {"part": "cost", "steps": steps, "configurations": CONFIGURATIONS}
    seconds = first_call(compiled(configurations(), steps))
    context.record(dataset="cost", method="JEPA", metric="seconds", seed=0, value=seconds, **place)
