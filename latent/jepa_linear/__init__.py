"""How JEPA avoids noisy features: deep linear self-distillation, its exact dynamics and its simulation.

Littwin et al., How JEPA Avoids Noisy Features: The Implicit Bias of Deep Linear Self Distillation Networks, NeurIPS
2024, arXiv 2407.03475.
"""

from latent.jepa_linear.dynamics import (
    DeepLinear,
    aligned,
    descended_times,
    ema_target_learner,
    encoder_norms,
    gaussian,
    learner,
    minibatch_sampler,
    norms_over_time,
    orthogonal,
    record,
)
from latent.jepa_linear.moments import (
    Features,
    Moments,
    dynamic_features,
    masked_moments,
    principal_directions,
    random_basis,
    sample_moments,
    static_features,
)
from latent.jepa_linear.theory import (
    OBJECTIVES,
    Objective,
    critical_time,
    critical_time_series,
    fixed_point,
    learned_at,
    rate,
    trajectory,
)

__all__ = [
    "OBJECTIVES",
    "DeepLinear",
    "Features",
    "Moments",
    "Objective",
    "aligned",
    "critical_time",
    "critical_time_series",
    "descended_times",
    "dynamic_features",
    "ema_target_learner",
    "encoder_norms",
    "fixed_point",
    "gaussian",
    "learned_at",
    "learner",
    "masked_moments",
    "minibatch_sampler",
    "norms_over_time",
    "orthogonal",
    "principal_directions",
    "random_basis",
    "rate",
    "record",
    "sample_moments",
    "static_features",
    "trajectory",
]
