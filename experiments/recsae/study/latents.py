"""Dictionaries of a recommender's states: what they keep, concepts of their units, how far these hold."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from core.batches import epoch_sampler
from core.errors import ConfigError
from core.fit import fit
from core.learner import with_sampler
from core.records import to_plain
from core.stats import rank_correlation
from experiments.lab import Context
from experiments.recsae.config import MAIN_K, SUBJECT, WALKS, Config
from experiments.recsae.study.subjects import Corpus, Subject, subject
from interp import recsae, sae
from rec.sequential import query_ranking

SHUFFLED = "latents, shuffled"


class Dictionary(NamedTuple):
    """A trained dictionary."""

    k: int
    variant: sae.Variant
    params: sae.Params

    @property
    def units(self) -> tuple[Callable, sae.Params]:
        """Its encoder and what that takes."""
        return functools.partial(sae.encode, self.variant), self.params


class Probed(NamedTuple):
    """A recommender and dictionaries of its states, by the number of active latents."""

    corpus: Corpus
    subject: Subject
    dictionaries: dict[int, Dictionary]

    @property
    def last_items(self) -> Int[np.ndarray, " users"]:
        """The item that each test history ends in."""
        return np.asarray(self.subject.examples.histories[:, -1])

    @property
    def interpreter(self) -> recsae.Interpreter:
        """Concepts from metadata; a language model would be :func:`interp.recsae.by_language` in its place."""
        return recsae.by_attributes(self.corpus.present, self.corpus.names, self.subject.last)

    def activity(self, units: Any, params: Any) -> tuple[recsae.Activity, recsae.Activity]:
        """Of units, at training places and after test histories."""
        old, new = (recsae.activity(units, params, x) for x in (self.subject.states, self.subject.queries))
        return old, new

    def read(self, config: Config, activity: tuple[recsae.Activity, recsae.Activity], seed: int) -> recsae.Read:
        """Concepts from training places, and their confidence on each half of the test histories."""
        old, new = activity
        sizes = {"top": config.top, "count": config.checked, "seed": seed}
        return recsae.read(self.interpreter, old, self.subject.last, new, self.last_items, **sizes)

    def latents(self, k: int) -> tuple[recsae.Activity, recsae.Activity]:
        """Activity of a dictionary."""
        return self.activity(*self.dictionaries[k].units)


@functools.lru_cache(maxsize=1)
def probed(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> Probed:
    """The subject and a dictionary for each k; those that were finished before are read back.

    Raises:
      ConfigError: where the number of latents that concepts are judged at is left out.
    """
    corpus = draw(seed)
    ks = config.walk_ks if corpus.name == WALKS else config.ks
    if MAIN_K not in ks:
        raise ConfigError(f"ks and walk_ks must have {MAIN_K} among them, at which concepts are judged; got {ks}")
    about = subject(config, context, corpus, SUBJECT, seed)
    return Probed(corpus, about, {k: dictionary(config, context, corpus, about, k, seed) for k in ks})


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


def in_place(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> None:
    """How well x is reconstructed, and what the recommender is worth with x_hat in the place of x."""
    corpus, about, found = probed(config, context, draw, seed)
    ranking, at = query_ranking(about.examples), context.at(dataset=corpus.name, seed=seed)
    for k, d in found.items():
        quality = jax.jit(functools.partial(sae.metrics, d.variant))(d.params, about.states)
        edited = jax.jit(recsae.splice(d.variant, d.params))(about.queries)
        here = at.at(method=f"{SUBJECT}, k = {k} in place")
        here.record_all({"fvu": quality.fvu, "dead": quality.dead, "l0": quality.l0})
        here.record_all(ranking.means((edited, about.table)))
    at.record_all(ranking.means((jnp.asarray(about.queries), about.table)), method=f"{SUBJECT}, probed")


def units_of(config: Config, about: Probed, seed: int) -> Iterator[tuple[str, Any]]:
    """Names and activities (at training places, after test histories) of dictionaries and of what they must beat."""
    x, main = about.subject.states, about.dictionaries[MAIN_K]
    for k in about.dictionaries:
        yield f"latents, k = {k}", about.latents(k)
    density = MAIN_K / main.params["b_e"].shape[0]
    for kind in ("neurons", "random directions", "principal components", "independent components"):
        yield kind, about.activity(recsae.of_directions, recsae.directions(kind, x, density, seed))
    yield "k-means", about.activity(recsae.of_clusters, recsae.clusters(x, config.clusters, seed))
    sample = jnp.asarray(x[:4096])
    start = sae.initial_params(
        main.variant, main.params["b_e"].shape[0], jax.random.key(seed + 1), sample, sample, sae.mean
    )
    yield "dictionary, untrained", about.activity(main.units[0], start)
    rng = np.random.default_rng(seed)
    yield SHUFFLED, tuple(recsae.shuffled(activity, rng) for activity in about.latents(MAIN_K))


def concepts(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> None:
    """Coherence, confidence and interpretable share of all kinds of units."""
    about = probed(config, context, draw, seed)
    classes, items = about.corpus.classes, about.last_items
    at = context.at(dataset=about.corpus.name, seed=seed, part="concepts")
    largest = np.bincount(classes[items] + 1).max() / len(items)
    at.record("coherence", largest, method="always the largest class")
    for name, activity in units_of(config, about, seed):
        here, new = at.at(method=name), activity[1]
        _, top = recsae.strongest(new, config.top)
        agreement = recsae.coherence(classes[items[top]])
        _, apart = recsae.strongest(recsae.one_per_item(new, items), config.top)
        found = about.read(config, activity, seed)
        (first, second), judged = found.confidence, found.judged
        here.record_all({"units": len(agreement), "units judged": judged.sum()})
        if len(agreement):
            here.record_all({"coherence": agreement.mean(), "coherence of .9 or more": (agreement >= 0.9).mean()})
        if len(apart):
            here.record("coherence, distinct items", recsae.coherence(classes[items[apart]]).mean())
        if judged.sum() > 2:
            here.record("interpretable", first.interpretable(config.threshold)[judged].mean())
            here.record("f1", np.nanmean(first.f1[judged]))
            here.record("precision", np.nan_to_num(first.precision[judged]).mean())
            here.record("recall", first.recall[judged].mean())
            here.record("significant", (found.concepts.q[judged] < 0.05).mean())
            if np.ptp(first.f1[judged]) and np.ptp(second.f1[judged]):
                here.record("halves agree", rank_correlation(first.f1[judged], second.f1[judged]))


def recovery(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> None:
    """The share of planted groups that a latent matches with F1 above .8."""
    about = probed(config, context, draw, seed)
    groups, count = about.corpus.classes[about.last_items], int(about.corpus.classes.max()) + 1
    for k in about.dictionaries:
        best = recsae.group_f1(about.latents(k)[1], groups, count)
        at = context.at(dataset=about.corpus.name, method=f"latents, k = {k}", seed=seed, part="recovery")
        at.record_all({"groups recovered": (best > 0.8).mean(), "best f1 of groups": best.mean()})
