"""Causal diffusion autoencoders: counterfactual images, against exact counterfactuals and on real digits.

Paper: Komanduri, Zhao, Chen, Wu, Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion
Probabilistic Models, ECAI 2024, arXiv 2404.17735.
Claim: a diffusion autoencoder whose code follows a known causal graph generates counterfactuals in which descendants of
an intervened variable follow, and all else stays.
Command: ``relic run causal_diffae --preset small``.
Cost: smoke needs no data and two minutes of CPU time, nearly all compilation; small some ten minutes of 2 CPU cores,
and real MorphoMNIST only where it is in the data directory; paper is for an accelerator.
Expect: with gamma up to 1 the counterfactual strokes are closer to the true ones than the factual strokes are, those of
a diffusion autoencoder without mechanisms and labels are not.
"""

from experiments.causal_diffae.claims import CLAIMS, STATISTICS
from experiments.causal_diffae.config import PRESETS, Config
from experiments.causal_diffae.figures import COLOURS, figures, tables
from experiments.causal_diffae.study import digits, scores, worlds
from experiments.lab.system import Context, Published, System


def run(config: Config, context: Context) -> None:
    """Strokes with all seeds at once, then real digits, then the small worlds."""
    context.cells([*scores.cells(context), *digits.cells(config, context), *worlds.cells(context)])
    scores.run(config, context)
    digits.run(config, context)
    worlds.run(config, context)


PUBLISHED: tuple[Published, ...] = ()
"""The paper's tables could not be verified, and are on other data: no number of theirs is a target here."""

METRICS = (
    "cf-MSE do(t)",
    "cf-MSE do(i)",
    "r(i), do(t)",
    "MAE(t) measured, do(t)",
    "MAE(i) measured, do(t)",
    "MAE(t) predicted, do(t)",
    "MAE(i) predicted, do(t)",
    "Frechet, do(t)",
    "minimality, do(t)",
    "composition l1, 1",
    "composition l1, 10",
    "reconstruction MSE",
    "DCI disentanglement",
)

SYSTEM = System(
    slug="causal_diffae",
    title="Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion Probabilistic Models",
    line="counterfactual images from a diffusion autoencoder with a causal latent space",
    family="causal",
    paper="Komanduri, Zhao, Chen, Wu, ECAI 2024, arXiv 2404.17735",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=METRICS,
    baseline="CausalDiffAE",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("morphomnist_ti",),
)
