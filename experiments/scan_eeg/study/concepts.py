"""SCAN on the planted people of ``scan_eeg``: its classes, markers, prototypes and recombinations."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.fit import fit
from core.learner import Params, replicate_seeds, stream, with_sampler
from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.recombination import recombinations
from experiments.scan_eeg.study.worlds import DATASET, DISTINCT, Pool, Worlds, correlations, curve, one
from latent import scan_eeg as eeg
from latent.scan_eeg import FACTORS, LABELS

CARRIERS = {"age": "N1 latency", "sex": "N1 amplitude", "anxiety": "P2 amplitude", "depression": "LPP amplitude"}
"""The factor through which each label shows."""
Encode = Callable[[jax.Array], eeg.Gaussian]


class Place(NamedTuple):
    """A model of the pool: its seed, the number of the seed, and its own number."""

    seed: int
    world: int
    model: int


def train_scans(config: Config, context: Context, worlds: Worlds, pool: Pool) -> tuple[eeg.SymbolVae, Params]:
    """A SCAN for every model of the pool, as one program."""
    scan = eeg.SymbolVae(2 * len(LABELS), config.latents)
    learner = eeg.scan_learner(scan, optax.adam(config.scan_rate), beta_y=config.beta_y, lam=config.lam)
    many = replicate_seeds(with_sampler(learner, epoch_sampler(config.scan_batch)), len(pool.beta), 0)
    data = eeg.Grounded(pool.posterior, worlds.train.labels[pool.world])
    state = fit(
        many, data, key=stream(jax.random.key(context.seeds[0]), "SCANs"), steps=config.scan_steps, chunk=200,
        workdir=context.workdir / "scan", progress=context.progress("SCANs"),
    ).state  # fmt: skip
    return scan, state.params


def concepts(config: Config, context: Context, worlds: Worlds, pool: Pool) -> None:
    """What SCAN classifies, which latents it takes for markers, prototypes, and recombinations."""
    scan, params = train_scans(config, context, worlds, pool)
    encode = jax.jit(lambda p, y: scan.apply(p, y, method="encode"))
    decode = jax.jit(lambda p, z: scan.apply(p, z, method="decode"))
    for w, seed in enumerate(context.seeds):
        for i in pool.of(w):
            strength = np.asarray(eeg.marker_strength(functools.partial(encode, one(params, i)), len(LABELS)))
            markers(context, pool, worlds, Place(seed, w, i), strength)
            if w == 0 and pool.member[i] == 0:
                latents(context, pool, worlds, Place(seed, w, i), strength)
        named = [
            accuracies(functools.partial(decode, one(params, i)), pool.test.mean[i], worlds.test.labels[w])
            for i in pool.of(w, config.reference_beta)
        ]
        for label, value in zip(LABELS, np.mean(named, axis=0), strict=True):
            context.record(dataset=DATASET, method="SCAN", metric=label, seed=seed, value=float(value))
    shown = pool.of(0, config.reference_beta)[0]
    pictures(context, pool, Place(context.seeds[0], 0, shown), functools.partial(encode, one(params, shown)))
    recombinations(config, context, worlds, pool, scan, params)


def accuracies(decode: Callable[[jax.Array], jax.Array], means: jax.Array, labels: jax.Array) -> np.ndarray:
    """Balanced accuracy of every label by the symbols that SCAN decodes."""
    guess = (eeg.classify(decode, means) > 0).astype(jnp.int32)
    return np.asarray(jax.vmap(eeg.balanced_accuracy, in_axes=(1, 1, None))(labels, guess, 2))


def markers(context: Context, pool: Pool, worlds: Worlds, at: Place, strength: np.ndarray) -> None:
    """Whether the latent that naming a label moves most is the one which carries its planted factor."""
    active = pool.kl[at.model] > DISTINCT
    correlation = np.abs(np.asarray(correlations(pool.test.mean[at.model], worlds.test.factors[at.world])))
    place = {"part": "markers", "beta": float(pool.beta[at.model]), "member": int(pool.member[at.model])}

    def note(metric: str, value: float) -> None:
        context.record(dataset=DATASET, method="SCAN", metric=metric, seed=at.seed, value=value, **place)

    for label, factor in CARRIERS.items():
        moved = np.where(active, strength[LABELS.index(label)], -1)
        carrier = int(np.argmax(np.where(active, correlation[:, FACTORS.index(factor)], -1)))
        note(f"marker is carrier: {label}", float(np.argmax(moved) == carrier))
        note(f"carrier in top two: {label}", float(carrier in np.argsort(-moved)[:2]))
    note("largest difference: random", float(np.where(active, strength[LABELS.index("random")], 0).max()))


def latents(context: Context, pool: Pool, worlds: Worlds, at: Place, strength: np.ndarray) -> None:
    """Divergence, correlations with factors and marker strengths of every latent of a model."""
    signed = np.asarray(correlations(pool.test.mean[at.model], worlds.test.factors[at.world]))
    for latent, kl in enumerate(pool.kl[at.model]):

        def note(method: str, metric: str, value: float, latent=latent, **name: str) -> None:
            context.record(dataset=DATASET, method=method, metric=metric, seed=at.seed, value=float(value),
                           part="latents", beta=float(pool.beta[at.model]), latent=latent, **name)  # fmt: skip

        note("beta-VAE", "latent KL", kl)
        for factor, value in zip(FACTORS, signed[latent], strict=True):
            note("beta-VAE", "correlation", value, factor=factor)
        for label, value in zip(LABELS, strength[:, latent], strict=True):
            note("SCAN", "marker strength", value, label=label)


def pictures(context: Context, pool: Pool, at: Place, encode: Encode) -> None:
    """Traversals of the most informative latents, and the prototype ERP of each symbol, of one model."""
    decode = pool.decoder(at.model)
    mean, values = pool.posterior.mean[at.model].mean(0), jnp.linspace(-2.0, 2.0, 5)
    for latent in np.argsort(-pool.kl[at.model])[:5]:
        for value, x in zip(np.asarray(values), eeg.traversal(decode, mean, int(latent), values), strict=True):
            curve(context, "traversal", "beta-VAE", x, at.seed, latent=int(latent), at=float(value))
    prototypes = decode(encode(eeg.single_symbols(len(LABELS)).reshape(2 * len(LABELS), -1)).mean)
    for (label, value), x in zip(itertools.product(LABELS, (0, 1)), prototypes, strict=True):
        curve(context, "prototype", "SCAN", x, at.seed, label=label, at=float(value))
