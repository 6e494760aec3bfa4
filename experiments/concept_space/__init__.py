"""Concept space: what sets the speed of learning a concept, sudden turns, and capabilities before prompts show them.

Paper: Park, Okawa, Lee, Lubana, Tanaka, Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept
Space, NeurIPS 2024, arXiv 2406.19370.
Claim: a conditional diffusion model learns a concept the sooner the stronger its signal; on the way to an unseen
combination it first shows the seen one with the stronger concept, then turns; the capability is there before naive
prompts elicit it.
Command: ``relic run concept_space --preset small --seeds 5``.
Cost: no data; smoke a minute on 2 CPU cores, small about a quarter of an hour; paper is for an accelerator.
Expect: times to learn fall as separation to the power -1.4; exaggerated prompts succeed before naive ones.
"""

from experiments.concept_space.claims import CLAIMS
from experiments.concept_space.config import PRESETS
from experiments.concept_space.figures import COLOURS, figures, tables
from experiments.concept_space.study import run
from experiments.lab.system import System

SYSTEM = System(
    slug="concept_space",
    title="Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space",
    line="when and in which order a generative model learns concepts, and what it hides",
    family="interp",
    paper="Park, Okawa, Lee, Lubana, Tanaka, NeurIPS 2024, arXiv 2406.19370",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    metrics=(),
    tables=tables,
    figures=figures,
    colours=COLOURS,
)
