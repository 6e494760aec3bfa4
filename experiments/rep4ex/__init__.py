"""Identifying representations for intervention extrapolation: effects of actions beyond those ever taken.

Paper: Saengkyongam, Rosenfeld, Ravikumar, Pfister, Peters, ICLR 2024, arXiv 2310.04295.
Claim: where actions move latents linearly, an autoencoder whose codes are linear in actions up to noise finds the
latents up to an affine map; with a control function on its codes, E[Y | do(a)] is predicted far outside of the actions'
support, in spite of hidden confounding.
Command: ``relic run rep4ex --preset small --seeds 10``.
Cost: no data; smoke ends in under a minute of CPU time, small in about fifty.
"""

from collections.abc import Iterable

from experiments.lab import Context, Part, System, parts
from experiments.rep4ex.claims import CLAIMS
from experiments.rep4ex.config import PRESETS, Config
from experiments.rep4ex.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.rep4ex.study import extrapolation, identification, robustness
from experiments.rep4ex.study.uncertainty import uncertainty


def plan(config: Config, context: Context) -> Iterable[Part]:
    """All parts; each holds all seeds, whose encoders are trained as one program."""
    first, *wider = ((f"identification, d = {d}", identification.dimension(d)) for d in config.dimensions)
    measures = {
        **dict([first]), "oracle": extrapolation.oracle, "extrapolation": extrapolation.extrapolation,
        "size of the test": identification.size, **dict(wider),
    }  # fmt: skip
    if config.cost_repeats:
        measures["cost"] = identification.cost
    if config.thorough:
        measures |= {
            "dimension": robustness.dimension, "assumptions": robustness.assumptions,
            "more actions": robustness.more_actions, "uncertainty": uncertainty, "other codes": extrapolation.rivals,
            "ablations": robustness.ablations, "images": identification.images,
            "confirmation": extrapolation.confirmation,
        }  # fmt: skip
    return parts(measures)


SYSTEM = System(
    slug="rep4ex",
    title="Identifying Representations for Intervention Extrapolation",
    line="representations under which effects of unseen interventions can be predicted",
    family="causal", paper="Saengkyongam et al., ICLR 2024, arXiv 2310.04295", presets=PRESETS, plan=plan,
    claims=CLAIMS, statistics=STATISTICS, tables=TABLES, figures=FIGURES, colours=COLOURS, baseline="AE-Vanilla",
    metrics=("R^2", "MCC", "MSE of E[Y|do(a)]", "MSE of E[Y|X,do(a)]"),
)  # fmt: skip
