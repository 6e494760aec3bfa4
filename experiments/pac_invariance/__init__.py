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

import functools
from collections.abc import Iterable

from experiments.lab import Context, Part, System, parts
from experiments.pac_invariance import study
from experiments.pac_invariance.claims import CLAIMS
from experiments.pac_invariance.config import MEDIAN, PRESETS, Config
from experiments.pac_invariance.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.pac_invariance.published import PUBLISHED


def plan(config: Config, context: Context) -> Iterable[Part]:
    """All parts, computed in double precision."""
    measures = {f"study, N = {n}": functools.partial(study.replication, n=n) for n in config.samples}
    measures |= {"radius": study.radius_sweep, "intercept": study.intercept, "cost": study.cost}
    measures |= {"bound": study.bound, "trends": study.trends}
    measures |= {f"methods, d = {d}": functools.partial(study.methods, d=d) for d in config.compared}
    measures |= {"indirect": study.indirect, "sachs": study.cells}
    return parts({name: study.double(measure) for name, measure in measures.items()})


SYSTEM = System(
    slug="pac_invariance",
    title="PAC Generalization via Invariant Representations",
    line="how many training environments make an invariant representation generalise",
    family="causal",
    paper="Parulekar, Shanmugam, Shakkottai, ICML 2023, arXiv 2205.15196",
    presets=PRESETS,
    plan=plan,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("accepted sets", MEDIAN, "log mean error", "log worst error"),
    baseline="ERM",
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
    data=("sachs_interventions",),
)
