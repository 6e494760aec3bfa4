"""Figures of the family: error against sparsity, firing frequencies, and error inside a language model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.frames import COLOURS, groups, select, values

METHODS = ("TopK", "BatchTopK", "Gated", "JumpReLU", "ReLU, L1")


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those for which there are records."""
    drawn = {"pareto": pareto(frame), "densities": densities(frame), "scaling": scaling(frame)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def pareto(frame: pd.DataFrame) -> Figure | None:
    """FVU and recovery against L0, a point per dictionary and a line through the means."""
    chosen = select(frame, dataset="planted sweep")
    if not len(chosen):
        return None
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, metric, label in ((left, "fvu", "FVU"), (right, "mean max cosine", "mean best cosine to features")):
        for colour, method in zip(COLOURS, METHODS, strict=False):
            points = points_of(chosen, method, metric)
            if len(points):
                axis.plot(*points.T, marker="o", markersize=3.5, color=colour, label=method)
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


def densities(frame: pd.DataFrame) -> Figure | None:
    """Latents by log10 of their firing frequency."""
    chosen = select(frame, metric="latents in bin")
    if not len(chosen):
        return None
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    for seed, part in groups(chosen, "seed"):
        part = part.sort_values("log_density")
        axis.step(part["log_density"], part["value"], where="post", label=f"seed {seed[0]}")
    axis.set(xlabel="log10 firing frequency (silent ones at the left end)", ylabel="latents")
    axis.legend(frameon=False, fontsize="small")
    return figure


def scaling(frame: pd.DataFrame) -> Figure | None:
    """FVU on a decoder's residual stream against m, a line per k."""
    chosen = select(frame, dataset="decoder", metric="fvu")
    if not len(chosen):
        return None
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    for colour, ((k,), part) in zip(COLOURS, groups(chosen, "k"), strict=False):
        means = [(m, values(same).mean()) for (m,), same in groups(part, "m")]
        axis.plot(*zip(*means, strict=True), marker="o", markersize=3.5, color=colour, label=f"k = {k:g}")
    axis.set(xscale="log", yscale="log", xlabel="latents", ylabel="FVU")
    axis.legend(frameon=False, fontsize="small")
    return figure
