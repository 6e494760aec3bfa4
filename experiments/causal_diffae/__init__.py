"""Causal diffusion autoencoders: counterfactual images, against exact counterfactuals and on real digits.

Paper: Komanduri, Zhao, Chen, Wu, Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion
Probabilistic Models, ECAI 2024, arXiv 2404.17735. Its tables could not be verified, and are on other data: no number of
theirs is a target here.
Claim: a diffusion autoencoder whose code follows a known causal graph generates counterfactuals in which descendants of
an intervened variable follow, and all else stays.
Command: ``relic run causal_diffae --preset small``.
Cost: smoke needs no data and two minutes of CPU time, nearly all compilation; small some ten minutes of 2 CPU cores,
and real MorphoMNIST only where it is in the data directory; paper is for an accelerator.
Expect: with gamma up to 1 the counterfactual strokes are closer to the true ones than the factual strokes are, those of
a diffusion autoencoder without mechanisms and labels are not.
"""

import functools
from collections.abc import Iterable

from causal import counterfactual_worlds
from core.datasets import morphomnist
from experiments.causal_diffae.claims import CLAIMS
from experiments.causal_diffae.config import PRESETS, Config
from experiments.causal_diffae.figures import COLOURS, FIGURES, METRICS, STATISTICS, TABLES
from experiments.causal_diffae.study import scores
from experiments.causal_diffae.study.digits import DATASET, digits
from experiments.causal_diffae.study.worlds import world
from experiments.lab import Context, Part, System, part


def plan(config: Config, context: Context) -> Iterable[Part]:
    """Strokes with all seeds at once, then real digits seed by seed where they are there, then the small worlds."""
    seeds = ",".join(map(str, context.seeds))
    prepared = functools.cache(lambda: scores.ready(config, context))
    for name in scores.PARTS:
        measure = functools.partial(scores.group, name=name, prepared=prepared)
        yield part(measure, dataset=scores.DATASET, part=name, seeds=seeds)
    chosen = [seed for seed in context.seeds if seed < config.digit_seeds]
    if chosen and morphomnist.locate(context.data_dir) is None:
        context.say("causal_diffae: MorphoMNIST is not in the data directory and is left out")
        chosen = []
    for seed in chosen:
        yield part(functools.partial(digits, seed=seed), dataset=DATASET, seed=seed)
    for make in (counterfactual_worlds.pendulum, counterfactual_worlds.circuit):
        yield part(functools.partial(world, make=make), dataset=make.__name__, seeds=seeds)


SYSTEM = System(
    slug="causal_diffae",
    title="Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion Probabilistic Models",
    line="counterfactual images from a diffusion autoencoder with a causal latent space",
    family="causal",
    paper="Komanduri, Zhao, Chen, Wu, ECAI 2024, arXiv 2404.17735",
    presets=PRESETS, plan=plan, claims=CLAIMS, statistics=STATISTICS, metrics=METRICS, baseline="CausalDiffAE",
    tables=TABLES, figures=FIGURES, colours=COLOURS, data=("morphomnist_ti",),
)  # fmt: skip
