"""What many encoders cost as one program, beside one."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import rep4ex as rep
from core.bench import first_call
from core.loop import scan_steps
from experiments.lab.system import Context
from experiments.rep4ex.config import Config


def cost(config: Config, context: Context) -> None:
    """Seconds of some steps of one run, and of all seeds x strengths x two lambdas as one vmapped scan."""
    runs = config.cost_seeds * config.cost_strengths * 2
    alone, together = compiled(config, 1, 1), compiled(config, config.cost_seeds * config.cost_strengths, 2)
    for repeat in range(config.cost_repeats):
        for count, call in ((1, alone), (runs, together)):
            start = time.process_time()
            wall = first_call(call)
            for metric, value in (("seconds", wall), ("CPU seconds", time.process_time() - start)):
                context.record(
                    dataset="cost", method="one run" if count == 1 else "one program", metric=metric, seed=repeat,
                    value=value / config.cost_steps, part="cost", runs=count,
                )  # fmt: skip


def compiled(config: Config, worlds: int, lambdas: int):
    """A compiled call of some steps of a pool of runs, all vmapped."""
    drawn = [rep.gen1(seed, config.rows, rep.Design(m=config.observed))[1] for seed in range(worlds)]
    rows = [rep.standardise(sample.x, sample.a) for sample in drawn]
    runs = worlds * lambdas
    pool = rep.Pool(
        jnp.stack([each.x for each in rows]), jnp.stack([each.a for each in rows]),
        jnp.asarray([each.bandwidth for each in rows], jnp.float32), jnp.asarray(np.arange(runs) % worlds),
        jnp.asarray(np.where(np.arange(runs) < worlds, config.lam, 0.0), jnp.float32),
    )  # fmt: skip
    single = rep.representation_learner(rep.Autoencoder(2, config.observed, config.hidden), optax.adam(1e-3))
    learner = rep.pool_learner(single, runs, config.batch)
    state = jax.jit(learner.init)(jax.random.key(0), pool)
    update = jax.jit(scan_steps(learner, config.cost_steps).update).lower(state, pool).compile()
    return functools.partial(update, state, pool)
