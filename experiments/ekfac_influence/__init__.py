"""Influence functions with EK-FAC: which training examples made the model do this.

Paper: Grosse, Bae, Anil, Elhage, Tamkin, and others, Studying Large Language Model Generalization with Influence
Functions, 2023, arXiv 2308.03296.
Claim: EK-FAC makes the inverse-Hessian-vector product cheap and agrees with the proximal Bregman response as well as
LiSSA does; influences of language models are sparse, fall on related sequences, and vanish when the order of the key
phrases is flipped.
Command: ``relic run ekfac_influence --preset small --seeds 5``.
Cost: smoke ends in about a minute on 2 CPU cores, small in about half an hour for 5 seeds; paper is for an accelerator.
Expect: on Concrete with lambda = 0.01, a correlation with the exact Gauss-Newton influence of about 0.77 for EK-FAC and
0.37 for the gradient dot product.

Concrete and MNIST are read from the data directory; generators of the same shape stand in where they are not there.
"""

import functools
from collections.abc import Callable

from experiments.ekfac_influence.claims import CLAIMS
from experiments.ekfac_influence.config import PRESETS, Config
from experiments.ekfac_influence.figures import COLOURS, STATISTICS, figures, tables
from experiments.ekfac_influence.study import comparisons, cost, planted
from experiments.lab.system import Context, Published, System

PUBLISHED: tuple[Published, ...] = ()
"""The paper shows these comparisons as figures of models that are not public; its statements are the claims."""


def run(config: Config, context: Context) -> None:
    """All parts for all seeds; each is a cell which a rerun skips."""
    context.cells({"part": name, "seed": seed} for seed in context.seeds for name in parts(config, seed))
    for seed in context.seeds:
        for name, part in parts(config, seed).items():
            if not context.done(part=name, seed=seed):
                context.say(f"ekfac_influence: {name}, seed {seed}")
                part(config, context, seed=seed)
                context.finish(part=name, seed=seed)


def parts(config: Config, seed: int) -> dict[str, Callable[..., None]]:
    """What is run for a seed; the expensive parts for the first few only."""
    chosen: dict[str, Callable[..., None]] = {
        task: functools.partial(comparisons.compared, name=task)
        for task in config.tasks
        if task == "regression" or seed < config.costly_seeds
    }
    if "image" in config.tasks:
        chosen["mislabelled"] = comparisons.mislabelled
    if seed < config.costly_seeds:
        for size in range(len(config.widths)):
            chosen[f"planted {config.widths[size]} x {config.depths[size]}"] = functools.partial(
                planted.study, size=size
            )
    if config.cost and seed == 0:
        chosen["cost"] = cost.study
    return chosen


SYSTEM = System(
    slug="ekfac_influence",
    title="Studying Large Language Model Generalization with Influence Functions",
    line="which training examples a model's behaviour comes from, by EK-FAC",
    family="interp",
    paper="Grosse et al., 2023, arXiv 2308.03296",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("correlation with PBRF", "correlation with exact", "LDS", "AUC"),
    tables=tables,
    figures=figures,
    colours=COLOURS,
)
