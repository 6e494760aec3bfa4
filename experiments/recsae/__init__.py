"""RecSAE: concepts inside a recommender, found, named, checked and ablated.

Paper: Wang, Zhang, Ma, Zhang, Interpret the Internal States of Recommendation Model with Sparse Autoencoder, 2024,
arXiv 2411.06112 (v1).
Claim: a TopK sparse autoencoder on the states of a trained sequential recommender has latents that stand for concepts;
these hold on new sequences, and ablating or amplifying a latent moves recommendations as its concept says.
Command: ``relic run recsae --preset small --seeds 3``.
Cost: smoke under a minute on 2 CPU cores without data; small about ten minutes with Amazon Beauty; paper is for an
accelerator.
Expect: SASRec at HR@10 of .06 to .09 on Amazon Beauty; with 32 active latents in place nearly all of it is kept.

The paper asks a language model for descriptions and for predictions. Here both come from metadata (categories, brands,
words of titles; planted groups): deterministic and offline. ``interp.recsae.by_language`` takes a model's functions.
"""

from collections.abc import Callable

from core.records import Scalar
from experiments.lab.system import Context, System
from experiments.recsae.claims import CLAIMS, PUBLISHED
from experiments.recsae.config import MAIN_K, PRESETS, SUBJECT, WALKS, Config
from experiments.recsae.figures import figures, tables
from experiments.recsae.judges import STATISTICS
from experiments.recsae.study.latents import concepts, in_place, learned, recovery
from experiments.recsae.study.pages import write_browser
from experiments.recsae.study.steering import debiasing, steering
from experiments.recsae.study.subjects import Corpus, corpora, rank, subject


def run(config: Config, context: Context) -> None:
    """Recommenders are ranked, then one of them is interpreted; each part of each seed is a cell."""
    draws, counted = corpora(config, context), {}
    context.cells(cell for seed in context.seeds for draw in draws for cell in cells(config, draw(seed), seed))
    for seed in context.seeds:
        for draw in draws:
            corpus = draw(seed)
            for method in config.methods:
                if not context.done(dataset=corpus.name, method=method, seed=seed):
                    context.say(f"{corpus.name}: {method}, seed {seed}")
                    rank(config, context, corpus, method, seed, counted)
                    context.finish(dataset=corpus.name, method=method, seed=seed)
            interpret(config, context, corpus, seed)


def cells(config: Config, corpus: Corpus, seed: int) -> list[dict[str, Scalar]]:
    """What is done on a data set for a seed."""
    ranked = [{"dataset": corpus.name, "method": method, "seed": seed} for method in config.methods]
    return ranked + [{"dataset": corpus.name, "part": part, "seed": seed} for part in parts(corpus)]


def interpret(config: Config, context: Context, corpus: Corpus, seed: int) -> None:
    """All parts about the subject that are not done yet."""
    missing = [part for part in parts(corpus) if not context.done(dataset=corpus.name, part=part, seed=seed)]
    if not missing:
        return
    about = subject(config, context, corpus, SUBJECT, seed)
    found = learned(config, context, corpus, about, seed)
    effects: dict = {}
    work: dict[str, Callable[[], object]] = {
        "in place": lambda: in_place(config, context, corpus, about, found, seed),
        "concepts": lambda: concepts(config, context, corpus, about, found, seed),
        "recovery": lambda: recovery(context, corpus, about, found, seed),
        "steering": lambda: effects.update(steering(config, context, corpus, about, found[MAIN_K], seed)),
        "debiasing": lambda: debiasing(config, context, corpus, about, found[MAIN_K], seed),
    }
    for part in missing:
        context.say(f"{corpus.name}: {part}, seed {seed}")
        work[part]()
        context.finish(dataset=corpus.name, part=part, seed=seed)
    if effects and seed == context.seeds[0]:
        path = context.workdir / f"latents-{corpus.name.replace(' ', '-')}-{seed}.html"
        write_browser(config, corpus, about, found[MAIN_K], effects, seed, path)
        context.say(f"latents to browse: {path}")


def parts(corpus: Corpus) -> tuple[str, ...]:
    """What is done to the subject on a data set."""
    common = ("in place", "concepts", "steering", "debiasing")
    return (*common, "recovery") if corpus.name == WALKS else common


SYSTEM = System(
    slug="recsae",
    title="Interpret the Internal States of Recommendation Model with Sparse Autoencoder",
    line="concepts inside a recommender, found, named, checked and ablated",
    family="interp",
    paper="Wang et al., 2024, arXiv 2411.06112",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("hr@5", "hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr@10"),
    baseline=SUBJECT,
    tables=tables,
    figures=figures,
    data=("amazon_beauty", "amazon_sports"),
)
