"""What many encoders cost as one program, beside one."""

import functools
import time

import jax
import numpy as np
import optax

from causal import rep4ex as rep
from core.bench import first_call
from core.loop import scan_steps
from experiments.lab import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.training import coder


def cost(config: Config, context: Context) -> None:
    """Seconds of some steps of one run, and of all seeds x strengths x two lambdas as one vmapped scan."""
    worlds = config.cost_seeds * config.cost_strengths
    programs = (("one run", 1, compiled(config, 1, 1)), ("one program", 2 * worlds, compiled(config, worlds, 2)))
    for repeat in range(config.cost_repeats):
        for method, runs, call in programs:
            start = time.process_time()
            taken = {"seconds": first_call(call), "CPU seconds": time.process_time() - start}
            at = context.at(dataset="cost", method=method, seed=repeat, part="cost", runs=runs)
            at.record_all({metric: value / config.cost_steps for metric, value in taken.items()})


def compiled(config: Config, worlds: int, lambdas: int):
    """A compiled call of some steps of a pool of runs, all vmapped."""
    drawn = [rep.gen1(seed, config.rows, rep.Design(m=config.observed))[1] for seed in range(worlds)]
    run = np.arange(worlds * lambdas)
    rows = [rep.standardise(sample.x, sample.a) for sample in drawn]
    pool = rep.pool(rows, run % worlds, np.where(run < worlds, config.lam, 0.0))
    learner = rep.pool_learner(rep.representation_learner(coder(config), optax.adam(1e-3)), len(run), config.batch)
    state = jax.jit(learner.init)(jax.random.key(0), pool)
    update = jax.jit(scan_steps(learner, config.cost_steps).update).lower(state, pool).compile()
    return functools.partial(update, state, pool)
