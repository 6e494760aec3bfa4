"""Representations of brain potentials: what a beta-VAE, chosen by UDR and named by SCAN, says of people.

Paper: Honke, Higgins, Thigpen, Miskovic, Link, Duan, Gupta, Klawohn, Hajcak, Representation learning for improved
interpretability and classification accuracy of clinical factors from EEG, 2020, arXiv 2010.15274.
Claim: one unsupervised representation of event-related potentials serves many clinical labels, better than the
canonical late positive potential (LPP); single latents carry labels; ERPs are read off single trials.
Command: ``relic run scan_eeg --preset small --seeds 20``.
Cost: smoke about two minutes of CPU time, most of it compilation; small about two minutes of two cores per seed; paper
is for an accelerator. Public recordings are used where they are found.
Expect: age, sex and anxiety, which the LPP cannot tell, are told by ten latents at 0.91, 0.72 and 0.81, and depression
as well as by the LPP (0.81); PCA and an autoencoder do as well, but their components are no factors.

All seeds of the simulated part are trained as one program, so that they are one cell.
"""

from collections.abc import Iterable

from experiments.lab import Context, Part, System, part
from experiments.scan_eeg.claims import CLAIMS
from experiments.scan_eeg.config import PRESETS, Config
from experiments.scan_eeg.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.scan_eeg.study import real
from experiments.scan_eeg.study.cost import cost
from experiments.scan_eeg.study.planted import planted
from latent.scan_eeg import LABELS


def plan(config: Config, context: Context) -> Iterable[Part]:
    """The planted people of all seeds, real recordings where there are some, and what training costs."""
    yield part(planted, stage="simulated", seeds=",".join(map(str, context.seeds)))
    for name, measure in (real.measures(context) if config.real else {}).items():
        yield part(measure, stage=name)
    yield part(cost, stage="cost")


SYSTEM = System(
    slug="scan_eeg",
    title="Representation learning for improved interpretability and classification accuracy of clinical "
    "factors from EEG",
    line="disentangled representations of event-related potentials, and clinical concepts in them",
    family="latent",
    paper="Honke et al., 2020, arXiv 2010.15274",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=(*LABELS, "balanced accuracy"),
    baseline="LPP difference + LR",
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
    data=("erp_uci_subject_means", "erp_smni_train", "erp_impulsivity"),
)
