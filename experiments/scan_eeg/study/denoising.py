"""ERPs of the planted people of ``scan_eeg`` from single trials."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from core.fit import fit
from core.learner import Params, replicate_seeds, stream, with_sampler
from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study import baselines
from experiments.scan_eeg.study.worlds import DATASET, Pool, Worlds, curve, network, one, optimiser, reconstructed
from latent import scan_eeg as eeg


def denoising(config: Config, context: Context, worlds: Worlds, pool: Pool) -> None:
    """Correlations with the clean ERP before and after, whole and less the grand mean."""
    trained = train_denoisers(config, context, worlds)
    for w, seed in enumerate(context.seeds):
        index = pool.of(w, config.reference_beta)[0]
        test, grand = one(worlds.test, w), worlds.train.erp[w].mean(0)
        flat = np.asarray(worlds.train.erp[w]).reshape(config.train, -1)
        methods = {
            "none": lambda x: x,
            "PCA-10": lambda x, flat=flat: jnp.asarray(
                baselines.pca_projection(flat, np.asarray(x).reshape(len(x), -1)).reshape(x.shape)
            ),
            "beta-VAE": functools.partial(reconstructed, pool.vae, one(pool.params, index)),
            "beta-VAE, few trials to ERP": functools.partial(reconstructed, pool.vae, one(trained, w)),
        }
        for (source, x), (method, fn) in itertools.product(
            {"single trial": test.single[:, 0], "ERP": test.erp}.items(), methods.items()
        ):
            y = fn(x)
            for form, value in (
                ("whole", _waveform_correlation(y, test.clean)),
                ("less grand mean", _waveform_correlation(y - grand, test.clean - grand)),
            ):
                context.record(
                    dataset=DATASET, method=method, metric="correlation with clean", seed=seed,
                    value=float(value.mean()), part="denoising", source=source, form=form,
                )  # fmt: skip
            if w == 0 and source == "single trial":
                curve(context, "waveform", method, y[0], seed)
        if w == 0:
            curve(context, "waveform", "clean", test.clean[0], seed)


def train_denoisers(config: Config, context: Context, worlds: Worlds) -> Params:
    """One per seed: averages of few trials in, of all trials out."""
    seeds = worlds.train.erp.shape[0]
    learner = eeg.vae_learner(network(config), optimiser(config, config.steps))
    learner = with_sampler(learner, eeg.bootstrap_sampler(config.batch_size), eeg.BATCH_AXES)
    data = eeg.Trials(worlds.train.single, worlds.train.erp, jnp.full(seeds, config.reference_beta))
    return fit(
        replicate_seeds(learner, seeds, 0), data, key=stream(jax.random.key(context.seeds[0]), "denoisers"),
        steps=config.steps, chunk=20, workdir=context.workdir / "denoisers", progress=context.progress("denoisers"),
    ).state.params  # fmt: skip


_waveform_correlation = jax.jit(eeg.waveform_correlation)
