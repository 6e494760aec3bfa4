"""What ablating, scaling and setting latents does to recommendations."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from core.stats import sign_test
from experiments.lab import Context, Place
from experiments.recsae.config import MAIN_K, Config
from experiments.recsae.study.latents import Probed, probed
from experiments.recsae.study.subjects import Corpus
from interp import recsae
from rec.sequential import popularity, query_ranking, top_items, training_rows

Effects = Mapping[int, tuple[float, float]]
"""By latent: the share of its concept's items among recommendations, and its change by ablation."""


class Steered(NamedTuple):
    """Recommendations for the instances of some latents, under changes of these latents."""

    share: Float[np.ndarray, " s"]
    """Of the concept's items among the first 10, a mean for each latent."""
    overlap: Float[np.ndarray, " s"]
    """Rank-biased overlap with the unchanged lists."""
    top: Int[np.ndarray, "rows 10"]


def measured(about: Probed, found: recsae.Read, plan: recsae.Confident, edit, before=None) -> Steered:
    """Lists of the plan's instances with their queries edited."""
    subject, rows, there = about.subject, np.maximum(plan.rows, 0).ravel(), plan.rows >= 0
    top = top_items(edit(subject.queries[rows]), subject.table, subject.examples.held_out, rows)
    key = np.repeat(found.concepts.key[plan.concepts], plan.rows.shape[1], axis=0)
    share = recsae.has_concept(about.corpus.present.toarray(), key, top).mean(axis=1).reshape(there.shape)
    kept = np.asarray(recsae.overlap(jnp.asarray(top), jnp.asarray(top if before is None else before)))
    weights = there / there.sum(axis=1, keepdims=True)
    return Steered((share * weights).sum(1), (kept.reshape(there.shape) * weights).sum(1), top)


def steering(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> Effects:
    """Ablates, scales and sets the most confident latents; returns the effect of ablation by latent."""
    about = probed(config, context, draw, seed)
    d, subject = about.dictionaries[MAIN_K], about.subject
    found = about.read(config, about.latents(MAIN_K), seed)
    plan = recsae.most_confident(found, config.steered, seed)
    if not len(plan.units):
        return {}
    rows = np.maximum(plan.rows, 0).ravel()
    own = np.repeat(plan.units, plan.rows.shape[1])
    rng = np.random.default_rng(seed)
    other = recsae.another_active(jax.jit(d.units[0])(d.params, subject.queries[rows]), own, rng)

    @jax.jit
    def moved(queries, latents, factor):
        return recsae.steer(d.variant, d.params, latents, recsae.scaled(factor))(queries)

    at = context.at(dataset=about.corpus.name, method=f"latents, k = {d.k}", seed=seed, part="steering")
    original = measured(about, found, plan, lambda q: q)
    effects = {}
    for dose in config.doses:
        effects[dose] = measured(about, found, plan, lambda q, c=dose: moved(q, own, c), original.top)
        at.record("share of concept items", effects[dose].share.mean(), dose=dose)
        at.record("overlap with the original list", effects[dose].overlap.mean(), dose=dose)
    control = measured(about, found, plan, lambda q: moved(q, other, 0.0), original.top)
    change, random = effects[0.0].share - original.share, control.share - original.share
    at.record_all({"change by ablation": change.mean(), "change by ablating another": random.mean()})
    at.record("latents steered", len(plan.units))
    at.record("sign test against nothing", sign_test(change))
    at.record("sign test against another", sign_test(change - random))
    steps = np.diff([effects[dose].share for dose in config.doses if dose >= 1.0], axis=0)
    at.record("latents whose share never falls with the dose", (steps >= -1e-9).all(axis=0).mean())
    setting(about, found, plan, at, rng)
    without(about, plan, at)
    return {int(j): (float(a), float(b)) for j, a, b in zip(plan.units, original.share, change, strict=True)}


def setting(about: Probed, found: recsae.Read, plan: recsae.Confident, at: Place, rng: np.random.Generator) -> None:
    """Latents set to twice their mean activation where they are not active."""
    d, new = about.dictionaries[MAIN_K], found.new
    rest = recsae.inactive(rng, new, plan.units, plan.rows.shape[1], found.halves[1])
    values = np.array([new.data[new.indptr[j] : new.indptr[j + 1]].mean() for j in plan.units])
    own, twice = (np.repeat(a, rest.shape[1]) for a in (plan.units, 2 * values))

    def edit(queries):
        return recsae.steer(d.variant, d.params, jnp.asarray(own), lambda z: jnp.asarray(twice, z.dtype))(queries)

    for state, change in (("inactive", lambda q: q), ("set to twice its mean", jax.jit(edit))):
        share = measured(about, found, plan._replace(rows=rest), change).share
        at.record("share of concept items where inactive", share.mean(), state=state)


def without(about: Probed, plan: recsae.Confident, at: Place) -> None:
    """What ranking loses when all steered latents are ablated for everybody."""
    d, subject, ranking = about.dictionaries[MAIN_K], about.subject, query_ranking(about.subject.examples)
    factors = jnp.ones(d.params["b_e"].shape[0]).at[plan.units].set(0.0)
    edited = jax.jit(recsae.rescale(d.variant, d.params, factors))(subject.queries)
    before, after = (ranking.means((jnp.asarray(q), subject.table)) for q in (subject.queries, edited))
    for metric in ("hr@10", "ndcg@10"):
        at.record(f"{metric} kept without all steered latents", after[metric] / before[metric])


def debiasing(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> None:
    """Latents that go with popular recommendations scaled down: tail share beside accuracy."""
    about = probed(config, context, draw, seed)
    corpus, subject, d = about.corpus, about.subject, about.dictionaries[MAIN_K]
    counts = popularity(training_rows(corpus.sequences), corpus.num_items)

    def top(queries: Any) -> Int[np.ndarray, "users 10"]:
        return top_items(queries, subject.table, subject.examples.held_out, np.arange(len(queries)))

    active = about.latents(MAIN_K)[1]
    correlation = recsae.correlations(active, np.log1p(counts)[top(subject.queries)].mean(axis=1))
    latents = np.argsort(-correlation, kind="stable")[: max(1, round(config.correlated * active.shape[1]))]
    tail, ranking = counts <= np.quantile(counts, 0.8), query_ranking(subject.examples)
    rescaled = jax.jit(lambda q, factors: recsae.rescale(d.variant, d.params, factors)(q))
    at = context.at(dataset=corpus.name, method=f"latents, k = {d.k}", seed=seed, part="debiasing")
    for factor in (1.0, 0.5, 0.0):
        edited = rescaled(subject.queries, jnp.ones(active.shape[1]).at[latents].set(factor))
        at.record("tail share of the top 10", tail[top(edited)].mean(), factor=factor)
        at.record("ndcg@10, debiased", ranking.means((edited, subject.table))["ndcg@10"], factor=factor)
