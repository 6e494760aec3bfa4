"""Multi-modal Gaussian-process variational autoencoders: smooth latents, shared and private, of joint recordings.

Paper: Gondur, Sikandar, Schaffer, Aoi, Keeley, Multi-modal Gaussian Process Variational Autoencoders for Neural and
Behavioral Data, ICLR 2024, arXiv 2310.03111; reference code RabiaGondur/MM-GPVAE.
Claim: with variational parameters in a pruned Fourier domain, spike counts and images recorded together yield the
latents that they share and those of their own, better than single modalities, a plain VAE or a time-domain GP-VAE.
Command: ``relic run mm_gpvae --preset small --seeds 10``.
Cost: smoke needs no data and ends in under a minute on 2 idle CPU cores; small takes about four minutes per seed,
MNIST's test images (downloaded if not there) and, where they are in the data directory, the recordings
``monkey_reach_dad``.
Expect: R2 above 0.9 for the shared and the neural latent, above 0.6 for the zoom.

All seeds and restarts of a variant are one program. The paper's comparisons are figures without numbers that we could
read.
"""

import functools
from collections.abc import Iterable

from core.datasets import monkey_reach
from experiments.lab import Context, Part, System, part
from experiments.mm_gpvae import study
from experiments.mm_gpvae.claims import CLAIMS
from experiments.mm_gpvae.config import PRESETS, Config
from experiments.mm_gpvae.figures import COLOURS, FIGURES, STATISTICS, TABLES


def plan(config: Config, context: Context) -> Iterable[Part]:
    """Simulation by variant, the main one first, the monkey's recordings, baselines, and time by length."""
    parts = {f"simulation, {v}": functools.partial(study.simulated, variant=v) for v in config.variants}
    order = {**dict(list(parts.items())[:1]), "monkey": study.monkey, **parts}
    order |= {"baselines": study.baselines, "scale": study.scale}
    if not config.monkey_steps or monkey_reach.locate("chewie", context.data_dir) is None:
        context.say("mm_gpvae: without the monkey's recordings (no steps, or not in the data directory)")
        order.pop("monkey")
    for name, measure in order.items():
        yield part(measure, part=name, seeds=",".join(map(str, context.seeds)))


SYSTEM = System(
    slug="mm_gpvae",
    title="Multi-modal Gaussian Process Variational Autoencoders for Neural and Behavioral Data",
    line="smooth latents, shared and private, of recordings made together",
    family="latent",
    paper="Gondur et al., ICLR 2024, arXiv 2310.03111",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("shared R2", "neural R2", "zoom R2", "rate R2", "bits/spike", "image MSE", "velocity R2"),
    baseline="MM-GPVAE",
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
    data=("mnist", "monkey_reach_dad"),
)
