"""Multi-modal Gaussian-process variational autoencoders: smooth latents, shared and private, of joint recordings.

Paper: Gondur, Sikandar, Schaffer, Aoi, Keeley, Multi-modal Gaussian Process Variational Autoencoders for Neural and
Behavioral Data, ICLR 2024, arXiv 2310.03111; reference code RabiaGondur/MM-GPVAE.
Claim: with variational parameters in a pruned Fourier domain, spike counts and images recorded together yield the
latents that they share and those of their own, better than single modalities, a plain VAE or a time-domain GP-VAE.
Command: ``relic run mm_gpvae --preset small``.
Cost: smoke needs no data and ends in under a minute on 2 idle CPU cores; small takes about twenty minutes, MNIST's test
images (downloaded if not there) and, where they are in the data directory, the recordings ``monkey_reach_dad``.
Expect: R2 above 0.9 for the shared and the neural latent, above 0.6 for the zoom.

All seeds and restarts of a variant are one program.
"""

from experiments.lab.system import Published, System
from experiments.mm_gpvae.claims import CLAIMS, STATISTICS
from experiments.mm_gpvae.config import PRESETS
from experiments.mm_gpvae.figures import COLOURS, figures
from experiments.mm_gpvae.study import run
from experiments.mm_gpvae.tables import tables

PUBLISHED: tuple[Published, ...] = ()
"""The paper's comparisons are figures without numbers that we could read."""


SYSTEM = System(
    slug="mm_gpvae",
    title="Multi-modal Gaussian Process Variational Autoencoders for Neural and Behavioral Data",
    line="smooth latents, shared and private, of recordings made together",
    family="latent",
    paper="Gondur et al., ICLR 2024, arXiv 2310.03111",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("shared R2", "neural R2", "zoom R2", "rate R2", "bits/spike", "image MSE", "velocity R2"),
    baseline="MM-GPVAE",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("mnist", "monkey_reach_dad"),
)
