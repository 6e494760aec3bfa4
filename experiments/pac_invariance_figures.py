"""The figures of ``pac_invariance``, drawn from its records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.frames import COLOURS, curve, groups, select

PANELS = ("hard + hard", "hard + rademacher", "soft + soft", "soft + rademacher")


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


def generalization(frame: pd.DataFrame) -> Figure:
    """Boxes over accepted subsets and repeats, by m; a column per N, a row per panel. Least squares as crosses."""
    sizes = _numbers(select(frame, metric="generalization 50 %"), "N")
    figure = Figure(figsize=(2.6 * len(sizes) + 0.8, 7.5), layout="constrained")
    axes = figure.subplots(len(PANELS), len(sizes), squeeze=False, sharex=True, sharey=True)
    for row, panel in enumerate(PANELS):
        for column, n in enumerate(sizes):
            axis, part = axes[row, column], select(frame, dataset=panel, N=n)
            axis.bxp(_boxes(part), showfliers=False, medianprops={"color": COLOURS[1]})
            ms = _numbers(select(part, metric="generalization 50 %"), "m")
            erm = dict(zip(*curve(select(part, method="ERM", metric="median generalization %"), "m"), strict=True))
            axis.plot(range(1, len(ms) + 1), [erm[m] for m in ms], "x", color=COLOURS[0], label="all features")
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


def acceptance(frame: pd.DataFrame) -> Figure:
    """Accepted subsets by samples."""
    chosen = select(frame, metric="accepted sets").dropna(subset=["m"])
    chosen = select(chosen, m=chosen["m"].max())
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for colour, panel in zip(COLOURS, ("hard + hard", "soft + soft"), strict=False):
        axis.plot(*curve(select(chosen, dataset=panel), "N"), "o-", color=colour, label=panel.split(" + ")[0])
    for colour, count in zip(COLOURS, (7, 12), strict=False):
        axis.axhline(count, color=colour, linestyle=":")
    axis.set_xlabel("samples per environment")
    axis.set_ylabel("accepted subsets")
    axis.set_title("Dotted: invariant in the population", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    return figure


def radius(frame: pd.DataFrame) -> Figure:
    """Accepted subsets and their generalization by radius, at the largest N."""
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, metric in zip(axes, ("accepted by radius", "generalization by radius %"), strict=True):
        for colour, panel in zip(COLOURS, PANELS, strict=False):
            part = select(frame, metric=metric, dataset=panel).dropna(subset=["value"])
            axis.plot(*curve(part, "radius"), "o-", color=colour, label=panel)
        axis.set_xscale("log")
        axis.set_xlabel("radius")
        axis.set_ylabel(metric.replace(" by radius", ""))
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def bound(frame: pd.DataFrame) -> Figure:
    """The largest violation probability that passes m environments, beside what the bound allows at 95 %."""
    chosen = select(frame, metric="worst V that passes, 95 %")
    radii = _numbers(chosen, "radius")
    figure = Figure(figsize=(3.4 * len(radii) + 0.6, 3.2), layout="constrained")
    for axis, size in zip(figure.subplots(1, len(radii), squeeze=False)[0], radii, strict=True):
        for colour, ((name,), part) in zip(COLOURS, groups(select(chosen, radius=size), "dataset"), strict=False):
            axis.plot(*curve(part, "m"), "o-", color=colour, label=name)
        m = np.array(_numbers(chosen, "m"))
        axis.plot(m, 1 - (0.05 / 63) ** (1 / m), "k--", label="bound, δ = 0.05")
        axis.set_xscale("log")
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("environments m")
        axis.set_title(f"radius {size:g}", fontsize=9)
    figure.axes[0].set_ylabel("V, 95th percentile")
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


def random_sems(frame: pd.DataFrame) -> Figure:
    """Random SEMs: by samples, by environments, by sites."""
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
        axis.plot(*curve(part, along), "o-", color=COLOURS[0])
        axis.set_xscale("log" if along == "N" else "linear")
        axis.set_xlabel({"N": "samples N", "m": "environments m"}.get(along, along))
        axis.set_title(label, fontsize=9)
    return figure


def methods(frame: pd.DataFrame) -> Figure:
    """The worst error in new environments over random SEMs, by method; 1 is what the truth attains."""
    chosen = select(frame, metric="log worst error")
    datasets = list(chosen["dataset"].unique())
    figure = Figure(figsize=(3.3 * len(datasets) + 1.2, 3.2), layout="constrained")
    names = list(chosen["method"].unique())
    for axis, dataset in zip(figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0], datasets, strict=True):
        spread = [np.exp(select(chosen, dataset=dataset, method=name)["value"].to_numpy()) for name in names]
        axis.boxplot(spread, orientation="horizontal", tick_labels=names, medianprops={"color": COLOURS[1]})
        axis.set_xscale("log")
        axis.axvline(1.0, color="black", linewidth=0.6)
        axis.set_title(dataset.removeprefix("random SEMs, "), fontsize=9)
    figure.supxlabel("worst squared error in 100 new environments / noise variance of the target", fontsize=9)
    return figure


def indirect(frame: pd.DataFrame) -> Figure:
    """Spread of the coefficients by noise on the observations."""
    chosen = select(frame, metric="relative spread")
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axis = figure.subplots()
    for _, single in groups(chosen, "seed"):
        axis.plot(*curve(single, "noise"), color="0.8", linewidth=0.8)
    axis.plot(*curve(chosen, "noise"), "o-", color=COLOURS[0])
    axis.set_xscale("symlog", linthresh=1e-6)
    axis.set_xlabel("noise variance of the observations")
    axis.set_ylabel("relative spread of coefficients")
    return figure
