"""Image-based treatment effect heterogeneity: clusters of images by the effect of a treatment there.

Paper: Jerzak, Johansson, Daoud, Image-based treatment effect heterogeneity, CLeaR 2023, arXiv 2206.06417.
Claim: a Bayesian convolutional network finds a few clusters of images whose units share a distribution of effects, and
estimates effects better than the average and than networks with an unrestricted effect.
Command: ``relic run image_cate --preset small --seeds 5``.
Cost: smoke takes about a minute of processor time, most of it compilation; small about half an hour.
Expect: PEHE 0.37 for the effect clusters on a planted spot, 0.46 for TARNet with the same trunk, 0.82 for the average.

Satellite images, the Ugandan trial and IHDP are used where the data directory holds them; textures with planted spots
stand in for the images otherwise.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from core.datasets import ihdp, uganda
from core.records import Scalar
from experiments.image_cate.claims import CLAIMS, STATISTICS
from experiments.image_cate.config import PRESETS, Config
from experiments.image_cate.figures import COLOURS, figures, tables
from experiments.image_cate.study.cost import cost
from experiments.image_cate.study.coverage import coverage
from experiments.image_cate.study.real import elsewhere, tabular, trial
from experiments.image_cate.study.simulated import heterogeneity, none, number_of_clusters
from experiments.image_cate.study.variants import ablations, baselines, variants
from experiments.image_cate.study.worlds import Pictures, pictures
from experiments.lab.system import Context, System

ON_IMAGES: dict[str, Callable[[Config, Context, Pictures], None]] = {
    "S1": heterogeneity,
    "S2": none,
    "coverage": coverage,
    "clusters": number_of_clusters,
    "cost": cost,
    "baselines": baselines,
    "ablations": ablations,
}
REAL: dict[str, tuple[Callable[[Config, Context], None], Callable[[Path | None], Path | None]]] = {
    "Uganda": (trial, uganda.locate),
    "transport": (elsewhere, uganda.locate),
    "IHDP": (tabular, ihdp.locate),
}
"""What is measured on real data, and where they would be."""


def run(config: Config, context: Context) -> None:
    """The chosen parts; those with seeds hold all seeds, which are trained as one program."""
    load = functools.cache(lambda: pictures(config, context))
    there = [name for name in config.parts if name not in REAL or REAL[name][1](context.data_dir)]
    if absent := [name for name in config.parts if name not in there]:
        context.say(f"image_cate: the data of {', '.join(absent)} are not in the data directory; left out")
    context.cells(cell_of(name, context) for name in there)
    context.cells(variants(context) if "ablations" in there else [])
    for name in there:
        cell = cell_of(name, context)
        if context.done(**cell):
            continue
        context.say(f"image_cate: {name}")
        if name in REAL:
            REAL[name][0](config, context)
        else:
            ON_IMAGES[name](config, context, load())
        context.finish(**cell)


def cell_of(name: str, context: Context) -> dict[str, Scalar]:
    """The name of a part among the records; those on real data have seeds of their own."""
    of_seeds: dict[str, Scalar] = {} if name in REAL else {"seeds": ",".join(map(str, context.seeds))}
    return {"stage": name, **of_seeds}


SYSTEM = System(
    slug="image_cate",
    title="Image-based Treatment Effect Heterogeneity",
    line="clusters of satellite images by the effect of a treatment there",
    family="causal",
    paper="Jerzak, Johansson, Daoud, CLeaR 2023, arXiv 2206.06417",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    metrics=("PEHE", "corr(tau)", "corr(p)", "largest |mu error|", "ATE error", "AUTOC", "Qini", "ATE", "root PEHE"),
    statistics=STATISTICS,
    baseline="TARNet",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("uganda_yop_images", "ihdp10"),
)
