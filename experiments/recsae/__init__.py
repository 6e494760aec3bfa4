"""RecSAE: concepts inside a recommender, found, named, checked and ablated.

Paper: Wang, Zhang, Ma, Zhang, Interpret the Internal States of Recommendation Model with Sparse Autoencoder, 2024,
arXiv 2411.06112 (v1).
Claim: a TopK sparse autoencoder on the states of a trained sequential recommender has latents that stand for concepts;
these hold on new sequences, and ablating or amplifying a latent moves recommendations as its concept says.
Command: ``relic run recsae --preset small --seeds 5``.
Cost: smoke under a minute on 2 CPU cores without data; small about a quarter of an hour with Amazon Beauty; paper is
for an accelerator.
Expect: SASRec at HR@10 of .06 to .09 on Amazon Beauty; with 32 active latents in place nearly all of it is kept.

The paper asks a language model for descriptions and for predictions. Here both come from metadata (categories, brands,
words of titles; planted groups): deterministic and offline. ``interp.recsae.by_language`` takes a model's functions.
"""

import functools
from collections.abc import Callable, Iterable

from experiments.lab import Context, Part, System, part
from experiments.recsae.claims import CLAIMS
from experiments.recsae.config import PRESETS, SUBJECT, WALKS, Config
from experiments.recsae.figures import FIGURES, STATISTICS, TABLES
from experiments.recsae.published import PUBLISHED
from experiments.recsae.study.latents import concepts, in_place, probed, recovery
from experiments.recsae.study.pages import write_browser
from experiments.recsae.study.steering import debiasing, steering
from experiments.recsae.study.subjects import Corpus, corpora, rank


def plan(config: Config, context: Context) -> Iterable[Part]:
    """Recommenders are ranked, then one of them is interpreted."""
    draws = corpora(config, context)
    for seed in context.seeds:
        for draw in draws:
            name = draw(seed).name
            for method in config.methods:
                measure = functools.partial(rank, corpus=draw, method=method, seed=seed)
                yield part(measure, dataset=name, method=method, seed=seed)
            measures = {"in place": in_place, "concepts": concepts, "steering": steered, "debiasing": debiasing}
            for about, measure in (measures | ({"recovery": recovery} if name == WALKS else {})).items():
                yield part(functools.partial(measure, draw=draw, seed=seed), dataset=name, part=about, seed=seed)


def steered(config: Config, context: Context, draw: Callable[[int], Corpus], seed: int) -> None:
    """Steering, and a page to browse the latents of the first seed."""
    effects = steering(config, context, draw, seed)
    if effects and seed == context.seeds[0]:
        path = write_browser(config, probed(config, context, draw, seed), effects, seed, context.workdir)
        context.say(f"latents to browse: {path}")


SYSTEM = System(
    slug="recsae",
    title="Interpret the Internal States of Recommendation Model with Sparse Autoencoder",
    line="concepts inside a recommender, found, named, checked and ablated",
    family="interp",
    paper="Wang et al., 2024, arXiv 2411.06112",
    presets=PRESETS,
    plan=plan,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("hr@5", "hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr@10"),
    baseline=SUBJECT,
    tables=TABLES,
    figures=FIGURES,
    data=("amazon_beauty", "amazon_sports"),
)
