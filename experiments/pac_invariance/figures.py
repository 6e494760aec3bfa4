"""Tables and figures of ``pac_invariance``."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import Palette, along, drawing, finish, groups, line, lines, panels, pivot, select
from experiments.lab.style import plain_log
from experiments.pac_invariance.claims import CASES, PASSES, M, N
from experiments.pac_invariance.config import GENERALIZATION, MEDIAN
from experiments.pac_invariance.config import PANELS as PAIRS

STATISTICS = (GENERALIZATION,)
PANELS = tuple(" + ".join(pair) for pair in PAIRS)
OURS = "invariant subset"
COLOURS = Palette(OURS, "ERM", "ICP", "anchor regression", "IRMv1", "random subset", "parents (oracle)")
INTERVENTIONS = Palette(*PANELS, "rademacher")
"""Of training and of new environments."""


def accepting(values: np.ndarray) -> np.ndarray:
    """Those of repeats that accept a subset, all where none does."""
    return values[~np.isnan(values)] if np.isfinite(values).any() else values


def at_the_bound(frame: pd.DataFrame) -> pd.DataFrame:
    """How often a subset passes with V > z at the (m, z) of the claim, of how many repeats, beside the bound."""
    shown = pd.concat([select(frame, metric=PASSES, m=m, z=z) for m, z in CASES])
    return pivot(("dataset", "radius", "m", "z", "repeats", "bound"), "metric")(shown)


TABLES = {
    "By training environments and samples: accepted sets": pivot(
        ("dataset", "N"), "m", metric="accepted sets", method="subsets"
    ),
    "By training environments and samples: median generalization %": pivot(
        ("dataset", "N"), "m", metric=MEDIAN, method="subsets", of=accepting
    ),
    f"Subsets that survive, N = {N:,}, m = {M}": pivot(
        "set", "dataset", STATISTICS, metric="generalization of a set %", N=N
    ),
    "Bound for finite classes": at_the_bound,
    "Relative spread of coefficients by noise on the observations": pivot("dataset", "noise", metric="relative spread"),
    "Sachs' cells": pivot(("protein", "method", "set"), "metric", "deterministic", dataset="sachs"),
}  # fmt: skip


@drawing("generalization 50 %")
def generalization(frame: pd.DataFrame) -> Figure:
    """How well accepted subsets generalize to new environments, by the number m of training environments: boxes over
    accepted subsets and repeats, a column per sample size N, a row per kind of intervention (training + new).
    Crosses are least squares on all features.
    """
    sizes = sorted(select(frame, metric="generalization 50 %")["N"].dropna().unique())
    figure, axes = panels(len(PANELS) * len(sizes), 2.6, 1.9, columns=len(sizes), sharex=True, sharey=True)
    for axis, (panel, n) in zip(axes, ((panel, n) for panel in PANELS for n in sizes), strict=True):
        part = select(frame, dataset=panel, N=n)
        quantiles = {q: along(select(part, metric=f"generalization {q} %"), "m") for q in (5, 25, 50, 75, 95)}
        names = ("whislo", "q1", "med", "q3", "whishi")
        boxes = [
            {"label": f"{m:.0f}", **{name: quantiles[q][i][1].value for name, q in zip(names, quantiles, strict=True)}}
            for i, (m, _) in enumerate(quantiles[50])
        ]
        axis.bxp(boxes, showfliers=False, medianprops={"color": COLOURS[OURS]})
        erm = [found.value for _, found in along(select(part, method="ERM", metric=MEDIAN).dropna(subset=["m"]), "m")]
        axis.plot(range(1, len(erm) + 1), erm, "x", color=COLOURS["ERM"], label="all features")
        finish(axis, "", "", title=f"{panel}, N = {n:,.0f}", legend=axis is axes[0])
    figure.supxlabel("training environments m")
    figure.supylabel("generalization %, accepted subsets")
    return figure


@drawing("generalization by radius %")
def radius(frame: pd.DataFrame) -> Figure:
    """How many subsets are accepted (left) and how well they generalize (right) by the radius of the test, at the
    largest sample size.
    """
    figure, axes = panels(2)
    for axis, metric in zip(axes, ("accepted by radius", "generalization by radius %"), strict=True):
        for panel in PANELS:
            part = select(frame, metric=metric, dataset=panel).dropna(subset=["value"])
            line(axis, along(part, "radius"), color=INTERVENTIONS[panel], label=panel)
        finish(axis, "radius", metric.replace(" by radius", ""), log="x", legend=axis is axes[0])
    return figure


@drawing("worst V that passes, 95 %")
def bound(frame: pd.DataFrame) -> Figure:
    """The largest violation probability V among subsets that pass m environments (95th percentile over repeats), beside
    what the theorem allows (dashed).
    """
    chosen = select(frame, metric="worst V that passes, 95 %")
    radii, m = (sorted(chosen[name].unique()) for name in ("radius", "m"))
    figure, axes = panels(len(radii))
    for axis, size in zip(axes, radii, strict=True):
        for (name,), part in groups(select(chosen, radius=size), "dataset"):
            colour = INTERVENTIONS[f"{name} + {name}" if f"{name} + {name}" in PANELS else name]
            line(axis, along(part, "m"), shade=False, color=colour, label=name)
        axis.plot(m, 1 - (0.05 / 63) ** (1 / np.array(m)), "k--", label="bound, δ = 0.05")
        axis.set_ylim(-0.02, 1.02)
        first = axis is axes[0]
        finish(axis, "environments m", "V, 95th percentile" * first, log="x", title=f"radius {size:g}", legend=first)
        plain_log(axis.xaxis)
    return figure


@drawing("falsely accepted")
def random_sems(frame: pd.DataFrame) -> Figure:
    """What is accepted in random structural models by the number of samples, of environments and of sites that are
    intervened on; a coloured line is the mean over models, grey lines are single models.
    """
    figure, axes = panels(4, 3.0, 2.9)
    plots = (("N", "generalization"), ("m", "falsely accepted"), ("sites", "accepted"), ("sites", "worst V"))
    for axis, (x, metric) in zip(axes, plots, strict=True):
        part = select(frame, part="trends", along=x, metric=metric).dropna(subset=["value"])
        for _, single in groups(part, "seed"):
            line(axis, along(single, x), shade=False, color="0.8", linewidth=0.7, marker="")
        line(axis, along(part, x), color=COLOURS[OURS])
        name = {"N": "samples N", "m": "environments m"}.get(x, x)
        finish(axis, name, "", log="x" if x == "N" else "", title=metric)
    return figure


@drawing("log worst error")
def methods(frame: pd.DataFrame) -> Figure:
    """The worst error in new environments over random structural models, by method; 1 is what the true mechanism
    attains.
    """
    chosen = select(frame, metric="log worst error")
    datasets, names = list(chosen["dataset"].unique()), list(chosen["method"].unique())
    figure, axes = panels(len(datasets), sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        spread = [np.exp(select(chosen, dataset=dataset, method=name)["value"].to_numpy()) for name in names]
        boxes = axis.boxplot(spread, orientation="horizontal", tick_labels=names, patch_artist=True)["boxes"]
        for box, name in zip(boxes, names, strict=True):
            box.set(facecolor=COLOURS[name], alpha=0.6)
        axis.axvline(1.0, color="black", linewidth=0.6)
        finish(axis, "", "", log="x", title=dataset.removeprefix("random SEMs, "))
    figure.supxlabel("worst squared error in 100 new environments / noise variance of the target", fontsize=9)
    return figure


def indirect(frame: pd.DataFrame) -> Figure | None:
    """Noise from 0 on a logarithmic axis."""
    if figure := SPREADS(frame):
        figure.axes[0].set_xscale("symlog", linthresh=1e-6)
    return figure


SPREADS = lines(
    "How noise on the observations breaks invariance: relative spread of the coefficients, and thin lines for repeats.",
    "relative spread", "noise", single=True, xlabel="noise variance of the observations",
)  # fmt: skip
FIGURES = {
    "generalization": generalization,
    "acceptance": lines(
        f"The number of accepted subsets by samples per environment, at m = {M}; in the population 12 are invariant "
        "under soft interventions (dotted) and 7 under hard ones.",
        "accepted sets", "N", by="dataset", only=("hard + hard", "soft + soft"), method="subsets", m=M, reference=12,
        colours=INTERVENTIONS, xlabel="samples per environment", ylabel="accepted subsets",
    ),
    "radius": radius,
    "bound": bound,
    "random_sems": random_sems,
    "methods": methods,
    "indirect": indirect,
}  # fmt: skip
