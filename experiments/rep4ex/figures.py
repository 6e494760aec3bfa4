"""Tables and figures of ``rep4ex``, from its records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import curve, groups, interval, select, values
from experiments.lab.style import Palette, captioned

MSE = "MSE of E[Y|do(a)]"
EXTRAPOLATION = "extrapolation, d = 2"
MAIN = ("Rep4Ex-CF-Oracle", "Rep4Ex-CF", "AE-Vanilla + CF", "OLS on A", "MLP on A", "engression on A")
COLOURS = Palette(*MAIN, "AE-MMR", "AE-Vanilla", "PCA")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Those whose records are there."""
    made = {
        "Median error of E[Y|do(a)] outside of the support": medians(frame),
        "Diagnostics and other regressions of step 2 (medians over worlds)": diagnostics(frame),
        "The oracle by support and confounding: MSE of E[Y|do(a)]": oracle(frame),
        "Violated assumptions, d = 2, alpha = 2": by_kind(frame, "violated", ("R^2", "p of the constraint", MSE)),
        "Dimension of the code, d = 2": dimensions(frame),
        "Four actions for two latents, linear Y: rejections of the over-identification test at 5 %": more(frame),
        "Ablations, d = 2, alpha = 2": ablations(frame),
        "MSE of E[Y|do(a)] by confounding": confounding(frame),
    }
    return {title: table for title, table in made.items() if not table.empty}


def medians(frame: pd.DataFrame) -> pd.DataFrame:
    """With the range over worlds, as errors are skewed."""
    chosen = select(frame, dataset=EXTRAPOLATION, metric=MSE)
    rows = []
    for method in chosen["method"].unique():
        found = values(chosen, method=method)
        spread = f"{found.min():.3g} to {found.max():.3g}"
        rows.append({"method": method, "median": f"{np.median(found):.3g}", "range": spread, "worlds": len(found)})
    return pd.DataFrame(rows)


def diagnostics(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per quantity, a column per method."""
    chosen = select(frame, kind="diagnostics")
    rows: dict[str, dict[str, str]] = {}
    for (metric, method), part in groups(chosen, "metric", "method") if len(chosen) else ():
        rows.setdefault(metric, {"quantity": metric})[method] = f"{part['value'].median():.3g}"
    return pd.DataFrame(list(rows.values())).fillna("–")


def oracle(frame: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over worlds."""
    chosen = select(frame, part="oracle")
    rows = []
    for place, part in groups(chosen, "dataset", "alpha", "gamma", "confounding") if len(chosen) else ():
        row: dict[str, Any] = dict(zip(("latents", "alpha", "gamma", "confounding"), place, strict=True))
        for (method,), own in groups(part, "method"):
            row[method] = f"{np.exp(np.log(own['value'].to_numpy()).mean()):.3g}"
        rows.append(row)
    return pd.DataFrame(rows)


def by_kind(frame: pd.DataFrame, along: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Medians over worlds by what was changed and method."""
    chosen = select(frame, kind="robustness")
    if along not in chosen:
        return pd.DataFrame()
    rows = []
    for (what, method), part in groups(chosen.dropna(subset=[along]), along, "method"):
        row = {along: what, "method": method}
        rows.append(row | {metric: f"{np.median(values(part, metric=metric)):.3g}" for metric in metrics})
    return pd.DataFrame(rows)


def dimensions(frame: pd.DataFrame) -> pd.DataFrame:
    """R^2 and singular values, medians over worlds."""
    chosen = select(frame, method="AE-MMR", kind="robustness")
    if "encoder" not in chosen:
        return pd.DataFrame()
    rows: dict[str, dict[str, str]] = {}
    for (metric, code), part in groups(chosen.dropna(subset=["encoder"]), "metric", "encoder"):
        rows.setdefault(metric, {"quantity": metric})[code] = f"{part['value'].median():.3g}"
    return pd.DataFrame(list(rows.values())).fillna("–")


def more(frame: pd.DataFrame) -> pd.DataFrame:
    """How often, with and without a direct effect of the actions."""
    chosen = select(frame, metric="p of over-identification")
    rows: dict[str, dict[str, str]] = {}
    for (what, method), part in groups(chosen, "actions", "method") if len(chosen) else ():
        rejected = np.count_nonzero(part["value"].to_numpy() <= 0.05)
        rows.setdefault(what, {"outcome": what})[method] = f"{rejected} of {len(part)}"
    return pd.DataFrame(list(rows.values())).fillna("–")


def ablations(frame: pd.DataFrame) -> pd.DataFrame:
    """R^2 with intervals over worlds."""
    chosen = select(frame, kind="robustness", metric="R^2")
    if "ablation" not in chosen:
        return pd.DataFrame()
    chosen = chosen.dropna(subset=["ablation"])
    rows = [
        {"what": method, "R^2": interval(values(chosen, method=method))}
        for method in chosen["method"].unique()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def confounding(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians over worlds."""
    chosen = select(frame, metric="MSE by confounding")
    rows: dict[float, dict[str, str]] = {}
    for (c, method), part in groups(chosen, "confounding", "method") if len(chosen) else ():
        rows.setdefault(c, {"confounding": f"{c:g}"})[method] = f"{part['value'].median():.3g}"
    return pd.DataFrame(list(rows.values()))


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {
        "identification": (identification, "R^2"),
        "curves": (curves, "E[Y|do(a, 0)]"),
        "distance": (distance, "MSE by distance"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


@captioned
def identification(frame: pd.DataFrame) -> Figure:
    """How well latents are identified, by the strength of the intervention, in a panel per number of latents: every
    world is a dot, lines are means.
    """
    chosen = select(frame, metric="R^2").copy()
    place = chosen["dataset"].str.extract(r"^d = (?P<d>\d+), alpha = (?P<alpha>[\d.]+)$").astype(float)
    chosen = chosen.assign(d=place["d"], strength=place["alpha"]).dropna(subset=["d"])
    sizes = sorted(chosen["d"].unique())
    figure = Figure(figsize=(3.6 * len(sizes) + 0.6, 3.2), layout="constrained")
    for axis, d in zip(figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
        for method in ("AE-MMR", "AE-Vanilla", "PCA"):
            part = select(chosen, d=d, method=method)
            axis.plot(part["strength"], part["value"], ".", color=COLOURS[method], alpha=0.4)
            axis.plot(*curve(part, "strength"), marker="o", label=method, **COLOURS.line(method))
        axis.set_title(f"{d:.0f} latents", fontsize=9)
        axis.set_xlabel("strength of the intervention alpha")
    figure.axes[0].set_ylabel("R^2 of the latents")
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


@captioned
def curves(frame: pd.DataFrame) -> Figure:
    """What each method predicts of the outcome under the first action, inside the training support (shaded) and outside
    of it, in the first world.
    """
    chosen = select(frame, metric="E[Y|do(a, 0)]")
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(-1, 1, color="0.93")
    truth = curve(select(chosen, method="truth"), "a")
    axis.plot(*truth, color="black", linewidth=2, label="truth")
    for method in MAIN:
        part = select(chosen, method=method)
        if len(part):
            axis.plot(*curve(part, "a"), label=method, **COLOURS.line(method))
    spread = np.ptp(truth[1]) if len(truth[1]) else 1.0
    axis.set_ylim(min(truth[1], default=0) - spread / 2, max(truth[1], default=1) + spread / 2)
    axis.set_xlabel("action a")
    axis.set_ylabel("E[Y | do(a, 0)]")
    axis.legend(fontsize=7, frameon=False)
    return figure


@captioned
def distance(frame: pd.DataFrame) -> Figure:
    """Errors by the distance of the action from the training support, medians over worlds."""
    chosen = select(frame, metric="MSE by distance")
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axis = figure.subplots()
    for method in MAIN:
        points = [(key[0], part["value"].median()) for key, part in groups(select(chosen, method=method), "distance")]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", label=method, **COLOURS.line(method))
    axis.set_yscale("log")
    axis.set_xlabel("distance of the action from the support")
    axis.set_ylabel(MSE)
    axis.legend(fontsize=7, frameon=False)
    return figure
