"""Representations of brain potentials: what a beta-VAE, chosen by UDR and named by SCAN, says of people.

Paper: Honke, Higgins, Thigpen, Miskovic, Link, Duan, Gupta, Klawohn, Hajcak, Representation learning for improved
interpretability and classification accuracy of clinical factors from EEG, 2020, arXiv 2010.15274.
Claim: one unsupervised representation of event-related potentials serves many clinical labels, better than the
canonical late positive potential (LPP); single latents carry labels; ERPs are read off single trials.
Command: ``relic run scan_eeg --preset small --seeds 3``.
Cost: smoke about two minutes of CPU time, most of it compilation; small about fifteen; paper is for an accelerator.
Public recordings are used where they are found.
Expect: age, sex and anxiety, which the LPP cannot tell, are told by ten latents at 0.91, 0.72 and 0.81, and depression
as well as by the LPP (0.81); PCA and an autoencoder do as well, but their components are no factors.

All seeds of the simulated part are trained as one program, so that they are one cell.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.bench import first_call
from core.learner import with_sampler
from core.loop import runs_at_once, scan_steps
from experiments.lab.system import Context, System
from experiments.scan_eeg.claims import CLAIMS, STATISTICS
from experiments.scan_eeg.config import PRESETS, Config
from experiments.scan_eeg.figures import COLOURS, figures, tables
from experiments.scan_eeg.study import real
from experiments.scan_eeg.study.classification import classification
from experiments.scan_eeg.study.concepts import concepts
from experiments.scan_eeg.study.denoising import denoising
from experiments.scan_eeg.study.selection import disentanglement
from experiments.scan_eeg.study.worlds import network, simulate, train_pool
from latent import scan_eeg as eeg


def run(config: Config, context: Context) -> None:
    """The planted people of all seeds, real recordings where there are some, and what training costs."""
    seeds = ",".join(map(str, context.seeds))
    recorded = real.parts(context) if config.real else {}
    context.cells([{"stage": "simulated", "seeds": seeds}, *({"stage": name} for name in (*recorded, "cost"))])
    if not context.done(stage="simulated", seeds=seeds):
        context.say("scan_eeg: simulated people")
        planted(config, context)
        context.finish(stage="simulated", seeds=seeds)
    for name, part in recorded.items():
        if not context.done(stage=name):
            context.say(f"scan_eeg: {name}")
            part(config, context)
            context.finish(stage=name)
    if not context.done(stage="cost"):
        context.say("scan_eeg: cost")
        cost(config, context)
        context.finish(stage="cost")


def planted(config: Config, context: Context) -> None:
    """Everything on the generator."""
    worlds = simulate(config, context.seeds)
    pool = train_pool(config, context, worlds)
    accuracies = classification(config, context, worlds, pool)
    disentanglement(config, context, worlds, pool, accuracies)
    denoising(config, context, worlds, pool)
    concepts(config, context, worlds, pool)


def cost(config: Config, context: Context) -> None:
    """Seconds per model and step alone and in a pool, and seconds of teaching SCAN a new label on a frozen encoder."""
    alone, together = (training_seconds(config, models) for models in (1, config.cost_models))
    teach = new_label(config)
    for repeat in range(config.cost_repeats):
        per_step = first_call(alone) / config.cost_steps, first_call(together) / config.cost_steps / config.cost_models
        for method, value in zip(("one after another", "one program"), per_step, strict=True):
            context.record(dataset="cost", method=method, metric="seconds per model and step", seed=repeat, value=value,
                           part="cost")  # fmt: skip
        start = time.perf_counter()
        jax.block_until_ready(teach())
        context.record(dataset="cost", method="SCAN", metric="seconds for a new label", seed=repeat, part="cost",
                       value=time.perf_counter() - start)  # fmt: skip


def training_seconds(config: Config, models: int):
    """A compiled call of some steps of a pool of models."""
    people = eeg.clean_erps(eeg.draw_people(jax.random.key(0), config.train))
    grid = eeg.Grid(people[None], jnp.zeros(models, jnp.int32), jnp.full(models, 8.0), jnp.ones(models))
    learner = eeg.grid_learner(network(config), optax.adam(1e-3), config.batch_size, models, runs_at_once())
    state = learner.init(jax.random.key(0), grid)
    compiled = jax.jit(scan_steps(learner, config.cost_steps).update).lower(state, grid).compile()
    return functools.partial(compiled, state, grid)


def new_label(config: Config):
    """A compiled call which trains SCAN on a label that the frozen encoder never saw."""
    key = jax.random.key(0)
    noise = np.asarray(jax.random.normal(key, (config.train, config.latents)))
    labels = jnp.asarray(noise[:, :1] > 0, jnp.int32)
    data = eeg.Grounded(eeg.Gaussian(jnp.asarray(noise), jnp.full(noise.shape, -2.0)), labels)
    learner = eeg.scan_learner(eeg.SymbolVae(2, config.latents), optax.adam(config.scan_rate))
    sampled = with_sampler(learner, epoch_sampler(config.scan_batch))
    state = sampled.init(key, data)
    compiled = jax.jit(scan_steps(sampled, config.scan_steps).update).lower(state, data).compile()
    return functools.partial(compiled, state, data)


SYSTEM = System(
    slug="scan_eeg",
    title="Representation learning for improved interpretability and classification accuracy of clinical "
    "factors from EEG",
    line="disentangled representations of event-related potentials, and clinical concepts in them",
    family="latent",
    paper="Honke et al., 2020, arXiv 2010.15274",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=(*eeg.LABELS, "balanced accuracy"),
    baseline="LPP difference + LR",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("erp_uci_subject_means", "erp_smni_train", "erp_impulsivity"),
)
