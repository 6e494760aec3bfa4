"""What is told of the planted people, how disentangled the models are, and ERPs from single trials."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.batches import epoch_sampler
from core.learner import with_sampler
from experiments.lab import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.concepts import concepts
from experiments.scan_eeg.study.pool import (
    DATASET,
    DISTINCT,
    Pool,
    curve,
    network,
    one,
    optimiser,
    reconstructed,
    simulate,
    train,
    train_pool,
)  # fmt: skip
from latent import scan_eeg as eeg
from latent.scan_eeg import FACTORS, LABELS, classifiers

PLANTED = len(LABELS) - 1
"""Labels that something depends on; the last is random."""


def planted(config: Config, context: Context) -> None:
    """Everything on the generator."""
    worlds = simulate(config, context)
    pool = train_pool(config, context, worlds)
    accuracies = classification(config, context, worlds, pool)
    disentanglement(context, worlds, pool, accuracies)
    denoising(config, context, worlds, pool)
    concepts(config, context, worlds, pool)


def classification(config: Config, context: Context, worlds: eeg.Worlds, pool: Pool) -> np.ndarray:
    """The main table; returns every model's accuracies with logistic regression, [models, labels]."""
    found = np.zeros((len(pool.beta), len(LABELS)))
    for w, seed in enumerate(context.seeds):
        context.say(f"scan_eeg: classifiers, seed {seed}")
        labels, test_labels = (np.asarray(part.labels[w]).T for part in worlds)

        def told(classifier: str, train, test, of=labels, truth=test_labels) -> list[float]:
            rows = [np.asarray(x, np.float64) for x in (train, test)]
            return [classifiers.accuracy(classifier, rows[0], of[i], rows[1], truth[i]) for i in range(len(LABELS))]

        def note(method: str, values: Any, seed=seed) -> None:
            context.at(dataset=DATASET, method=method, seed=seed).record_all(dict(zip(LABELS, values, strict=True)))

        for name, features in classifiers.hand_made(worlds.train.erp[w], worlds.test.erp[w]).items():
            note(f"{name} + LR", told("LR", *features))
        for i in np.flatnonzero(pool.world == w):
            found[i] = told("LR", pool.posterior.mean[i], pool.test.mean[i])
            if pool.beta[i] == 0:
                note("autoencoder + LR", found[i])
        chosen = pool.of(w, config.reference_beta)
        note("beta-VAE + LR", found[chosen].mean(0))
        for classifier in [name for name in classifiers.CLASSIFIERS if name != "LR"]:
            means = pool.posterior.mean[chosen[0]], pool.test.mean[chosen[0]]
            note(f"beta-VAE + {classifier}", told(classifier, *means))
    for seed, values in zip(context.seeds, supervised(config, context, worlds), strict=True):
        at = context.at(dataset=DATASET, method="supervised network", seed=seed)
        at.record_all(dict(zip(LABELS, values, strict=True)))
    return found


def supervised(config: Config, context: Context, worlds: eeg.Worlds) -> np.ndarray:
    """[seeds, labels]: balanced accuracies of the encoder's network trained on the labels."""
    module = eeg.Encoder(len(LABELS), config.features, config.hidden)
    learner = eeg.supervised_learner(module, optimiser(config, config.supervised_steps))
    learner = with_sampler(learner, epoch_sampler(config.batch_size))
    data = eeg.Labelled(worlds.train.erp, worlds.train.labels, jax.vmap(eeg.balanced_weight)(worlds.train.labels))
    params = train(context, "classifiers", learner, data, config.supervised_steps, 20, len(context.seeds))

    @jax.jit
    @jax.vmap
    def accuracies(params, test: eeg.World):
        logits: Any = module.apply(params, test.erp)
        return jax.vmap(eeg.balanced_accuracy, in_axes=(1, 1, None))(test.labels, (logits > 0).astype(jnp.int32), 2)

    return np.asarray(accuracies(params, worlds.test))


def disentanglement(context: Context, worlds: eeg.Worlds, pool: Pool, found: np.ndarray) -> None:
    """Active latents, single latents, correlations and UDR of every model, and which one UDR selects."""
    for w, seed in enumerate(context.seeds):
        models = pool.of(w)
        scores = {
            kind: np.asarray(_udr(pool.posterior.mean[models], jnp.asarray(pool.kl[models]), kind).scores)
            for kind in ("lasso", "spearman")
        }
        for place, i in enumerate(models):
            active = pool.kl[i] > DISTINCT
            strongest = np.where(active[:, None], np.abs(pool.correlations(worlds, i)), 0).max(0)
            at = context.at(dataset=DATASET, method="beta-VAE", seed=seed, part="pool", beta=float(pool.beta[i]))
            at = at.at(member=int(pool.member[i]))
            at.record_all({
                "active latents": active.sum(), "KL": pool.kl[i].sum(), "mean accuracy": found[i, :PLANTED].mean(),
                "mean largest correlation": strongest.mean(),
                **{f"UDR ({kind})": values[place] for kind, values in scores.items()},
                **{f"largest correlation: {name}": x for name, x in zip(FACTORS, strongest, strict=True)},
                **{f"accuracy: {name}": x for name, x in zip(LABELS, found[i], strict=True)},
                **{f"best latent: {name}": best_latent(pool, worlds, i, k) for k, name in enumerate(LABELS)},
            })  # fmt: skip
        selected = models[eeg.select_by_udr(scores["lasso"], pool.beta[models])]
        at = context.at(dataset=DATASET, method="beta-VAE by UDR + LR", seed=seed)
        at.record_all(dict(zip(LABELS, found[selected], strict=True)))
        gain = found[selected, :PLANTED].mean() - np.median(found[models, :PLANTED].mean(1))
        at = context.at(dataset=DATASET, method="beta-VAE by UDR", seed=seed, part="selection")
        at.record_all({"selected beta": pool.beta[selected], "selected less median accuracy": gain})


def best_latent(pool: Pool, worlds: eeg.Worlds, i: int, column: int) -> Any:
    """Balanced accuracy of a label by one latent."""
    train, test = (part.labels[pool.world[i], :, column] for part in worlds)
    return _single(pool.posterior.mean[i], train, pool.test.mean[i], test)


def denoising(config: Config, context: Context, worlds: eeg.Worlds, pool: Pool) -> None:
    """Correlations with the clean ERP before and after, whole and less the grand mean."""
    trained = train_denoisers(config, context, worlds)
    for w, seed in enumerate(context.seeds):
        index = pool.of(w, config.reference_beta)[0]
        test, grand = one(worlds.test, w), worlds.train.erp[w].mean(0)
        methods = {
            "none": lambda x: x,
            "PCA-10": lambda x, w=w: classifiers.pca_projection(np.asarray(worlds.train.erp[w]), np.asarray(x)),
            "beta-VAE": functools.partial(reconstructed, pool.vae, one(pool.params, index)),
            "beta-VAE, few trials to ERP": functools.partial(reconstructed, pool.vae, one(trained, w)),
        }
        sources = {"single trial": test.single[:, 0], "ERP": test.erp}
        for source, (method, fn) in itertools.product(sources, methods.items()):
            y = jnp.asarray(fn(sources[source]))
            at = context.at(dataset=DATASET, method=method, seed=seed, part="denoising", source=source)
            for form, mean in (("whole", 0), ("less grand mean", grand)):
                value = _waveform_correlation(y - mean, test.clean - mean)
                at.record("correlation with clean", value.mean(), form=form)
            if w == 0 and source == "single trial":
                curve(context, "waveform", method, y[0], seed)
        if w == 0:
            curve(context, "waveform", "clean", test.clean[0], seed)


def train_denoisers(config: Config, context: Context, worlds: eeg.Worlds) -> Any:
    """One per seed: averages of few trials in, of all trials out."""
    learner = eeg.vae_learner(network(config), optimiser(config, config.steps))
    learner = with_sampler(learner, eeg.bootstrap_sampler(config.batch_size), eeg.BATCH_AXES)
    seeds = len(context.seeds)
    data = eeg.Trials(worlds.train.single, worlds.train.erp, jnp.full(seeds, config.reference_beta))
    return train(context, "denoisers", learner, data, config.steps, 20, seeds)


_single = jax.jit(eeg.single_latent_accuracy)
_udr = jax.jit(eeg.udr, static_argnums=2)
_waveform_correlation = jax.jit(eeg.waveform_correlation)
