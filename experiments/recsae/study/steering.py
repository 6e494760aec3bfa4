"""What ablating, scaling and setting latents does to recommendations."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from experiments.lab.system import Context
from experiments.recsae.config import Config
from experiments.recsae.study.latents import LEAST, Dictionary, Read, interpreter_of, read
from experiments.recsae.study.subjects import Corpus, Subject, query_ranking, top_items
from interp import recsae, sae
from rec.sequential import popularity, training_rows


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
