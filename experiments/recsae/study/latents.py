"""What is done to one recommender: dictionaries of its states, concepts of units, their confidence."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Int

from core.batches import epoch_sampler
from core.errors import ConfigError
from core.fit import fit
from core.learner import with_sampler
from core.records import to_plain
from experiments.lab.system import Context
from experiments.recsae.config import MAIN_K, SUBJECT, WALKS, Config
from experiments.recsae.study.subjects import Corpus, Subject, query_ranking
from interp import recsae, sae

LEAST = 10
"""Active instances of a half without which a unit is not judged."""
SHUFFLED = "latents, shuffled"


class Dictionary(NamedTuple):
    """A trained dictionary."""

    k: int
    variant: sae.Variant
    params: sae.Params


class Read(NamedTuple):
    """Units with their concepts and how far these hold."""

    units: Int[np.ndarray, " kept"]
    """Columns of ``new``; those with enough active instances."""
    concepts: recsae.Concepts
    new: recsae.Activity
    """After the test histories."""
    halves: tuple[np.ndarray, np.ndarray]
    confidence: tuple[recsae.Confidence, recsae.Confidence]
    """On each half of the test histories."""


def ks_of(config: Config, corpus: Corpus) -> tuple[int, ...]:
    """Numbers of active latents to try."""
    return config.walk_ks if corpus.name == WALKS else config.ks


def learned(config: Config, context: Context, corpus: Corpus, subject: Subject, seed: int) -> dict[int, Dictionary]:
    """A dictionary for each k; those that were finished before are read back."""
    ks = ks_of(config, corpus)
    if MAIN_K not in ks:
        raise ConfigError(f"ks and walk_ks must have {MAIN_K} among them, at which concepts are judged; got {ks}")
    return {k: dictionary(config, context, corpus, subject, k, seed) for k in ks}


def dictionary(config: Config, context: Context, corpus: Corpus, subject: Subject, k: int, seed: int) -> Dictionary:
    """A TopK dictionary of the states at all places, dead latents revived by their share of the error."""
    x, variant = subject.states, sae.topk(k)
    expansion = config.walk_expansion if corpus.name == WALKS else config.expansion
    batch = min(config.sae_batch, len(x))
    steps = config.sae_epochs * (len(x) // batch)
    rate = optax.linear_schedule(config.sae_rate, 0.0, max(1, steps // 5), steps - steps // 5)
    learner = sae.sae_learner(
        variant, expansion * x.shape[1], optax.adam(rate), aux=sae.Aux(dead_after=len(x) // batch * batch)
    )
    done = fit(
        with_sampler(learner, epoch_sampler(batch)),
        x,
        key=jax.random.key(seed),
        steps=steps,
        chunk=max(1, len(x) // batch),
        workdir=context.workdir / f"{corpus.name.replace(' ', '-')}-dictionary-{k}-{seed}",
        identity={"config": to_plain(config), "k": k},
        progress=context.progress(f"{corpus.name}: dictionary, k = {k}, seed {seed}"),
    )
    return Dictionary(k, variant, done.state.params)


def in_place(config: Config, context: Context, corpus: Corpus, subject: Subject, found: dict[int, Dictionary], seed):
    """How well x is reconstructed, and what the recommender is worth with x_hat in the place of x."""
    ranking = query_ranking(subject.examples)
    for k, d in found.items():
        quality = jax.jit(functools.partial(sae.metrics, d.variant))(d.params, subject.states)
        edited = jax.jit(recsae.splice(d.variant, d.params))(subject.queries)
        numbers = {"fvu": quality.fvu, "dead": quality.dead, "l0": quality.l0}
        numbers |= ranking.means((edited, subject.table))
        for metric, value in numbers.items():
            method = f"{SUBJECT}, k = {k} in place"
            context.record(dataset=corpus.name, method=method, metric=metric, seed=seed, value=float(value))
    for metric, value in ranking.means((jnp.asarray(subject.queries), subject.table)).items():
        context.record(dataset=corpus.name, method=f"{SUBJECT}, probed", metric=metric, seed=seed, value=value)


def units_of(config: Config, subject: Subject, found: dict[int, Dictionary], seed: int) -> Iterator[tuple[str, Any]]:
    """Names and activities (at training places, after test histories) of dictionaries and of what they must beat."""
    x, new = subject.states, subject.queries
    main = found[MAIN_K]

    def both(units, params):
        return recsae.activity(units, params, x), recsae.activity(units, params, new)

    for k, d in found.items():
        yield f"latents, k = {k}", both(functools.partial(sae.encode, d.variant), d.params)
    density = MAIN_K / main.params["b_e"].shape[0]
    kinds = ("neurons", "random directions", "principal components", "independent components")
    for kind in kinds:
        yield kind, both(recsae.of_directions, recsae.directions(kind, x, density, seed))
    centres = recsae.clusters(x, config.clusters, seed)
    yield "k-means", both(recsae.of_clusters, centres)
    sample = jnp.asarray(x[:4096])
    start = sae.initial_params(
        main.variant, main.params["b_e"].shape[0], jax.random.key(seed + 1), sample, sample, sae.mean
    )
    yield "dictionary, untrained", both(functools.partial(sae.encode, main.variant), start)
    rng = np.random.default_rng(seed)
    trained = both(functools.partial(sae.encode, main.variant), main.params)
    yield SHUFFLED, tuple(recsae.shuffled(activity, rng) for activity in trained)


def interpreter_of(corpus: Corpus, subject: Subject) -> recsae.Interpreter:
    """Concepts from metadata; a language model would be :func:`interp.recsae.by_language` in its place."""
    return recsae.by_attributes(corpus.present, corpus.names, subject.last)


def last_items(subject: Subject) -> Int[np.ndarray, " users"]:
    """The item that each test history ends in."""
    return np.asarray(subject.examples.histories[:, -1])


def read(
    config: Config, interpreter: recsae.Interpreter, subject: Subject, old: recsae.Activity, new: recsae.Activity, seed
) -> Read:
    """Concepts of units from training places, and their confidence on each half of the test histories."""
    units, top = recsae.strongest(recsae.one_per_item(old, subject.last), config.top)
    concepts = interpreter.describe(subject.last[top])
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(new.shape[0]), 2)
    items = last_items(subject)
    checks = [
        recsae.confidence(interpreter, concepts, units, new, items, half, rng, count=config.checked) for half in halves
    ]
    return Read(units, concepts, new, (halves[0], halves[1]), (checks[0], checks[1]))


def concepts(config: Config, context: Context, corpus: Corpus, subject: Subject, found: dict[int, Dictionary], seed):
    """Coherence, confidence and interpretable share of all kinds of units."""
    interpreter, items = interpreter_of(corpus, subject), last_items(subject)

    def note(method: str, metric: str, value: float) -> None:
        context.record(
            dataset=corpus.name, method=method, metric=metric, seed=seed, value=float(value), part="concepts"
        )

    largest = np.bincount(corpus.classes[items] + 1).max() / len(items)
    note("always the largest class", "coherence", largest)
    for name, (old, new) in units_of(config, subject, found, seed):
        _, top = recsae.strongest(new, config.top)
        agreement = recsae.coherence(corpus.classes[items[top]])
        _, apart = recsae.strongest(recsae.one_per_item(new, items), config.top)
        found_read = read(config, interpreter, subject, old, new, seed)
        first, second = found_read.confidence
        judged = (first.checked >= LEAST) & (second.checked >= LEAST)
        note(name, "units", len(agreement))
        note(name, "units judged", judged.sum())
        if len(agreement):
            note(name, "coherence", agreement.mean())
            note(name, "coherence of .9 or more", (agreement >= 0.9).mean())
        if len(apart):
            note(name, "coherence, distinct items", recsae.coherence(corpus.classes[items[apart]]).mean())
        if judged.sum() > 2:
            note(name, "interpretable", first.interpretable(config.threshold)[judged].mean())
            note(name, "f1", float(np.nanmean(first.f1[judged])))
            note(name, "precision", np.nan_to_num(first.precision[judged]).mean())
            note(name, "recall", first.recall[judged].mean())
            note(name, "significant", (found_read.concepts.q[judged] < 0.05).mean())
            if np.ptp(first.f1[judged]) and np.ptp(second.f1[judged]):
                note(name, "halves agree", np.asarray(scipy.stats.spearmanr(first.f1[judged], second.f1[judged]))[0])


def recovery(context: Context, corpus: Corpus, subject: Subject, found: dict[int, Dictionary], seed: int) -> None:
    """The share of planted groups that a latent matches with F1 above .8."""
    groups, count = corpus.classes[last_items(subject)], int(corpus.classes.max()) + 1
    for k, d in found.items():
        active = recsae.activity(functools.partial(sae.encode, d.variant), d.params, subject.queries)
        best = recsae.group_f1(active, groups, count)
        for metric, value in (("groups recovered", (best > 0.8).mean()), ("best f1 of groups", best.mean())):
            method = f"latents, k = {k}"
            context.record(
                dataset=corpus.name, method=method, metric=metric, seed=seed, value=float(value), part="recovery"
            )
