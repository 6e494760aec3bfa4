"""What is done to one recommender: dictionaries of its states, concepts of units, their confidence, steering."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Float, Int

from core.batches import epoch_sampler
from core.errors import ConfigError
from core.fit import fit
from core.learner import with_sampler
from core.records import to_plain
from experiments.recsae_config import MAIN_K, SUBJECT, WALKS, Config
from experiments.recsae_subjects import Corpus, Subject, query_ranking, top_items
from experiments.system import Context
from interp import recsae, sae
from rec.sequential import popularity, training_rows

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


class Steering(NamedTuple):
    """The most confident latents and instances of the second half in which they are active."""

    latents: Int[np.ndarray, " s"]
    concepts: Int[np.ndarray, " s"]
    """Their places among the concepts."""
    rows: Int[np.ndarray, "s n"]
    """-1 where there are fewer."""


def chosen(config: Config, found: Read, seed: int, instances: int = 24) -> Steering:
    """Latents by confidence on the first half, with active instances of the second."""
    first, second = found.confidence
    judged = (first.checked >= LEAST) & (second.checked >= LEAST)
    order = np.argsort(-np.where(judged, np.nan_to_num(first.low), -1.0), kind="stable")
    order = order[: min(config.steered, int(judged.sum()))]
    inside = np.zeros(found.new.shape[0], bool)
    inside[found.halves[1]] = True
    part = found.new.tocsr().multiply(inside[:, None]).tocsc()
    part.eliminate_zeros()
    rows = recsae.stratified(np.random.default_rng(seed), part, found.units[order], instances)
    return Steering(found.units[order], order, rows)


def others(code: sae.Sparse, latents: Int[np.ndarray, " r"], rng: np.random.Generator) -> Int[np.ndarray, " r"]:
    """For every row another active latent than its own, at random."""
    values, indices = np.asarray(code.values), np.asarray(code.indices)
    weight = np.where((values > 0) & (indices != latents[:, None]), rng.random(values.shape), -1.0)
    return indices[np.arange(len(latents)), weight.argmax(axis=1)]


class Steered(NamedTuple):
    """Recommendations for the instances of some latents, under changes of these latents."""

    share: Float[np.ndarray, " s"]
    """Of the concept's items among the first 10, a mean for each latent."""
    overlap: Float[np.ndarray, " s"]
    """Rank-biased overlap with the unchanged lists."""


def measured(corpus: Corpus, subject: Subject, found: Read, plan: Steering, edit, before=None) -> tuple[Steered, Any]:
    """Lists of the plan's instances with their queries edited."""
    rows, there = np.maximum(plan.rows, 0).ravel(), plan.rows >= 0
    top = top_items(edit(subject.queries[rows]), subject.table, subject.examples, rows)
    key = np.repeat(found.concepts.key[plan.concepts], plan.rows.shape[1], axis=0)
    share = recsae.has_concept(corpus.present.toarray(), key, top).mean(axis=1).reshape(there.shape)
    kept = np.asarray(recsae.overlap(jnp.asarray(top), jnp.asarray(top if before is None else before)))
    weights = there / there.sum(axis=1, keepdims=True)
    return Steered((share * weights).sum(1), (kept.reshape(there.shape) * weights).sum(1)), top


def steering(config: Config, context: Context, corpus: Corpus, subject: Subject, d: Dictionary, seed: int) -> dict:
    """Ablates, scales and sets the most confident latents; returns the effect of ablation by latent."""
    units = functools.partial(sae.encode, d.variant)
    old, new = (recsae.activity(units, d.params, x) for x in (subject.states, subject.queries))
    found = read(config, interpreter_of(corpus, subject), subject, old, new, seed)
    plan = chosen(config, found, seed)
    if not len(plan.latents):
        return {}
    rows = np.maximum(plan.rows, 0).ravel()
    own = np.repeat(plan.latents, plan.rows.shape[1])
    rng = np.random.default_rng(seed)
    other = others(jax.jit(units)(d.params, subject.queries[rows]), own, rng)

    @jax.jit
    def moved(queries, latents, factor):
        return recsae.steer(d.variant, d.params, latents, recsae.scaled(factor))(queries)

    def note(metric: str, value: float, **coords) -> None:
        method = f"latents, k = {d.k}"
        context.record(
            dataset=corpus.name, method=method, metric=metric, seed=seed, value=float(value), part="steering", **coords
        )

    original, before = measured(corpus, subject, found, plan, lambda q: q)
    effects = {}
    for dose in config.doses:
        effects[dose], _ = measured(corpus, subject, found, plan, lambda q, c=dose: moved(q, own, c), before)
        note("share of concept items", effects[dose].share.mean(), dose=dose)
        note("overlap with the original list", effects[dose].overlap.mean(), dose=dose)
    control, _ = measured(corpus, subject, found, plan, lambda q: moved(q, other, 0.0), before)
    change, random = effects[0.0].share - original.share, control.share - original.share
    note("change by ablation", change.mean())
    note("change by ablating another", random.mean())
    note("latents steered", len(plan.latents))
    note("sign test against nothing", signs(change))
    note("sign test against another", signs(change - random))
    steps = np.diff([effects[dose].share for dose in config.doses if dose >= 1.0], axis=0)
    note("latents whose share never falls with the dose", (steps >= -1e-9).all(axis=0).mean())
    setting(config, corpus, subject, d, found, plan, note, rng)
    whole(subject, d, plan, note)
    return {int(j): (float(a), float(b)) for j, a, b in zip(plan.latents, original.share, change, strict=True)}


def setting(config: Config, corpus: Corpus, subject: Subject, d: Dictionary, found: Read, plan: Steering, note, rng):
    """Latents set to twice their mean activation where they are not active."""
    rest = recsae.inactive(rng, found.new, plan.latents, plan.rows.shape[1], found.halves[1])
    elsewhere = plan._replace(rows=rest)
    values = np.array([found.new.data[found.new.indptr[j] : found.new.indptr[j + 1]].mean() for j in plan.latents])
    own, twice = (np.repeat(a, rest.shape[1]) for a in (plan.latents, 2 * values))

    def edit(queries):
        return recsae.steer(d.variant, d.params, jnp.asarray(own), lambda z: jnp.asarray(twice, z.dtype))(queries)

    for state, change in (("inactive", lambda q: q), ("set to twice its mean", jax.jit(edit))):
        share = measured(corpus, subject, found, elsewhere, change)[0].share
        note("share of concept items where inactive", share.mean(), state=state)


def whole(subject: Subject, d: Dictionary, plan: Steering, note) -> None:
    """What ranking loses when all steered latents are ablated for everybody."""
    factors = jnp.ones(d.params["b_e"].shape[0]).at[plan.latents].set(0.0)
    edited = jax.jit(recsae.rescale(d.variant, d.params, factors))(subject.queries)
    ranking = query_ranking(subject.examples)
    before, after = (ranking.means((jnp.asarray(q), subject.table)) for q in (subject.queries, edited))
    for metric in ("hr@10", "ndcg@10"):
        note(f"{metric} kept without all steered latents", after[metric] / before[metric])


def signs(differences: Float[np.ndarray, " n"]) -> float:
    """One-sided p of the sign test that differences are below 0; ties are left out."""
    below, above = int((differences < -1e-9).sum()), int((differences > 1e-9).sum())
    return float(scipy.stats.binomtest(below, below + above, alternative="greater").pvalue) if below + above else 1.0


def debiasing(config: Config, context: Context, corpus: Corpus, subject: Subject, d: Dictionary, seed: int) -> None:
    """Latents that go with popular recommendations scaled down: tail share beside accuracy."""
    counts = popularity(training_rows(corpus.sequences), corpus.num_items)
    everyone = np.arange(len(subject.queries))
    top = top_items(subject.queries, subject.table, subject.examples, everyone)
    taste = np.log1p(counts)[top].mean(axis=1)
    active = recsae.activity(functools.partial(sae.encode, d.variant), d.params, subject.queries)
    correlation = correlations(active, taste)
    size = max(1, round(config.correlated * active.shape[1]))
    latents = np.argsort(-correlation, kind="stable")[:size]
    tail = counts <= np.quantile(counts, 0.8)
    ranking = query_ranking(subject.examples)
    rescaled = jax.jit(lambda q, factors: recsae.rescale(d.variant, d.params, factors)(q))
    for factor in (1.0, 0.5, 0.0):
        factors = jnp.ones(active.shape[1]).at[latents].set(factor)
        edited = rescaled(subject.queries, factors)
        numbers = {
            "tail share of the top 10": tail[top_items(edited, subject.table, subject.examples, everyone)].mean(),
            "ndcg@10, debiased": ranking.means((edited, subject.table))["ndcg@10"],
        }
        for metric, value in numbers.items():
            context.record(
                dataset=corpus.name, method=f"latents, k = {d.k}", metric=metric, seed=seed, value=float(value),
                part="debiasing", factor=factor,
            )  # fmt: skip


def correlations(active: recsae.Activity, target: Float[np.ndarray, " n"]) -> Float[np.ndarray, " units"]:
    """Pearson correlation of each unit's activation with a number of the instance; 0 for silent units."""
    n, y = active.shape[0], target - target.mean()
    mean = np.asarray(active.mean(axis=0)).ravel()
    square = np.asarray(active.multiply(active).mean(axis=0)).ravel() - mean**2
    covariance = np.asarray(active.T @ y).ravel() / n
    return np.where(square > 0, covariance / np.sqrt(np.maximum(square, 1e-30) * np.mean(y**2)), 0.0)
