"""The figures of ``pac_invariance``, drawn from its records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import curve, groups, select
from experiments.lab.style import Palette, captioned

PANELS = ("hard + hard", "hard + rademacher", "soft + soft", "soft + rademacher")
COLOURS = Palette(
    "invariant subset",
    "ERM",
    "ICP",
    "anchor regression",
    "IRMv1",
    "random subset",
    "parents (oracle)",
)
INTERVENTIONS = Palette(*PANELS, "rademacher")
"""Of training and of new environments."""


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {
        "generalization": (generalization, "generalization 50 %"),
        "acceptance": (acceptance, "accepted sets"),
        "radius": (radius, "generalization by radius %"),
        "bound": (bound, "worst V that passes, 95 %"),
        "random_sems": (random_sems, "falsely accepted"),
        "methods": (methods, "log worst error"),
        "indirect": (indirect, "relative spread"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


def _numbers(frame: pd.DataFrame, column: str) -> list[float]:
    return sorted(frame[column].dropna().unique())


@captioned
def generalization(frame: pd.DataFrame) -> Figure:
    """How well accepted subsets generalize to new environments, by the number m of training environments: boxes over
    accepted subsets and repeats, a column per sample size N, a row per kind of intervention (training + new).
    Crosses are least squares on all features.
    """
    sizes = _numbers(select(frame, metric="generalization 50 %"), "N")
    figure = Figure(figsize=(2.6 * len(sizes) + 0.8, 7.5), layout="constrained")
    axes = figure.subplots(len(PANELS), len(sizes), squeeze=False, sharex=True, sharey=True)
    for row, panel in enumerate(PANELS):
        for column, n in enumerate(sizes):
            axis, part = axes[row, column], select(frame, dataset=panel, N=n)
            axis.bxp(_boxes(part), showfliers=False, medianprops={"color": COLOURS["invariant subset"]})
            ms = _numbers(select(part, metric="generalization 50 %"), "m")
            erm = dict(zip(*curve(select(part, method="ERM", metric="median generalization %"), "m"), strict=True))
            axis.plot(range(1, len(ms) + 1), [erm[m] for m in ms], "x", color=COLOURS["ERM"], label="all features")
            axis.set_title(f"{panel}, N = {n:,.0f}", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.supxlabel("training environments m")
    figure.supylabel("generalization %, accepted subsets")
    return figure


def _boxes(part: pd.DataFrame) -> list[dict[str, float | str]]:
    boxes = []
    for m in _numbers(select(part, metric="generalization 50 %"), "m"):
        q = {p: select(part, metric=f"generalization {p} %", m=m)["value"].iloc[0] for p in (5, 25, 50, 75, 95)}
        ends = {"whislo": q[5], "q1": q[25], "med": q[50], "q3": q[75], "whishi": q[95]}
        boxes.append({"label": f"{m:.0f}", **ends})
    return boxes


@captioned
def acceptance(frame: pd.DataFrame) -> Figure:
    """The number of accepted subsets by samples per environment; dotted is the number of subsets that are invariant in
    the population.
    """
    chosen = select(frame, metric="accepted sets").dropna(subset=["m"])
    chosen = select(chosen, m=chosen["m"].max())
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for panel, invariant in (("hard + hard", 7), ("soft + soft", 12)):
        colour = INTERVENTIONS[panel]
        axis.plot(*curve(select(chosen, dataset=panel), "N"), "o-", color=colour, label=panel.split(" + ")[0])
        axis.axhline(invariant, color=colour, linestyle=":")
    axis.set_xlabel("samples per environment")
    axis.set_ylabel("accepted subsets")
    axis.set_title("Dotted: invariant in the population", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    return figure


@captioned
def radius(frame: pd.DataFrame) -> Figure:
    """How many subsets are accepted (left) and how well they generalize (right) by the radius of the test, at the
    largest sample size.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, metric in zip(axes, ("accepted by radius", "generalization by radius %"), strict=True):
        for panel in PANELS:
            part = select(frame, metric=metric, dataset=panel).dropna(subset=["value"])
            axis.plot(*curve(part, "radius"), "o-", color=INTERVENTIONS[panel], label=panel)
        axis.set_xscale("log")
        axis.set_xlabel("radius")
        axis.set_ylabel(metric.replace(" by radius", ""))
    axes[0].legend(fontsize=7, frameon=False)
    return figure


@captioned
def bound(frame: pd.DataFrame) -> Figure:
    """The largest violation probability V among subsets that pass m environments (95th percentile over repeats), beside
    what the theorem allows (dashed).
    """
    chosen = select(frame, metric="worst V that passes, 95 %")
    radii = _numbers(chosen, "radius")
    figure = Figure(figsize=(3.4 * len(radii) + 0.6, 3.2), layout="constrained")
    for axis, size in zip(figure.subplots(1, len(radii), squeeze=False)[0], radii, strict=True):
        for (name,), part in groups(select(chosen, radius=size), "dataset"):
            axis.plot(*curve(part, "m"), "o-", color=INTERVENTIONS[_panel(name)], label=name)
        m = np.array(_numbers(chosen, "m"))
        axis.plot(m, 1 - (0.05 / 63) ** (1 / m), "k--", label="bound, δ = 0.05")
        axis.set_xscale("log")
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("environments m")
        axis.set_title(f"radius {size:g}", fontsize=9)
    figure.axes[0].set_ylabel("V, 95th percentile")
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


@captioned
def random_sems(frame: pd.DataFrame) -> Figure:
    """What is accepted in random structural models by the number of samples, of environments and of sites that are
    intervened on; a coloured line is the mean over models, grey lines are single models.
    """
    trends = select(frame, part="trends")
    plots = (
        (select(trends, along="N", metric="generalization"), "N", "generalization of accepted"),
        (select(trends, along="m", metric="falsely accepted"), "m", "falsely accepted"),
        (select(trends, along="sites", metric="accepted"), "sites", "accepted subsets"),
        (select(trends, along="sites", metric="worst V"), "sites", "worst V of accepted"),
    )
    return _curves([(part.dropna(subset=["value"]), along, label) for part, along, label in plots])


def _curves(plots: Sequence[tuple[pd.DataFrame, str, str]]) -> Figure:
    figure = Figure(figsize=(3.0 * len(plots), 2.9), layout="constrained")
    for axis, (part, along, label) in zip(figure.subplots(1, len(plots)), plots, strict=True):
        for _, single in groups(part, "seed"):
            axis.plot(*curve(single, along), color="0.8", linewidth=0.7)
        axis.plot(*curve(part, along), "o-", color=COLOURS["invariant subset"])
        axis.set_xscale("log" if along == "N" else "linear")
        axis.set_xlabel({"N": "samples N", "m": "environments m"}.get(along, along))
        axis.set_title(label, fontsize=9)
    return figure


@captioned
def methods(frame: pd.DataFrame) -> Figure:
    """The worst error in new environments over random structural models, by method; 1 is what the true mechanism
    attains.
    """
    chosen = select(frame, metric="log worst error")
    datasets = list(chosen["dataset"].unique())
    figure = Figure(figsize=(3.3 * len(datasets) + 1.2, 3.2), layout="constrained")
    names = list(chosen["method"].unique())
    for axis, dataset in zip(figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0], datasets, strict=True):
        spread = [np.exp(select(chosen, dataset=dataset, method=name)["value"].to_numpy()) for name in names]
        boxes = axis.boxplot(spread, orientation="horizontal", tick_labels=names, patch_artist=True)
        for box, median, name in zip(boxes["boxes"], boxes["medians"], names, strict=True):
            box.set(facecolor=COLOURS[name], alpha=0.6)
            median.set(color="black")
        axis.set_xscale("log")
        axis.axvline(1.0, color="black", linewidth=0.6)
        axis.set_title(dataset.removeprefix("random SEMs, "), fontsize=9)
    figure.supxlabel("worst squared error in 100 new environments / noise variance of the target", fontsize=9)
    return figure


@captioned
def indirect(frame: pd.DataFrame) -> Figure:
    """How noise on the observations breaks invariance: relative spread of the coefficients, the mean in colour and
    repeats in grey.
    """
    chosen = select(frame, metric="relative spread")
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axis = figure.subplots()
    for _, single in groups(chosen, "seed"):
        axis.plot(*curve(single, "noise"), color="0.8", linewidth=0.8)
    axis.plot(*curve(chosen, "noise"), "o-", color=COLOURS["invariant subset"])
    axis.set_xscale("symlog", linthresh=1e-6)
    axis.set_xlabel("noise variance of the observations")
    axis.set_ylabel("relative spread of coefficients")
    return figure


def _panel(kind: str) -> str:
    """The name that the colour of a kind of intervention goes by, where training and new environments have the same."""
    return f"{kind} + {kind}" if f"{kind} + {kind}" in PANELS else kind
