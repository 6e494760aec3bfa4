"""Image-based treatment effect heterogeneity: clusters of images by the effect of a treatment there.

Paper: Jerzak, Johansson, Daoud, Image-based treatment effect heterogeneity, CLeaR 2023, arXiv 2206.06417.
Claim: a Bayesian convolutional network finds a few clusters of images whose units share a distribution of effects, and
estimates effects better than the average and than networks with an unrestricted effect.
Command: ``relic run image_cate --preset small --seeds 5``.
Cost: smoke takes about a minute of processor time, most of it compilation; small about an hour.
Expect: PEHE 0.37 for the effect clusters on a planted spot, 0.46 for TARNet with the same trunk, 0.82 for the average.

Satellite images, the Ugandan trial and IHDP are used where the data directory holds them; textures with planted spots
stand in for the images otherwise.
"""

import functools
from collections.abc import Callable, Iterable

from core.datasets import ihdp, uganda
from experiments.image_cate.claims import CLAIMS
from experiments.image_cate.config import PRESETS, Config
from experiments.image_cate.figures import COLOURS, FIGURES, STATISTICS, TABLES
from experiments.image_cate.study.cost import cost
from experiments.image_cate.study.real import elsewhere, tabular, trial
from experiments.image_cate.study.simulated import (
    OURS,
    VARIANTS,
    ablation,
    baselines,
    coverage,
    heterogeneity,
    none,
    number_of_clusters,
)  # fmt: skip
from experiments.image_cate.study.worlds import pictures
from experiments.lab import Context, Part, System, part

ON_IMAGES = {
    "S1": heterogeneity, "S2": none, "coverage": coverage, "clusters": number_of_clusters, "cost": cost,
    "baselines": baselines,
}  # fmt: skip
REAL = {
    "Uganda": (trial, uganda.locate), "transport": (elsewhere, uganda.locate), "IHDP": (tabular, ihdp.locate),
}  # fmt: skip
"""What is measured on real data, and where they would be."""


def plan(config: Config, context: Context) -> Iterable[Part]:
    """The chosen parts, of which those on simulated data hold all seeds, and those on real data have their own."""
    load = functools.cache(lambda: pictures(config, context))
    there = [name for name in config.parts if name not in REAL or REAL[name][1](context.data_dir)]
    if absent := [name for name in config.parts if name not in there]:
        context.say(f"image_cate: the data of {', '.join(absent)} are not in the data directory; left out")
    seeds = ",".join(map(str, context.seeds))

    def on_images(measure: Callable[..., None], **settings: str) -> Callable[[Config, Context], None]:
        return lambda config, context: measure(config, context, load(), **settings)

    for name in there:
        if name in REAL:
            yield part(REAL[name][0], stage=name)
        elif name == "ablations":
            for variant in VARIANTS:
                yield part(on_images(ablation, name=variant), method=f"{OURS}, {variant}", seeds=seeds)
        else:
            yield part(on_images(ON_IMAGES[name]), stage=name, seeds=seeds)


SYSTEM = System(
    slug="image_cate",
    title="Image-based Treatment Effect Heterogeneity",
    line="clusters of satellite images by the effect of a treatment there",
    family="causal",
    paper="Jerzak, Johansson, Daoud, CLeaR 2023, arXiv 2206.06417",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    metrics=("PEHE", "corr(tau)", "corr(p)", "largest |mu error|", "ATE error", "AUTOC", "Qini", "ATE", "root PEHE"),
    statistics=STATISTICS,
    baseline="TARNet",
    tables=TABLES,
    figures=FIGURES,
    colours=COLOURS,
    data=("uganda_yop_images", "ihdp10"),
)
