"""Multi-modal Gaussian-process variational autoencoders with parameters in the Fourier domain.

Gondur, Sikandar, Schaffer, Aoi, Keeley, Multi-modal Gaussian Process Variational Autoencoders for Neural and Behavioral
Data, ICLR 2024, arXiv 2310.03111.
"""

from latent.mm_gpvae.alignment import Score, affine_r2, aligned, bits_per_spike, r2, score
from latent.mm_gpvae.elbo import (
    dense_kl,
    diagonal_kl,
    expected_gaussian,
    expected_poisson,
    gaussian,
    in_time,
    log_mean_rate,
    read_out,
    variance_in_time,
)
from latent.mm_gpvae.fourier import (
    Basis,
    fourier_basis,
    highest_frequency,
    rbf,
    spectrum,
    stitch,
    windings,
    windows,
)
from latent.mm_gpvae.fusion import Expert, Partition, Posterior, average, product
from latent.mm_gpvae.gpfa import Gpfa, Inferred, gpfa_learner, infer
from latent.mm_gpvae.gpfa import latents as gpfa_latents
from latent.mm_gpvae.learner import BATCH_AXES, bound, first_params, learner, reference_optimizer, rising, weighted
from latent.mm_gpvae.model import MMGPVAE, Decoder, Domain, Recognition, Terms, Trials
from latent.mm_gpvae.simulate import Simulation, drawn_threes, gp_draws, simulate, warp

__all__ = [
    "BATCH_AXES",
    "MMGPVAE",
    "Basis",
    "Decoder",
    "Domain",
    "Expert",
    "Gpfa",
    "Inferred",
    "Partition",
    "Posterior",
    "Recognition",
    "Score",
    "Simulation",
    "Terms",
    "Trials",
    "affine_r2",
    "aligned",
    "average",
    "bits_per_spike",
    "bound",
    "dense_kl",
    "diagonal_kl",
    "drawn_threes",
    "expected_gaussian",
    "expected_poisson",
    "first_params",
    "fourier_basis",
    "gaussian",
    "gp_draws",
    "gpfa_latents",
    "gpfa_learner",
    "highest_frequency",
    "in_time",
    "infer",
    "learner",
    "log_mean_rate",
    "product",
    "r2",
    "rbf",
    "read_out",
    "reference_optimizer",
    "rising",
    "score",
    "simulate",
    "spectrum",
    "stitch",
    "variance_in_time",
    "warp",
    "weighted",
    "windings",
    "windows",
]
