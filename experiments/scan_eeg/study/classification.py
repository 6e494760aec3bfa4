"""What is told of the planted people of ``scan_eeg`` by features of others, by the pool and by supervised networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.batches import epoch_sampler
from core.fit import fit
from core.learner import replicate_seeds, stream, with_sampler
from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study import baselines
from experiments.scan_eeg.study.worlds import DATASET, Pool, World, Worlds, optimiser
from latent import scan_eeg as eeg
from latent.scan_eeg import LABELS


def label_accuracies(classifier: str, train, test, worlds: Worlds, w: int) -> dict[str, float]:
    """Balanced accuracy of every label from features."""
    labels, test_labels = np.asarray(worlds.train.labels[w]), np.asarray(worlds.test.labels[w])
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    return {
        name: baselines.accuracy(classifier, train, labels[:, i], test, test_labels[:, i])
        for i, name in enumerate(LABELS)
    }


def hand_made(worlds: Worlds, w: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of the baselines by name."""
    x, y = worlds.train.erp[w], worlds.test.erp[w]
    flat, test = (np.asarray(part.reshape(part.shape[0], -1), np.float64) for part in (x, y))
    made = {
        "LPP difference": eeg.lpp_difference,
        "LPP means": lambda part: eeg.window_means(part, 400, 772),
        "components": eeg.components,
    }
    features = {name: (np.asarray(fn(x)), np.asarray(fn(y))) for name, fn in made.items()}
    return features | {"PCA-10": baselines.pca(flat, test), "ICA-10": baselines.ica(flat, test), "raw": (flat, test)}


def classification(config: Config, context: Context, worlds: Worlds, pool: Pool) -> np.ndarray:
    """The main table; returns every model's accuracies with logistic regression, [models, labels]."""
    found = np.zeros((len(pool.beta), len(LABELS)))
    for w, seed in enumerate(context.seeds):
        context.say(f"scan_eeg: classifiers, seed {seed}")

        def note(method: str, values: dict[str, float], seed=seed) -> None:
            for label, value in values.items():
                context.record(dataset=DATASET, method=method, metric=label, seed=seed, value=value)

        for name, (train, test) in hand_made(worlds, w).items():
            note(f"{name} + LR", label_accuracies("LR", train, test, worlds, w))
        for i in np.flatnonzero(pool.world == w):
            values = label_accuracies("LR", pool.posterior.mean[i], pool.test.mean[i], worlds, w)
            found[i] = [values[label] for label in LABELS]
            if pool.beta[i] == 0:
                note("autoencoder + LR", values)
        chosen = pool.of(w, config.reference_beta)
        note("beta-VAE + LR", dict(zip(LABELS, found[chosen].mean(0), strict=True)))
        for classifier in [name for name in baselines.CLASSIFIERS if name != "LR"]:
            train, test = pool.posterior.mean[chosen[0]], pool.test.mean[chosen[0]]
            note(f"beta-VAE + {classifier}", label_accuracies(classifier, train, test, worlds, w))
    for seed, values in zip(context.seeds, supervised(config, context, worlds), strict=True):
        for label, value in zip(LABELS, values, strict=True):
            context.record(dataset=DATASET, method="supervised network", metric=label, seed=seed, value=float(value))
    return found


def supervised(config: Config, context: Context, worlds: Worlds) -> np.ndarray:
    """[seeds, labels]: balanced accuracies of the encoder's network trained on the labels."""
    module = eeg.Encoder(len(LABELS), config.features, config.hidden)
    seeds = worlds.train.erp.shape[0]
    learner = eeg.supervised_learner(module, optimiser(config, config.supervised_steps))
    learner = with_sampler(learner, epoch_sampler(config.batch_size))
    data = eeg.Labelled(worlds.train.erp, worlds.train.labels, jax.vmap(eeg.balanced_weight)(worlds.train.labels))
    state = fit(
        replicate_seeds(learner, seeds, 0), data, key=stream(jax.random.key(context.seeds[0]), "classifiers"),
        steps=config.supervised_steps, chunk=20, workdir=context.workdir / "supervised",
        progress=context.progress("supervised networks"),
    ).state  # fmt: skip

    @jax.jit
    @jax.vmap
    def accuracies(params, test: World):
        logits: Any = module.apply(params, test.erp)
        guess = (logits > 0).astype(jnp.int32)
        return jax.vmap(eeg.balanced_accuracy, in_axes=(1, 1, None))(test.labels, guess, 2)

    return np.asarray(accuracies(state.params, worlds.test))
