"""Identifying representations for intervention extrapolation: effects of actions beyond those ever taken.

Paper: Saengkyongam, Rosenfeld, Ravikumar, Pfister, Peters, ICLR 2024, arXiv 2310.04295.
Claim: where actions move latents linearly, an autoencoder whose codes are linear in actions up to noise finds the
latents up to an affine map; with a control function on its codes, E[Y | do(a)] is predicted far outside of the actions'
support, in spite of hidden confounding.
Command: ``relic run rep4ex --preset small --seeds 10``.
Cost: no data; smoke ends in under a minute of CPU time, small in about fifty.
"""

from collections.abc import Callable

from experiments.lab.system import Context, System
from experiments.rep4ex.claims import CLAIMS, STATISTICS
from experiments.rep4ex.config import PRESETS, Config
from experiments.rep4ex.figures import COLOURS, figures, tables
from experiments.rep4ex.study import extrapolation, identification, robustness
from experiments.rep4ex.study.confirmation import confirmation
from experiments.rep4ex.study.cost import cost
from experiments.rep4ex.study.oracle import oracle
from experiments.rep4ex.study.uncertainty import uncertainty


def run(config: Config, context: Context) -> None:
    """All parts; each holds all seeds, whose encoders are trained as one program."""
    first, *wider = ((f"identification, d = {d}", identification.dimension(d)) for d in config.dimensions)
    parts: dict[str, Callable[[Config, Context], None]] = dict([first])
    parts |= {"oracle": oracle, "extrapolation": extrapolation.extrapolation, "size of the test": identification.size}
    parts |= dict(wider)
    if config.cost_repeats:
        parts["cost"] = cost
    if config.thorough:
        parts |= {**robustness.PARTS, "uncertainty": uncertainty, "other codes": extrapolation.rivals}
        parts |= {"ablations": robustness.ablations, "images": identification.images}
        parts["confirmation"] = confirmation
    context.cells({"part": name} for name in parts)
    for name, part in parts.items():
        if not context.done(part=name):
            context.say(f"rep4ex: {name}")
            part(config, context)
            context.finish(part=name)


SYSTEM = System(
    slug="rep4ex",
    title="Representations for intervention extrapolation",
    family="causal",
    paper="Saengkyongam et al., ICLR 2024, arXiv 2310.04295",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("R^2", "MCC", "MSE of E[Y|do(a)]", "MSE of E[Y|X,do(a)]"),
    baseline="AE-Vanilla",
    tables=tables,
    figures=figures,
    colours=COLOURS,
)
