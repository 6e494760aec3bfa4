"""PAC generalization of approximately invariant representations: which subsets stay invariant in new environments.

Paper: Parulekar, Shanmugam, Shakkottai, PAC Generalization via Invariant Representations, ICML 2023,
arXiv 2205.15196.
Claim: what is approximately invariant on enough training interventions, with enough samples each, is approximately
invariant on a new intervention of the same family; how many are needed does not depend on the ambient dimension.
Command: ``relic run pac_invariance --preset small``.
Cost: no data; smoke ends in under a minute on 2 CPU cores, small in about five.
Expect: with 45,000 samples the 12 invariant subsets are accepted and hold in 97 to 100 % of new soft interventions,
while least squares on all features holds in none of the hard ones.

The only randomness is that of environments and samples; ``repeats`` of them run, whatever ``--seeds`` is.
Sachs' cells are looked at where the data directory holds them.
"""

from experiments.lab.system import System
from experiments.pac_invariance.claims import CLAIMS, PUBLISHED, STATISTICS
from experiments.pac_invariance.config import PRESETS
from experiments.pac_invariance.figures import COLOURS, figures
from experiments.pac_invariance.study import run
from experiments.pac_invariance.tables import tables

SYSTEM = System(
    slug="pac_invariance",
    title="PAC Generalization via Invariant Representations",
    line="how many training environments make an invariant representation generalise",
    family="causal",
    paper="Parulekar, Shanmugam, Shakkottai, ICML 2023, arXiv 2205.15196",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("accepted sets", "median generalization %", "log mean error", "log worst error"),
    baseline="ERM",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("sachs_interventions",),
)
