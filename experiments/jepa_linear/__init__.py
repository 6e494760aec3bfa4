"""How JEPA avoids noisy features: the order in which deep linear encoders learn, in theory and in simulation.

Paper: Littwin, Saremi, Advani, Thilak, Nakkiran, Huang, Susskind, How JEPA Avoids Noisy Features: The Implicit Bias of
Deep Linear Self Distillation Networks, NeurIPS 2024, arXiv 2407.03475.
Claim: predicting in latent space (JEPA) with a deep encoder learns features with a large regression coefficient first,
predicting in input space (MAE) those with a large covariance.
Command: ``relic run jepa_linear --preset small --seeds 1``.
Cost: no data; smoke ends in under a minute on 2 CPU cores, small in a few minutes.
Expect: at depth 3 MAE learns the feature with the largest covariance first from nearly all random starts and JEPA from
none; from aligned starts JEPA turns from a fast to a slow feature as it gets deeper, and MAE does not.

The only randomness is that of starts and samples; ``replications`` of them run as one program, whatever ``--seeds`` is.
"""

from collections.abc import Iterable

from experiments.jepa_linear.claims import CLAIMS
from experiments.jepa_linear.config import PRESETS, Config
from experiments.jepa_linear.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.jepa_linear.study import aligned_starts, random_starts
from experiments.jepa_linear.study.cost import cost
from experiments.lab import Context, Part, System, parts


def plan(config: Config, context: Context) -> Iterable[Part]:
    """All parts; each holds all starts, which run as one program."""
    measures = aligned_starts.PARTS | random_starts.PARTS
    return parts(measures | {"cost": cost} if config.cost_steps else measures)


SYSTEM = System(
    slug="jepa_linear",
    title="How JEPA Avoids Noisy Features: The Implicit Bias of Deep Linear Self Distillation Networks",
    line="deep linear JEPA and autoencoder in closed form: which features are learned first",
    family="latent",
    paper="Littwin et al., NeurIPS 2024, arXiv 2407.03475",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    statistics=STATISTICS,
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
)
