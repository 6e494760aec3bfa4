"""Tables and figures of ``image_cate``."""

import functools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.image_cate.study.real import DATASET as TRIAL
from experiments.lab import Palette, Statistic, compared, drawing, finish, groups, lines, panels, pivot, select
from experiments.lab.frames import curve

COLOURS = Palette(
    "effect clusters", "TARNet", "difference in means", "ridge on components", "DR-learner", "R-learner", "S-learner",
    "T-learner", "X-learner", "effect clusters, relaxed", "effect clusters, common noise", "k-means of TARNet",
    "effect clusters, no prior",
)  # fmt: skip
STATISTICS = (
    Statistic("deterministic", method="difference in means", dataset=TRIAL),
    Statistic("splits", dataset=TRIAL),
)
"""Seeds of the trial are other folds of the same people; its table of estimates shows their standard errors."""
SHOWN = ("ATE", *(f"{name}{se}" for name in ("AUTOC", "Qini", "slope", "value of treating half") for se in ("", " SE")))
costs = functools.partial(pivot, dataset="cost", across="metric", shown=lambda found: f"{found.value:.4g}")
coverage = functools.partial(pivot, "method", "cluster", dataset="S1 coverage")


def by_clusters(frame: pd.DataFrame) -> pd.DataFrame:
    """Designs by K, relative to the least K on the same data."""
    chosen = select(frame, metric="held-out log likelihood")
    if not len(chosen):
        return chosen
    first = chosen.loc[chosen["K"] == chosen["K"].min(), ["dataset", "seed", "value"]]
    both = chosen.merge(first, on=["dataset", "seed"], suffixes=("", " of the first"))
    less = both.assign(value=both["value"] - both["value of the first"], K=both["K"].map("K = {:.0f}".format))
    return pivot("dataset", "K", metric="held-out log likelihood")(less)


TABLES = {
    "Held-out log likelihood by number of clusters K, less that of the first": by_clusters,
    "90 % intervals for the clusters' effects: data sets whose truth is held": coverage(
        "share",
        metric="covered",
        shown=lambda found: "–" if np.isnan(found.value) else f"{found.value * found.n:.0f} of {found.n}",
    ),
    "90 % intervals for the clusters' effects: mean width": coverage(metric="width"),
    "Uganda, out of fold, means over fold seeds": pivot("method", "metric", "splits", dataset=TRIAL, only=SHOWN),
    "Cost of a step": costs(("draws", "images"), method="a step"),
    "Cost of RATE": costs(("draws", "n"), method="RATE"),
    "Cost of transport": costs("n", method="transport"),
}


@drawing("effect by truth")
def effects(frame: pd.DataFrame) -> Figure:
    """Estimated against true effects (left) and probabilities (right), in bins of images; on the dashed line they are
    equal.
    """
    figure, axes = panels(2)
    for axis, metric, scale in zip(axes, ("effect by truth", "p by truth"), (1.0, 0.5), strict=True):
        part = select(frame, metric=metric)
        truth = part["truth"].to_numpy() * scale
        axis.plot(truth, part["value"], "o", color=COLOURS["effect clusters"], markersize=3)
        axis.plot(ends := [truth.min(), truth.max()], ends, "k--", linewidth=0.7)
        finish(axis, "truth", metric.replace(" by truth", ", estimated"))
    return figure


@drawing("map: magnitude")
def salience(frame: pd.DataFrame) -> Figure:
    """The image of best agreement, the response that effects were made from, and what the model is sensitive to."""
    chosen = select(frame, part="map")
    names = list(chosen["metric"].unique())
    figure, axes = panels(len(names), width=2.6, height=2.7)
    for axis, name in zip(axes, names, strict=True):
        image = select(chosen, metric=name).pivot_table(index="row", columns="column", values="value").to_numpy()
        axis.imshow(image, cmap="RdBu_r" if "direction" in name else "viridis")
        finish(axis, "", "", title=name.removeprefix("map: "))
        axis.set_axis_off()
    return figure


@drawing("TOC")
def toc(frame: pd.DataFrame) -> Figure:
    """How much more the units ranked first gain than the average unit (TOC curves of the Ugandan trial), means over
    fold seeds; bands are uniform over the share treated.
    """
    chosen = select(frame, dataset=TRIAL)
    methods = list(select(chosen, metric="TOC")["method"].unique())
    figure, axes = panels(len(methods), columns=5, width=2.9, height=2.9, sharey=True)
    for axis, method in zip(axes, methods, strict=True):
        share, gain = curve(select(chosen, metric="TOC", method=method), "share")
        half = curve(select(chosen, metric="TOC half band", method=method), "share")[1]
        axis.fill_between(share, gain - half, gain + half, color=COLOURS[method], alpha=0.2, linewidth=0)
        axis.plot(share, gain, color=COLOURS[method])
        axis.axhline(0, color="black", linewidth=0.6)
        finish(axis, "share treated", "effect above the average" if axis is axes[0] else "", title=method)
    return figure


@drawing("effect at a tile, mean")
def transport(frame: pd.DataFrame) -> Figure:
    """Predicted effects by place, and their predictive deviation; means over the tiles of one rounded place."""
    figure, axes = panels(2)
    for axis, metric in zip(axes, ("mean", "sd"), strict=True):
        chosen = select(frame, metric=f"effect at a tile, {metric}")
        at = [(*place, part["value"].to_numpy().mean()) for place, part in groups(chosen, "longitude", "latitude")]
        longitude, latitude, value = np.array(at).T
        shown = axis.scatter(longitude, latitude, c=value, s=14, marker="s", cmap="viridis")
        figure.colorbar(shown, ax=axis, label=f"effect, {metric}")
        finish(axis, "longitude", "latitude")
    return figure


FIGURES = {
    "effects": effects,
    "salience": salience,
    "toc": toc,
    "quintiles": lines(
        "Whether estimated effects rank units: doubly robust effects of fifths of the units by estimated effect.",
        "effect of quintile", "group", statistic="splits", colours=COLOURS, dataset=TRIAL, shade=False,
        xlabel="fifth by estimated effect, 0 the lowest", ylabel="average effect there",
    ),
    "pehe": compared(
        "The error of estimated effects (PEHE) of every method on design S1: a dot per seed; less is better.",
        ("PEHE",), dataset="S1", colours=COLOURS,
    ),
    "transport": transport,
}  # fmt: skip
