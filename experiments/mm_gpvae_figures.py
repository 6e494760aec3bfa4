"""The figures of ``mm_gpvae``, drawn from its records."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.stats import summary
from experiments.frames import groups, select, values
from experiments.style import Palette, captioned, whiskers

LATENTS = ("neural", "shared", "zoom")
COLOURS = Palette(
    "MM-GPVAE", "time domain", "GPFA", "CCA", "average", "unpruned", "counts only", "images only", "ridge regression",
)  # fmt: skip
SEEN = Palette("all modalities", "counts alone")


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {
        "trajectories": (trajectories, "aligned"),
        "recovery": (recovery, "shared R2"),
        "missing_velocity": (missing_velocity, "velocity R2, counts alone"),
        "scale": (scale, "seconds of the divergence"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


@captioned
def trajectories(frame: pd.DataFrame) -> Figure:
    """Latents of one test trial: the truth, and what two models infer after alignment."""
    figure = Figure(figsize=(9.5, 2.9), layout="constrained")
    for axis, latent in zip(figure.subplots(1, 3), LATENTS, strict=True):
        rows = select(frame, kind="trajectory", latent=latent)
        truth = select(rows, metric="truth", method="MM-GPVAE").sort_values("t")
        axis.plot(truth["t"], truth["value"], color="black", label="truth")
        for method in ("MM-GPVAE", "time domain"):
            line = select(rows, metric="aligned", method=method).sort_values("t")
            axis.plot(line["t"], line["value"], label=method, **COLOURS.line(method))
        axis.set_title(latent)
        axis.set_xlabel("bin")
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.suptitle("Latents of a test trial after alignment")
    return figure


@captioned
def recovery(frame: pd.DataFrame) -> Figure:
    """How well each method recovers the latents: dots are seeds, squares are means with 95 % intervals."""
    rows = select(frame, dataset="simulation")
    for column in ("restart", "kind", "part"):
        rows = rows[rows[column].isna()] if column in rows else rows
    methods = list(rows["method"].unique())[::-1]
    figure = Figure(figsize=(9.5, 0.5 + 0.3 * max(4, len(methods))), layout="constrained")
    for axis, latent in zip(figure.subplots(1, 3, sharey=True), LATENTS, strict=True):
        for place, method in enumerate(methods):
            _interval(axis, values(rows, method=method, metric=f"{latent} R2"), place, COLOURS[method])
        axis.set_yticks(range(len(methods)), methods)
        axis.set_xlabel(f"R² of the {latent}{'' if latent == 'zoom' else ' latent'}")
        axis.grid(axis="x", linewidth=0.3)
    return figure


def _interval(axis, found: np.ndarray, place: int, colour: str) -> None:
    axis.plot(found, np.full(len(found), place), ".", color=colour, alpha=0.5)
    if len(found) > 1:
        s = summary(found)
        axis.errorbar(s.value, place, xerr=whiskers(s), color=colour, marker="s", markersize=4, capsize=2)


@captioned
def missing_velocity(frame: pd.DataFrame) -> Figure:
    """How well the monkey's velocity is decoded with all modalities, and from spike counts alone: dots are seeds,
    squares are means with 95 % intervals.
    """
    rows = select(frame, dataset="chewie")
    methods = list(rows["method"].unique())[::-1]
    figure = Figure(figsize=(7.0, 2.2), layout="constrained")
    axis = figure.subplots()
    for place, method in enumerate(methods):
        for metric, seen in (("velocity R2", "all modalities"), ("velocity R2, counts alone", "counts alone")):
            _interval(axis, values(rows, method=method, metric=metric), place, SEEN[seen])
    axis.set_yticks(range(len(methods)), methods)
    axis.set_xlabel("R² of the velocity: all modalities (blue), counts alone (orange)")
    axis.grid(axis="x", linewidth=0.3)
    return figure


@captioned
def scale(frame: pd.DataFrame) -> Figure:
    """Seconds of a training step and of the divergence by number of bins, medians over repeats."""
    figure = Figure(figsize=(6.6, 2.8), layout="constrained")
    for axis, what in zip(figure.subplots(1, 2), ("a step", "the divergence"), strict=True):
        rows = select(frame, dataset="timing", metric=f"seconds of {what}", trials=16)
        for (domain,), part in groups(rows, "method"):
            median = part.groupby("bins")["value"].median()
            axis.loglog(median.index, median.to_numpy(), marker=".", label=domain, **COLOURS.line(domain))
        axis.set_xlabel("bins")
        axis.set_title(what)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure
