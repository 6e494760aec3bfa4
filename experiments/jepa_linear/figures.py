"""The table and figures of ``jepa_linear``, from its records."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import groups, interval, select, values
from experiments.lab.statistics import Statistic, statistic
from experiments.lab.style import Palette, captioned, whiskers
from latent.jepa_linear import OBJECTIVES

COLOURS = Palette(*OBJECTIVES)
STATISTICS = (
    Statistic("share", "first has *"),
    Statistic("share", "first is *"),
    Statistic("share", "nothing learned"),
    Statistic("share", "slow share kept"),
)
SHOWN = (
    "nothing learned",
    "first has largest rho",
    "first has largest lambda",
    "first is slow",
    "slow share kept",
    "rank with 1/lambda",
    "rank with 1/rho",
)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over random starts with 95 % intervals, a column per loss and depth."""
    chosen = frame.loc[frame["metric"].isin(SHOWN)].copy()
    if chosen.empty:
        return {}
    chosen["variant"] = chosen["variant"].fillna("population") if "variant" in chosen else "population"
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for place, group in chosen.groupby(["dataset", "variant", "metric", "method", "L"]):
        dataset, variant, metric, method, depth = cast(tuple[Any, ...], place)
        cells = rows.setdefault((dataset, variant, metric), {"views": dataset, "run": variant, "quantity": metric})
        cells[f"{method}, L = {depth:g}"] = interval(group["value"].to_numpy(), 2, statistic(STATISTICS, metric=metric))
    made = {
        "What is learned first, over random starts": pd.DataFrame(list(rows.values())).fillna("–"),
        "Critical times of two features, by quadrature": pairs(frame),
    }
    return {title: table for title, table in made.items() if len(table)}


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per pair of features and loss: times of the slow (strong) and the fast (weak) one at every depth."""
    chosen = select(frame, metric="critical time of a pair", kind="theory")
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for (name, objective, depth), part in groups(chosen, "dataset", "method", "L") if len(chosen) else ():
        first, second = (values(part, feature=feature)[0] for feature in ("first", "second"))
        row = rows.setdefault((name, objective), {"features": name, "loss": objective})
        row[f"L = {depth:g}"] = " / ".join(f"{t:.4g}" if np.isfinite(t) else "none" for t in (first, second))
    return pd.DataFrame(list(rows.values()))


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {
        "learning_curves": (learning_curves, "w/w*"),
        "critical_times": (critical_times, "critical time"),
        "phase_diagram": (phase_diagram, "ln t_B/t_A"),
        "order_of_learning": (order_of_learning, "first has largest rho"),
        "rank_correlations": (rank_correlations, "rank with 1/rho"),
        "bottleneck": (bottleneck, "slow share kept"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


def _grid(rows: int, columns: int, width: float = 3.0, height: float = 2.6) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.5), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="all")


@captioned
def learning_curves(frame: pd.DataFrame) -> Figure:
    """Learning curves of single features, relative to their fixed points: theory as lines, gradient descent as dots."""
    chosen = select(frame, metric="w/w*")
    depths = sorted(chosen["L"].unique())
    figure, axes = _grid(2, len(depths))
    features = Palette(*(key for key, _ in groups(chosen, "lam", "rho")))
    for row, objective in enumerate(OBJECTIVES):
        for column, depth in enumerate(depths):
            axis = axes[row, column]
            part = select(chosen, method=objective, L=depth)
            for (lam, rho), curve in groups(part, "lam", "rho"):
                for kind, style in (
                    ("theory", {}),
                    ("gradient descent", {"linestyle": "", "marker": ".", "markersize": 4}),
                ):
                    line = select(curve, kind=kind).sort_values("t")
                    label = f"λ = {lam:g}, ρ = {rho:g}" if kind == "theory" else None
                    axis.plot(line["t"], line["value"], color=features[lam, rho], label=label, **style)
            axis.set_title(f"{objective}, L = {depth:g}")
            axis.set_ylabel("w / w*" if column == 0 else "")
            axis.set_xlabel("time" if row else "")
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.suptitle("Learning curves: theory (lines) and gradient descent (dots)")
    return figure


@captioned
def critical_times(frame: pd.DataFrame) -> Figure:
    """The time until a feature is learned, by its regression coefficient ρ and its variance λ, relative to the end of
    each line so that depths compare.
    """
    chosen = select(frame, metric="critical time")
    figure = Figure(figsize=(6.6, 5.6), layout="constrained")
    axes = figure.subplots(2, 2)
    depths = Palette(*sorted(chosen["L"].unique()))
    for row, objective in enumerate(OBJECTIVES):
        for column, (axis_name, fixed, value) in enumerate((("rho", "lam", 1.0), ("lam", "rho", 0.6))):
            axis = axes[row, column]
            part = chosen.loc[(chosen["method"] == objective) & np.isclose(chosen[fixed], value)]
            for (depth,), line in groups(part, "L"):
                line = line.sort_values(axis_name)
                share = line["value"] / line["value"].iloc[-1]
                axis.plot(line[axis_name], share, color=depths[depth], label=f"L = {depth:g}")
            axis.set_xlabel("ρ at λ = 1" if axis_name == "rho" else "λ at ρ = 0.6")
            axis.set_ylabel("time, relative")
            axis.set_title(objective)
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.suptitle("Critical time (ε = 0.001)")
    return figure


@captioned
def phase_diagram(frame: pd.DataFrame) -> Figure:
    """Which of two features is learned first: colours are simulated, the black line is the theory's boundary.

    White: the fixed point of B lies so low that its share is passed at the start.
    """
    chosen = select(frame, metric="ln t_B/t_A")
    depths = sorted(chosen["L"].unique())
    figure, axes = _grid(2, len(depths))
    image = None
    for row, objective in enumerate(OBJECTIVES):
        for column, depth in enumerate(depths):
            axis = axes[row, column]
            for kind in ("gradient descent", "theory"):
                part = select(chosen, method=objective, L=depth, kind=kind)
                table = part.pivot_table(index="rho_ratio", columns="lam_ratio", values="value")
                x, y, z = table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()
                if kind == "theory":
                    if np.nanmin(z) < 0 < np.nanmax(z):
                        axis.contour(x, y, z, levels=[0.0], colors="black", linewidths=1.5)
                else:
                    image = axis.pcolormesh(x, y, z, cmap="PuOr", vmin=-1, vmax=1, shading="nearest")
            axis.set_title(f"{objective}, L = {depth:g}")
            axis.set_xlabel("λ_B / λ_A" if row else "")
            axis.set_ylabel("ρ_B / ρ_A" if column == 0 else "")
    if image is not None:
        figure.colorbar(image, ax=axes, label="ln(t_B / t_A): negative where B comes first", shrink=0.8)
    return figure


def _bars(frame: pd.DataFrame, metric: str, groups: Sequence[tuple[str, Any]], title: str, label: str) -> Figure:
    figure = Figure(figsize=(1.5 + 1.5 * len(groups), 3.2), layout="constrained")
    axis = figure.subplots()
    chosen = select(frame, metric=metric)
    depths = sorted(chosen["L"].unique())
    bars = [(o, depth) for o in OBJECTIVES for depth in depths]
    for i, (objective, depth) in enumerate(bars):
        for j, (_, mask) in enumerate(groups):
            values = select(chosen.loc[mask.loc[chosen.index]], method=objective, L=depth)["value"]
            if values.empty:
                continue
            place = j + (i - (len(bars) - 1) / 2) * 0.8 / len(bars)
            found = statistic(STATISTICS, metric=metric).of(values.to_numpy())
            name = f"{objective}, L = {depth:g}" if j == 0 else None
            shade = {"color": COLOURS[objective], "alpha": 1 - 0.5 * depths.index(depth) / len(depths)}
            axis.bar(place, found.value, 0.7 / len(bars), yerr=whiskers(found), label=name, capsize=2, **shade)
    axis.set_xticks(range(len(groups)), [name for name, _ in groups])
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set_ylabel(label)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.set_title(title)
    return figure


@captioned
def order_of_learning(frame: pd.DataFrame) -> Figure:
    """Shares of runs in which the feature with the largest regression coefficient is learned first, with 95 %
    intervals.
    """
    groups = [(name, frame["dataset"] == name) for name in ("mixed", "dynamic", "static")]
    population = [(name, mask & (frame["variant"] == "population")) for name, mask in groups]
    return _bars(frame, "first has largest rho", population, "The largest ρ is learned first", "share of runs")


@captioned
def rank_correlations(frame: pd.DataFrame) -> Figure:
    """What orders learning where covariances do not commute: rank correlation of the time to learn a feature with 1/λ
    and 1/ρ, with 95 % intervals.
    """
    both = frame.assign(
        order=frame["metric"], metric=frame["metric"].where(~frame["metric"].str.startswith("rank"), "rank")
    )
    groups = [("with 1/λ", both["order"] == "rank with 1/lambda"), ("with 1/ρ", both["order"] == "rank with 1/rho")]
    return _bars(both, "rank", groups, "Masked views: time to learn", "Spearman correlation")


@captioned
def bottleneck(frame: pd.DataFrame) -> Figure:
    """What an encoder of half the width keeps: the share of the slow features, with 95 % intervals."""
    groups = [("dynamic views", frame["dataset"] == "dynamic")]
    return _bars(frame, "slow share kept", groups, "Slow features kept", "share of squared norm")
