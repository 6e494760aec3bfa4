"""Concepts of ``scan_eeg`` put together by logic: operators taught and measured, and the ERPs that they give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from core.batches import epoch_sampler
from core.fit import fit
from core.learner import Params, replicate_seeds, stream, with_sampler
from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from experiments.scan_eeg.study.worlds import DATASET, Pool, Worlds, curve, one
from latent import scan_eeg as eeg
from latent.scan_eeg import LABELS, Gaussian

FIRST, SECOND = {"age": 1, "depression": 1}, {"depression": 1, "sex": 1}
"""The pair of concepts whose recombinations are shown as ERPs."""
Encode = Callable[[Any, Array], Gaussian]


class Shown(NamedTuple):
    """The concepts that an operator gives and is compared with, by name, and who is an example of the right one."""

    concepts: dict[str, Gaussian]
    examples: np.ndarray


def recombinations(
    config: Config, context: Context, worlds: Worlds, pool: Pool, scan: eeg.SymbolVae, params: Params
) -> None:
    """How close the operators come to the concept that they should give; beside leaving the first as it is."""
    models = np.concatenate([pool.of(w, config.reference_beta)[:1] for w in range(len(context.seeds))])
    frozen = one(params, models)

    def encode(p, y) -> Any:
        return scan.apply(p, y, method="encode")

    operators = teach(
        config, context, encode, one(eeg.Grounded(pool.posterior, worlds.train.labels[pool.world]), models), frozen
    )
    for w, seed in enumerate(context.seeds):
        p, trained, labels = one(frozen, w), one(operators, w), worlds.test.labels[w]
        for operator, method, value in divergences(encode, p, trained, labels, seed):
            context.record(dataset=DATASET, method=method, metric="divergence from concept", seed=seed, value=value,
                           part="recombination", operator=operator)  # fmt: skip
        decode = pool.decoder(models[w])
        for operator, name in enumerate(eeg.OPERATORS):
            shown = pair(encode, p, trained, np.asarray(labels), operator)
            people = worlds.test.clean[w][shown.examples].mean(0)
            for method, concept in shown.concepts.items():
                x = decode(concept.mean)[0]
                error = float(jnp.sqrt(jnp.mean((x - people) ** 2)))
                context.record(dataset=DATASET, method=method, metric="RMS from mean ERP", seed=seed, value=error,
                               part="recombination", operator=name)  # fmt: skip
                if w == 0:
                    curve(context, "recombined", method, x, seed, operator=name)
            if w == 0:
                curve(context, "recombined", "people", people, seed, operator=name)


def teach(config: Config, context: Context, encode: Encode, grounded: eeg.Grounded, frozen: Params) -> Params:
    """Operators of every seed, on the reference model's frozen SCAN."""
    learner = eeg.recombination_learner(eeg.Recombination(), encode, optax.adam(config.recombination_rate))
    draw = epoch_sampler(config.scan_batch)
    axes = eeg.Instructed(0, None)  # pyright: ignore[reportArgumentType]
    sampled = with_sampler(
        learner, lambda data, key, step: eeg.Instructed(draw(data.grounded, key, step), data.scan), axes
    )
    return fit(
        replicate_seeds(sampled, len(context.seeds), 0), eeg.Instructed(grounded, frozen),
        key=stream(jax.random.key(context.seeds[0]), "operators"), steps=config.recombination_steps, chunk=100,
        workdir=context.workdir / "recombination", progress=context.progress("recombination"),
    ).state.params  # fmt: skip


def divergences(encode: Encode, p: Params, operators: Params, labels: Array, seed: int) -> list[tuple[str, str, float]]:
    """(operator, method, mean KL from SCAN's concept of the result) over random pairs of concepts."""
    drawn = eeg.draw_recombinations(jax.random.key(seed), labels)
    first, second, result = (encode(p, y) for y in (drawn.first, drawn.second, drawn.result))
    got: Any = eeg.Recombination().apply(operators, first, second, drawn.operator)
    rows = [np.asarray(drawn.operator) == k for k in range(len(eeg.OPERATORS))]
    found = {"recombination": eeg.kl(result, got).sum(-1), "first concept": eeg.kl(result, first).sum(-1)}
    return [
        (name, method, float(values[mask].mean()))
        for method, values in found.items()
        for name, mask in zip(eeg.OPERATORS, rows, strict=True)
    ]


def pair(encode: Encode, p: Params, operators: Params, labels: np.ndarray, operator: int) -> Shown:
    """The shown pair of concepts under an operator."""
    one, other = (jnp.array([[float(label in concept) for label in LABELS]]) for concept in (FIRST, SECOND))
    code = jnp.array([operator])
    mentions = one, other, eeg.recombined(one, other, code)
    named = jnp.array([[{**FIRST, **SECOND}.get(label, 0) for label in LABELS]])
    first, second, result = (encode(p, eeg.symbols_of(named, mentioned)) for mentioned in mentions)
    got: Any = eeg.Recombination().apply(operators, first, second, code)
    examples = ((labels == np.asarray(named)) | (np.asarray(mentions[2]) == 0)).all(1)
    return Shown({"recombination": got, "SCAN's concept": result, "first concept": first}, examples)
