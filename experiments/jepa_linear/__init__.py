"""How JEPA avoids noisy features: the order in which deep linear encoders learn, in theory and in simulation.

Paper: Littwin, Saremi, Advani, Thilak, Nakkiran, Huang, Susskind, How JEPA Avoids Noisy Features: The Implicit Bias of
Deep Linear Self Distillation Networks, NeurIPS 2024, arXiv 2407.03475.
Claim: predicting in latent space (JEPA) with a deep encoder learns features with a large regression coefficient first,
predicting in input space (MAE) those with a large covariance.
Command: ``relic run jepa_linear --preset small``.
Cost: no data; smoke ends in under a minute on 2 CPU cores, small in a few minutes.
Expect: at depth 3 MAE learns the feature with the largest covariance first from nearly all random starts and JEPA from
none; from aligned starts JEPA turns from a fast to a slow feature as it gets deeper, and MAE does not.

The only randomness is that of starts and samples; ``replications`` of them run as one program, whatever ``--seeds`` is.
"""

from experiments.jepa_linear.claims import CLAIMS
from experiments.jepa_linear.config import PRESETS
from experiments.jepa_linear.figures import COLOURS, STATISTICS, figures, tables
from experiments.jepa_linear.study import run
from experiments.lab.system import System

SYSTEM = System(
    slug="jepa_linear",
    title="How JEPA Avoids Noisy Features: The Implicit Bias of Deep Linear Self Distillation Networks",
    line="deep linear JEPA and autoencoder in closed form: which features are learned first",
    family="latent",
    paper="Littwin et al., NeurIPS 2024, arXiv 2407.03475",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=(),
    tables=tables,
    figures=figures,
    colours=COLOURS,
)
