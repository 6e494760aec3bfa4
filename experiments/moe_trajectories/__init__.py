"""Mixtures of experts of growth curves: which classes of trajectories there are, who is in them, and why they differ.

Paper: Liu & Perera, Extending Mixture of Experts Model to Investigate Heterogeneity of Trajectories: When, Where and
How to Add Which Covariates, Psychological Methods (advance online 2022), arXiv 2007.02432.
Claim: one model finds latent classes of nonlinear growth curves, predicts class membership from some covariates and
explains differences within classes by others, without the bias of doing so in two steps.
Command: ``relic run moe_trajectories --preset small``.
Cost: smoke about a minute on 2 CPU cores and no data; small some fifteen minutes, with ``growth_mixture`` at hand. To
stay there, its forests have 32 trees and classes are counted to two; ``paper`` has 128 and four.
Expect: the authors' example to the published digits; Wald intervals cover near 0.94 over 2,000 simulated data sets.

Replications of the simulation are one program, whatever ``--seeds`` is; seeds belong to the forests.
"""

import functools
from collections.abc import Iterable

from experiments.lab import Context, Part, System, part, parts
from experiments.moe_trajectories import study
from experiments.moe_trajectories.claims import CLAIMS
from experiments.moe_trajectories.config import PRESETS, Config
from experiments.moe_trajectories.figures import FIGURES, STATISTICS, TABLES
from experiments.moe_trajectories.published import PUBLISHED


def plan(config: Config, context: Context) -> Iterable[Part]:
    """Each mixture and study, and a forest per seed."""
    yield from parts({
        **{f"example {name}": functools.partial(study.example, name=name) for name in config.models},
        "simulation": study.simulation,
        "batches": study.batches,
        **{f"mathematics {k}": functools.partial(study.mathematics, classes=k) for k in range(1, config.classes + 1)},
        **({"enumeration": study.enumeration} if config.classes else {}),
    })  # fmt: skip
    for seed in context.seeds if config.trees else ():
        yield part(functools.partial(study.forest, seed=seed), part="forest", seed=seed)


SYSTEM = System(
    slug="moe_trajectories",
    title="Extending Mixture of Experts Model to Investigate Heterogeneity of Trajectories: When, Where "
    "and How to Add Which Covariates",
    line="latent classes of nonlinear growth curves, with covariates on class and on change",
    family="latent",
    paper="Liu & Perera, Psychological Methods 2022, arXiv 2007.02432",
    presets=PRESETS,
    plan=plan,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("log L", "accuracy", "entropy", "starts that agree", "-2 log L", "BIC"),
    baseline="finite mixture",
    tables=TABLES,
    figures=FIGURES,
    data=("growth_mixture",),
)
