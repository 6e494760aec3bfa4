"""How good estimated effects are, judged on units that they were not estimated from."""

from typing import NamedTuple

import flax.struct
from jaxtyping import Array, Float, Int, Key

from causal.treatment_effects.calibration import Calibration, calibration
from causal.treatment_effects.inference import Clusters, Column, Estimate
from causal.treatment_effects.ranking import Rate, rate_estimate
from causal.treatment_effects.scores import policy_value
from core.checks import checked


class Evaluation(NamedTuple):
    """Three views of estimated effects, with standard errors clustered by group."""

    rate: Rate
    calibration: Calibration
    value: Estimate
    """Gain per unit over treating nobody, of treating those whose estimated effect exceeds the cost."""


@checked
def evaluate(key: Key[Array, ""], effect: Column, scores: Column, clusters: Clusters, cost: float = 0.0) -> Evaluation:
    """RATE, calibration and policy value of effects estimated on other units, see :func:`dr_scores`."""
    return Evaluation(
        rate_estimate(key, effect, scores, clusters),
        calibration(effect, scores, clusters),
        policy_value(effect > cost, scores, clusters, cost),
    )


@flax.struct.dataclass
class OutOfFold:
    """Of every unit, by models that saw no outcome of its group, apart from the mean and sd of all."""

    effect: Float[Array, " n"]
    scores: Float[Array, " n"]
    """Doubly robust, see :func:`dr_scores`."""
    group: Int[Array, " n"]
    groups: int = flax.struct.field(pytree_node=False)

    @property
    def clusters(self) -> Clusters:
        """For the functions that judge effects."""
        return Clusters(self.group, self.groups)

    def evaluate(self, key: Key[Array, ""], cost: float = 0.0) -> Evaluation:
        """See :func:`evaluate`."""
        return evaluate(key, self.effect, self.scores, self.clusters, cost)
