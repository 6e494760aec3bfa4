"""Influence functions with EK-FAC: which training examples made the model do this.

Paper: Grosse, Bae, Anil, Elhage, Tamkin, and others, Studying Large Language Model Generalization with Influence
Functions, 2023, arXiv 2308.03296. It shows its comparisons as figures of models that are not public.
Claim: EK-FAC makes the inverse-Hessian-vector product cheap and agrees with the proximal Bregman response as well as
LiSSA does; influences of language models are sparse, fall on related sequences, and vanish when the order of the key
phrases is flipped.
Command: ``relic run ekfac_influence --preset small --seeds 5``.
Cost: smoke ends in about a minute on 2 CPU cores, small in some 40 for 5 seeds; paper is for an accelerator.
Expect: on Concrete with lambda = 0.01, a correlation with the exact Gauss-Newton influence of about 0.77 for EK-FAC and
0.37 for the gradient dot product.

Concrete and MNIST are read from the data directory; generators of the same shape stand in where they are not there.
Item 16 is measured where kronfluence is installed (``make peers``).
"""

import functools
from collections.abc import Callable, Iterator

from experiments.ekfac_influence.claims import CLAIMS
from experiments.ekfac_influence.config import EARLY, PRESETS, Config
from experiments.ekfac_influence.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.ekfac_influence.study import comparisons, cost, planted
from experiments.lab import Context, Part, System, part


def plan(config: Config, context: Context) -> Iterator[Part]:
    """A part for every study of every seed; the expensive ones for the first few seeds only."""
    for seed in context.seeds:
        for name, measure in measures(config, seed).items():
            yield part(functools.partial(measure, seed=seed), part=name, seed=seed)


def measures(config: Config, seed: int) -> dict[str, Callable[..., None]]:
    """What is run for a seed."""
    chosen: dict[str, Callable[..., None]] = {
        task: functools.partial(comparisons.compared, name=task)
        for task in config.tasks
        if task == "regression" or seed < config.costly_seeds
    }
    if "image" in config.tasks:
        early = {"dataset": EARLY, "steps": max(1, config.image_steps // 6)}
        chosen["mislabelled"] = comparisons.mislabelled
        chosen["mislabelled, early"] = functools.partial(comparisons.mislabelled, **early)
    for size, shape in enumerate(zip(config.widths, config.depths, strict=True)):
        if seed < config.costly_seeds:
            chosen["planted {} x {}".format(*shape)] = functools.partial(planted.study, size=size)
    if config.cost and seed == 0:
        chosen |= {"cost": cost.cost} | ({"speed": cost.beside_peer} if cost.has_peer() else {})
    return chosen


SYSTEM = System(
    slug="ekfac_influence",
    title="Studying Large Language Model Generalization with Influence Functions",
    line="which training examples a model's behaviour comes from, by EK-FAC",
    family="interp",
    paper="Grosse et al., 2023, arXiv 2308.03296",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("correlation with PBRF", "correlation with exact", "LDS", "AUC"),
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
)
