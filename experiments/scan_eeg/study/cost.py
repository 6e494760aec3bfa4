"""What training costs: a model alone and in a pool, and SCAN on a new label."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.bench import first_call
from core.learner import LearnerLike, with_sampler
from core.loop import runs_at_once, scan_steps
from experiments.lab import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.pool import network
from latent import scan_eeg as eeg


def cost(config: Config, context: Context) -> None:
    """Seconds per model and step alone and in a pool, and seconds of teaching SCAN a new label on a frozen encoder."""
    pools = {"one after another": 1, "one program": config.cost_models}
    calls = {method: (pool(config, models), models * config.cost_steps) for method, models in pools.items()}
    teach = new_label(config)
    for repeat in range(config.cost_repeats):
        at = context.at(dataset="cost", seed=repeat, part="cost")
        for method, (call, times) in calls.items():
            at.record("seconds per model and step", first_call(call) / times, method=method)
        at.record("seconds for a new label", first_call(teach), method="SCAN")


def compiled(learner: LearnerLike, data: Any, steps: int) -> Callable[[], Any]:
    """Some steps from the start."""
    state = learner.init(jax.random.key(0), data)
    return functools.partial(jax.jit(scan_steps(learner, steps).update).lower(state, data).compile(), state, data)


def pool(config: Config, models: int) -> Callable[[], Any]:
    """Some steps of a pool of models."""
    people = eeg.clean_erps(eeg.draw_people(jax.random.key(0), config.train))
    runs = eeg.pool(people[None], jnp.zeros(models, jnp.int32), jnp.full(models, 8.0))
    learner = eeg.pool_learner(network(config), optax.adam(1e-3), config.batch_size, models, runs_at_once())
    return compiled(learner, runs, config.cost_steps)


def new_label(config: Config) -> Callable[[], Any]:
    """Training SCAN on a label that the frozen encoder never saw."""
    noise = np.asarray(jax.random.normal(jax.random.key(0), (config.train, config.latents)))
    labels = jnp.asarray(noise[:, :1] > 0, jnp.int32)
    data = eeg.Grounded(eeg.Gaussian(jnp.asarray(noise), jnp.full(noise.shape, -2.0)), labels)
    learner = eeg.scan_learner(eeg.SymbolVae(2, config.latents), optax.adam(config.scan_rate))
    return compiled(with_sampler(learner, epoch_sampler(config.scan_batch)), data, config.scan_steps)
