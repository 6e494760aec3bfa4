"""What EK-FAC influence is compared with: exact and iterative solves, gradients, responses by optimisation, retraining.

All scores are [query, example] and positive where a training example lowers the query's loss.
"""

from interp.attribution.evaluation import (
    correlation,
    detection_auc,
    linear_datamodelling_scores,
    random_subsets,
    retrained_losses,
    without_top,
)
from interp.attribution.gauss_newton import block_influence, exact_influence, per_example_gradients
from interp.attribution.gradients import (
    cosine,
    dot_product,
    gaussian_projection,
    label_margin,
    label_residual,
    output_margin,
    representation,
    tracin,
    trak,
)
from interp.attribution.iterative import conjugate_gradient, largest_eigenvalue, lissa
from interp.attribution.methods import by_exact_curvature, by_gradients, by_iteration
from interp.attribution.pbrf import response
from interp.attribution.training import batch_learner, checkpoints, retraining

__all__ = [
    "batch_learner", "block_influence", "by_exact_curvature", "by_gradients", "by_iteration", "checkpoints",
    "conjugate_gradient", "correlation", "cosine", "detection_auc", "dot_product", "exact_influence",
    "gaussian_projection", "label_margin", "label_residual", "largest_eigenvalue", "linear_datamodelling_scores",
    "lissa", "output_margin", "per_example_gradients", "random_subsets", "representation", "response",
    "retrained_losses", "retraining", "tracin", "trak", "without_top",
]  # fmt: skip
