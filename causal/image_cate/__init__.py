"""Image-based treatment effect heterogeneity by Bayesian convolutional networks and clusters of effects.

Jerzak, Johansson, Daoud, CLeaR 2023, arXiv 2206.06417.
"""

from causal.image_cate.designs import Design, Experiment, response_map, simulate, standardised
from causal.image_cate.ensembles import Ensemble, half_sampled
from causal.image_cate.estimator import EffectClusters, FittedClusters, optimiser
from causal.image_cate.intervals import Features, Heads, last_layers, refit, sandwich
from causal.image_cate.layers import BayesConv, BayesDense, Normal, normal_kl, posteriors, total_kl
from causal.image_cate.model import (
    TRAINING_AXES,
    ClusterModel,
    Effects,
    Prior,
    Training,
    blended_log_density,
    draw_effects,
    mixture_log_density,
)
from causal.image_cate.network import ConvTrunk, EffectNetwork, Outputs
from causal.image_cate.posterior import (
    Mixture,
    Posterior,
    Predicted,
    Transported,
    cluster_posterior,
    held_out_log_likelihood,
    predict,
    quantile,
    transport,
)
from causal.image_cate.priors import cluster_prior, empirical_prior, kernel_prior
from causal.image_cate.salience import Sensitivity, box_mean, by_segment, sensitivity, smoothed_log_odds
from causal.image_cate.sampling import SHARED_X, by_image, of_units, sample_balanced_keys, sample_images, together

__all__ = [
    "SHARED_X",
    "TRAINING_AXES",
    "BayesConv",
    "BayesDense",
    "ClusterModel",
    "ConvTrunk",
    "Design",
    "EffectClusters",
    "EffectNetwork",
    "Effects",
    "Ensemble",
    "Experiment",
    "Features",
    "FittedClusters",
    "Heads",
    "Mixture",
    "Normal",
    "Outputs",
    "Posterior",
    "Predicted",
    "Prior",
    "Sensitivity",
    "Training",
    "Transported",
    "blended_log_density",
    "box_mean",
    "by_image",
    "by_segment",
    "cluster_posterior",
    "cluster_prior",
    "draw_effects",
    "empirical_prior",
    "half_sampled",
    "held_out_log_likelihood",
    "kernel_prior",
    "last_layers",
    "mixture_log_density",
    "normal_kl",
    "of_units",
    "optimiser",
    "posteriors",
    "predict",
    "quantile",
    "refit",
    "response_map",
    "sample_balanced_keys",
    "sample_images",
    "sandwich",
    "sensitivity",
    "simulate",
    "smoothed_log_odds",
    "standardised",
    "together",
    "total_kl",
    "transport",
]
