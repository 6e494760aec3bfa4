"""EK-FAC influence functions as a vocabulary of small stages; see :mod:`interp.ekfac.influence` for the short way.

capture -> covariance -> eigenbasis -> eigenvalue_correction -> damp -> precondition -> scores
"""

from interp.ekfac.capture import Block, Capture, Coverage, Record, capture, dense
from interp.ekfac.curvature import (
    Curvature,
    Eigen,
    Factors,
    absolute,
    corrected,
    covariance,
    damp,
    eigenbasis,
    eigenvalue_correction,
    heuristic,
    kfac,
    posterior_sample,
    precondition,
    precondition_tree,
    standard_basis,
)
from interp.ekfac.fisher import Fisher, empirical, exact, sampled
from interp.ekfac.influence import (
    Fitted,
    Kind,
    damped_curvature,
    depth_scores,
    fit_curvature,
    influence,
    most_influential,
    paired_token_scores,
    prepared_influence,
    prepared_queries,
    self_influence,
)
from interp.ekfac.optimizer import EkfacState, ekfac_precondition
from interp.ekfac.scores import (
    LowRank,
    gradient_matrices,
    in_batches,
    layer_scores,
    loss_records,
    low_rank,
    pairwise,
    prepare,
    self_scores,
    token_scores,
)
from interp.ekfac.stages import BATCH_AXES, Examples, Sums, merge, steps_of, sweep, whole
from interp.ekfac.top import Top, merge_tops, top

__all__ = [
    "BATCH_AXES", "Block", "Capture", "Coverage", "Curvature", "Eigen", "EkfacState", "Examples", "Factors", "Fisher",
    "Fitted", "Kind", "LowRank", "Record", "Sums", "Top", "absolute", "capture", "corrected", "covariance", "damp",
    "damped_curvature", "dense", "depth_scores", "eigenbasis", "eigenvalue_correction", "ekfac_precondition",
    "empirical", "exact", "fit_curvature", "gradient_matrices", "heuristic", "in_batches", "influence", "kfac",
    "layer_scores", "loss_records", "low_rank", "merge", "merge_tops", "most_influential", "paired_token_scores",
    "pairwise", "posterior_sample", "precondition", "precondition_tree", "prepare", "prepared_influence",
    "prepared_queries", "sampled", "self_influence", "self_scores", "standard_basis", "steps_of", "sweep",
    "token_scores", "top", "whole",
]  # fmt: skip
