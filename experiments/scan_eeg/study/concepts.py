"""SCAN on the planted people: its classes, markers, prototypes, and concepts put together by logic."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.batches import epoch_sampler
from core.learner import Params, with_sampler
from experiments.lab import Context, Place
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.pool import DATASET, DISTINCT, Pool, curve, one, train
from latent import scan_eeg as eeg
from latent.scan_eeg import FACTORS, LABELS, OPERATORS, Gaussian

FIRST, SECOND = {"age": 1, "depression": 1}, {"depression": 1, "sex": 1}
"""The pair of concepts whose recombinations are shown as ERPs."""
Encode = Callable[[jax.Array], Any]
"""From symbols to a concept, by one SCAN."""


def concepts(config: Config, context: Context, worlds: eeg.Worlds, pool: Pool) -> None:
    """What SCAN classifies, which latents it takes for markers, prototypes, and recombinations."""
    scan = eeg.SymbolVae(2 * len(LABELS), config.latents)
    learner = eeg.scan_learner(scan, optax.adam(config.scan_rate), beta_y=config.beta_y, lam=config.lam)
    learner = with_sampler(learner, epoch_sampler(config.scan_batch))
    data = eeg.Grounded(pool.posterior, worlds.train.labels[pool.world])
    params = train(context, "SCANs", learner, data, config.scan_steps, 200, len(pool.beta))
    encode = jax.jit(lambda p, y: scan.apply(p, y, method="encode"))
    decode = jax.jit(lambda p, z: scan.apply(p, z, method="decode"))
    for w, seed in enumerate(context.seeds):
        for i in pool.of(w):
            strength = np.asarray(eeg.marker_strength(functools.partial(encode, one(params, i)), len(LABELS)))
            at = context.at(dataset=DATASET, method="SCAN", seed=seed, beta=float(pool.beta[i]))
            correlations = pool.correlations(worlds, i)
            found = eeg.markers(pool.kl[i] > DISTINCT, np.abs(correlations), strength)
            at.record_all(found, part="markers", member=int(pool.member[i]))
            if w == 0 and pool.member[i] == 0:
                latents(at.at(part="latents"), pool.kl[i], correlations, strength)
        named = [
            accuracies(functools.partial(decode, one(params, i)), pool.test.mean[i], worlds.test.labels[w])
            for i in pool.of(w, config.reference_beta)
        ]
        context.at(dataset=DATASET, method="SCAN", seed=seed).record_all(
            dict(zip(LABELS, np.mean(named, axis=0), strict=True))
        )
    shown = pool.of(0, config.reference_beta)[0]
    pictures(context, pool, shown, functools.partial(encode, one(params, shown)))
    recombinations(config, context, worlds, pool, scan, params)


def accuracies(decode: Callable[[jax.Array], jax.Array], means: jax.Array, labels: jax.Array) -> np.ndarray:
    """Balanced accuracy of every label by the symbols that SCAN decodes."""
    guess = (eeg.classify(decode, means) > 0).astype(jnp.int32)
    return np.asarray(jax.vmap(eeg.balanced_accuracy, in_axes=(1, 1, None))(labels, guess, 2))


def latents(at: Place, kl: np.ndarray, correlations: np.ndarray, strength: np.ndarray) -> None:
    """Divergence, correlations with factors and marker strengths of every latent of a model."""
    for latent, divergence in enumerate(kl):
        at.record("latent KL", divergence, method="beta-VAE", latent=latent)
        for factor, value in zip(FACTORS, correlations[latent], strict=True):
            at.record("correlation", value, method="beta-VAE", latent=latent, factor=factor)
        for label, value in zip(LABELS, strength[:, latent], strict=True):
            at.record("marker strength", value, latent=latent, label=label)


def pictures(context: Context, pool: Pool, model: int, encode: Encode) -> None:
    """Traversals of the most informative latents, and the prototype ERP of each symbol, of one model."""
    decode, seed = pool.decoder(model), context.seeds[0]
    mean, values = pool.posterior.mean[model].mean(0), jnp.linspace(-2.0, 2.0, 5)
    for latent in np.argsort(-pool.kl[model])[:5]:
        for value, x in zip(np.asarray(values), eeg.traversal(decode, mean, int(latent), values), strict=True):
            curve(context, "traversal", "beta-VAE", x, seed, latent=int(latent), at=float(value))
    prototypes = decode(encode(eeg.single_symbols(len(LABELS)).reshape(2 * len(LABELS), -1)).mean)
    for (label, value), x in zip(itertools.product(LABELS, (0, 1)), prototypes, strict=True):
        curve(context, "prototype", "SCAN", x, seed, label=label, at=float(value))


def recombinations(
    config: Config, context: Context, worlds: eeg.Worlds, pool: Pool, scan: eeg.SymbolVae, params: Params
) -> None:
    """How close the operators come to the concept that they should give; beside leaving the first as it is."""
    models = np.concatenate([pool.of(w, config.reference_beta)[:1] for w in range(len(context.seeds))])
    frozen = one(params, models)

    def encode(p, y) -> Any:
        return scan.apply(p, y, method="encode")

    learner = eeg.recombination_learner(eeg.Recombination(), encode, optax.adam(config.recombination_rate))
    draw = epoch_sampler(config.scan_batch)
    learner = with_sampler(
        learner, lambda data, key, step: eeg.Instructed(draw(data.grounded, key, step), data.scan), eeg.INSTRUCTED_AXES
    )
    grounded = one(eeg.Grounded(pool.posterior, worlds.train.labels[pool.world]), models)
    data, steps = eeg.Instructed(grounded, frozen), config.recombination_steps
    operators = train(context, "operators", learner, data, steps, 100, len(context.seeds))
    for w, seed in enumerate(context.seeds):
        p, trained, labels = one(frozen, w), one(operators, w), worlds.test.labels[w]
        decode = pool.decoder(models[w])
        named = jax.random.key(seed), functools.partial(encode, p), trained, labels
        at = context.at(dataset=DATASET, seed=seed, part="recombination")
        for (operator, method), value in eeg.recombination_divergences(*named).items():
            at.record("divergence from concept", value, method=method, operator=operator)
        for operator, name in enumerate(OPERATORS):
            shown, examples = pair(named[1], trained, np.asarray(labels), operator)
            people = worlds.test.clean[w][examples].mean(0)
            erps = {method: decode(concept.mean)[0] for method, concept in shown.items()}
            for method, x in erps.items():
                at.record("RMS from mean ERP", jnp.sqrt(jnp.mean((x - people) ** 2)), method=method, operator=name)
            for method, x in (erps | {"people": people}).items() if w == 0 else ():
                curve(context, "recombined", method, x, seed, operator=name)


def pair(
    encode: Encode, operators: Params, labels: np.ndarray, operator: int
) -> tuple[dict[str, Gaussian], np.ndarray]:
    """What an operator gives of the shown pair and what it is compared with, and who is an example of the right one."""
    one, other = (jnp.array([[float(label in concept) for label in LABELS]]) for concept in (FIRST, SECOND))
    code = jnp.array([operator])
    mentions = one, other, eeg.recombined(one, other, code)
    named = jnp.array([[{**FIRST, **SECOND}.get(label, 0) for label in LABELS]])
    first, second, result = (encode(eeg.symbols_of(named, mentioned)) for mentioned in mentions)
    got: Any = eeg.Recombination().apply(operators, first, second, code)
    examples = ((labels == np.asarray(named)) | (np.asarray(mentions[2]) == 0)).all(1)
    return {"recombination": got, "SCAN's concept": result, "first concept": first}, examples
