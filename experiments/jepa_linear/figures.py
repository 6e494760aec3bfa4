"""Tables and figures of ``jepa_linear``."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.stats import Summary
from experiments.lab import Palette, Statistic, compared, drawing, finish, groups, panels, pivot, select
from experiments.lab.statistics import Kind
from experiments.lab.system import Drawing
from latent.jepa_linear import OBJECTIVES

COLOURS = Palette(*OBJECTIVES)
STATISTICS = (
    Statistic("share", "first has *"),
    Statistic("share", "first is *"),
    Statistic("share", "nothing learned"),
    Statistic("share", "slow share kept"),
)
FIRSTS = ("nothing learned", "first has largest rho", "first has largest lambda", "first is slow")
RANKS = ("rank with 1/lambda", "rank with 1/rho")


def time(found: Summary) -> str:
    """A time, with four digits."""
    return f"{found.value:.4g}" if np.isfinite(found.value) else "none"


TABLES = {
    "What is learned first, over random starts": pivot(
        ("dataset", "variant", "method", "L"), "metric", "share", only=FIRSTS
    ),
    "Masked views: rank correlation of the time to learn a feature, over random starts": pivot(
        ("method", "L"), "metric", only=RANKS
    ),
    "Dynamic views: the share of slow features that half of the width keeps, over random starts": pivot(
        "L", "method", "share", metric="slow share kept"
    ),
    "Critical times of two features, by quadrature": pivot(
        ("dataset", "method", "feature"), "L", "median", shown=time, metric="critical time of a pair",
        kind="theory",
    ),
}  # fmt: skip


def by_depth(chosen: pd.DataFrame, height: float = 2.6) -> tuple[Figure, Iterator[tuple[Axes, str, float]]]:
    """A figure with a row per loss and a column per depth, and its panels."""
    depths = sorted(chosen["L"].unique())
    figure, axes = panels(2 * len(depths), 3.0, height, columns=len(depths), sharex="all")
    return figure, ((axis, *place) for axis, place in zip(axes, itertools.product(OBJECTIVES, depths), strict=True))


@drawing("w/w*")
def learning_curves(frame: pd.DataFrame) -> Figure:
    """Learning curves of single features, relative to their fixed points: theory as lines, gradient descent as dots."""
    chosen = select(frame, metric="w/w*")
    figure, places = by_depth(chosen)
    features = Palette(*(key for key, _ in groups(chosen, "lam", "rho")))
    for axis, objective, depth in places:
        for (lam, rho), curve in groups(select(chosen, method=objective, L=depth), "lam", "rho"):
            theory, seen = (select(curve, kind=kind).sort_values("t") for kind in ("theory", "gradient descent"))
            axis.plot(theory["t"], theory["value"], color=features[lam, rho], label=f"λ = {lam:g}, ρ = {rho:g}")
            axis.plot(seen["t"], seen["value"], ".", color=features[lam, rho], markersize=4)
        finish(axis, "time", "w / w*", title=f"{objective}, L = {depth:g}")
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


@drawing("critical time")
def critical_times(frame: pd.DataFrame) -> Figure:
    """The time until a feature is learned (from ε = 0.001), by its regression coefficient ρ and its covariance λ,
    relative to the end of each line so that depths compare.
    """
    chosen = select(frame, metric="critical time")
    figure, axes = panels(4, 3.0, 2.8, columns=2)
    depths = Palette(*sorted(chosen["L"].unique()))
    sides = (("rho", "lam", 1.0, "ρ at λ = 1"), ("lam", "rho", 0.6, "λ at ρ = 0.6"))
    for axis, (objective, (along, fixed, value, label)) in zip(axes, itertools.product(OBJECTIVES, sides), strict=True):
        part = select(chosen, method=objective)
        for (depth,), line in groups(part.loc[np.isclose(part[fixed], value)], "L"):
            line = line.sort_values(along)
            axis.plot(line[along], line["value"] / line["value"].iloc[-1], color=depths[depth], label=f"L = {depth:g}")
        finish(axis, label, "time, relative", title=objective)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


@drawing("ln t_B/t_A")
def phase_diagram(frame: pd.DataFrame) -> Figure:
    """Which of two features is learned first: colours are simulated, the black line is the theory's boundary.

    White: the fixed point of B lies so low that its share is passed at the start.
    """
    chosen = select(frame, metric="ln t_B/t_A")
    figure, places = by_depth(chosen)
    image: Any = None
    for axis, objective, depth in places:
        part = select(chosen, method=objective, L=depth)
        seen, theory = (
            select(part, kind=kind).pivot_table(index="rho_ratio", columns="lam_ratio", values="value")
            for kind in ("gradient descent", "theory")
        )
        grid = seen.columns.to_numpy(), seen.index.to_numpy()
        image = axis.pcolormesh(*grid, seen.to_numpy(), cmap="PuOr", vmin=-1, vmax=1, shading="nearest")
        if np.nanmin(theory) < 0 < np.nanmax(theory):
            axis.contour(theory.columns, theory.index, theory, levels=[0.0], colors="black", linewidths=1.5)
        finish(axis, "λ_B / λ_A", "ρ_B / ρ_A", title=f"{objective}, L = {depth:g}")
    figure.colorbar(image, ax=figure.axes, label="ln(t_B / t_A): negative where B comes first", shrink=0.8)
    return figure


class ByLoss(Palette):
    """The colour of a loss, at any depth."""

    def __getitem__(self, name: Any) -> str:
        return COLOURS[name.partition(",")[0]]


def by_loss_and_depth(caption: str, names: Sequence[str], names_in: str, statistic: Kind, **where: Any) -> Drawing:
    """A panel for each of some values of a column, with a line per loss and depth."""
    draw = compared(caption, names, by="run", statistic=statistic, colours=ByLoss(*OBJECTIVES), reference=0)

    def drawn(frame: pd.DataFrame) -> Figure | None:
        chosen = select(frame, **where)
        runs = [f"{o}, L = {depth:g}" for o, depth in zip(chosen["method"], chosen["L"], strict=True)]
        return draw(chosen.assign(run=runs, metric=chosen[names_in]).sort_values("run"))

    return drawn


FIGURES = {
    "learning_curves": learning_curves,
    "critical_times": critical_times,
    "phase_diagram": phase_diagram,
    "order_of_learning": by_loss_and_depth(
        "Shares of runs in which the feature with the largest regression coefficient ρ is learned first, by views, "
        "with 95 % intervals.", ("mixed", "dynamic", "static"), "dataset", "share", metric="first has largest rho",
        variant="population",
    ),
    "rank_correlations": by_loss_and_depth(
        "What orders learning where covariances do not commute (masked views): rank correlation of the time to learn a "
        "feature with 1/λ and 1/ρ, with 95 % intervals.", RANKS, "metric", "mean", part="ranks",
    ),
    "bottleneck": by_loss_and_depth(
        "What an encoder of half the width keeps of dynamic views: the slow features' share of its squared norm, with "
        "95 % intervals.", ("slow share kept",), "metric", "share", part="bottleneck",
    ),
}  # fmt: skip
