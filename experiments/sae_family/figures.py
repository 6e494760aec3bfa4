"""Figures of the family: error against sparsity, firing frequencies, and error inside a language model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import groups, select, values
from experiments.lab.style import Palette, captioned

METHODS = ("TopK", "BatchTopK", "Gated", "JumpReLU", "ReLU, L1")
COLOURS = Palette(*METHODS)


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those for which there are records."""
    drawn = {"pareto": pareto(frame), "densities": densities(frame), "scaling": scaling(frame)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


@captioned
def pareto(frame: pd.DataFrame) -> Figure | None:
    """What is lost (left, the fraction of variance unexplained) and which planted features are found (right) by the
    number of active latents; means over seeds. The dotted line is the true number of active features.
    """
    chosen = select(frame, dataset="planted sweep")
    if not len(chosen):
        return None
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, metric, label in ((left, "fvu", "FVU"), (right, "mean max cosine", "mean best cosine to features")):
        for method in METHODS:
            points = points_of(chosen, method, metric)
            if len(points):
                axis.plot(*points.T, marker="o", markersize=3.5, label=method, **COLOURS.line(method))
        axis.axvline(6, color="0.7", linestyle=":", linewidth=1)
        axis.set(xscale="log", xlabel="active latents per example (L0)", ylabel=label)
    left.set_yscale("log")
    right.legend(frameon=False, fontsize="small")
    return figure


def points_of(frame: pd.DataFrame, method: str, metric: str) -> np.ndarray:
    """[knobs, 2]: mean L0 and mean of the metric over seeds, by L0."""
    found = [
        (values(part, metric="l0").mean(), values(part, metric=metric).mean())
        for _, part in groups(select(frame, method=method), "knob")
    ]
    return np.array(sorted(point for point in found if point[0] > 0))


@captioned
def densities(frame: pd.DataFrame) -> Figure | None:
    """How often latents fire, a line per seed; silent latents are at the left end."""
    chosen = select(frame, metric="latents in bin")
    if not len(chosen):
        return None
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    seeds = Palette(*sorted(chosen["seed"].unique()))
    for (seed,), part in groups(chosen, "seed"):
        part = part.sort_values("log_density")
        axis.step(part["log_density"], part["value"], where="post", label=f"seed {seed}", **seeds.line(seed))
    axis.set(xlabel="log10 firing frequency (silent ones at the left end)", ylabel="latents")
    axis.legend(frameon=False, fontsize="small")
    return figure


@captioned
def scaling(frame: pd.DataFrame) -> Figure | None:
    """How much of a decoder's residual stream a dictionary leaves unexplained, by its number of latents; a line per
    number of active ones, means over seeds.
    """
    chosen = select(frame, dataset="decoder", metric="fvu")
    if not len(chosen):
        return None
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    ks = Palette(*sorted(chosen["k"].unique()))
    for (k,), part in groups(chosen, "k"):
        means = [(m, values(same).mean()) for (m,), same in groups(part, "m")]
        axis.plot(*zip(*means, strict=True), marker="o", markersize=3.5, label=f"k = {k:g}", **ks.line(k))
    axis.set(xscale="log", yscale="log", xlabel="latents", ylabel="FVU")
    axis.legend(frameon=False, fontsize="small")
    return figure
