"""Concept space: what sets the speed of learning a concept, sudden turns, and capabilities before prompts show them.

Paper: Park, Okawa, Lee, Lubana, Tanaka, Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept
Space, NeurIPS 2024, arXiv 2406.19370.
Claim: a conditional diffusion model learns a concept the sooner the stronger its signal; on the way to an unseen
combination it first shows the seen one with the stronger concept, then turns; the capability is there before naive
prompts elicit it.
Command: ``relic run concept_space --preset small --seeds 8``.
Cost: no data; smoke a minute on 2 CPU cores, small about half an hour; paper is for an accelerator.
Expect: times to learn fall as separation to the power -1.4; latent interventions succeed before naive prompts.
"""

import functools
from collections.abc import Iterable

from experiments.concept_space.claims import CLAIMS
from experiments.concept_space.config import PRESETS, Config
from experiments.concept_space.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.concept_space.study.images import images
from experiments.concept_space.study.report import Setting
from experiments.concept_space.study.vectors import cost, settings_of, vectors
from experiments.lab import Context, Part, System, part


def plan(config: Config, context: Context) -> Iterable[Part]:
    """The vectors of all seeds at once, then the images run by run, then what vectors cost."""
    seeds = ",".join(map(str, context.seeds))
    for group, settings in settings_of(config).items():
        yield part(functools.partial(vectors, settings=settings), part="vectors", group=group, seeds=seeds)
    runs = [(seed, Setting(sep)) for sep in config.separations for seed in context.seeds]
    runs += [(seed, Setting(0.8, sep_background=0.8)) for seed in context.seeds[: config.cubes]]
    for seed, setting in runs:
        cell = {"part": "images", "seed": seed, "sep_colour": setting.sep_colour, "world": setting.cube}
        yield part(functools.partial(images, seed=seed, setting=setting), **cell)
    if config.cost_repeats:
        yield part(cost, part="cost")


SYSTEM = System(
    slug="concept_space",
    title="Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space",
    line="when and in which order a generative model learns concepts, and what it hides",
    family="interp",
    paper="Park, Okawa, Lee, Lubana, Tanaka, NeurIPS 2024, arXiv 2406.19370",
    presets=PRESETS, plan=plan, claims=CLAIMS, statistics=STATISTICS, tables=TABLES, figures=FIGURES, colours=COLOURS,
)  # fmt: skip
