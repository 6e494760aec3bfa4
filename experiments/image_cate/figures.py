"""Tables and figures of ``image_cate``."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.image_cate.claims import TRIAL, covered
from experiments.lab.frames import curve, groups, interval, select, values
from experiments.lab.style import Palette, captioned

COLOURS = Palette(
    "effect clusters", "TARNet", "difference in means", "ridge on components", "DR-learner", "R-learner", "S-learner",
    "T-learner", "X-learner", "effect clusters, relaxed", "effect clusters, common noise", "k-means of TARNet",
    "effect clusters, no prior",
)  # fmt: skip


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Those whose records are there."""
    made = {
        "Held-out log likelihood by number of clusters": by_clusters(frame),
        "90 % intervals for the clusters' effects": coverages(frame),
        "Uganda, out of fold, mean over fold seeds (SE)": trial(frame),
        "Cost": cost(frame),
    }
    return {title: table for title, table in made.items() if not table.empty}


def by_clusters(frame: pd.DataFrame) -> pd.DataFrame:
    """Designs by K, relative to K = 1 on the same data."""
    chosen = select(frame, metric="held-out log likelihood")
    rows = []
    for (design,), part in groups(chosen, "dataset") if len(chosen) else ():
        row: dict[str, Any] = {"design": design}
        first = values(part, K=part["K"].min())
        for (k,), _ in groups(part, "K"):
            row[f"K = {k:.0f}, less K = {part['K'].min():.0f}"] = interval(values(part, K=k) - first, 4)
        rows.append(row)
    return pd.DataFrame(rows)


def coverages(frame: pd.DataFrame) -> pd.DataFrame:
    """Shares of data sets whose truth is held, and widths."""
    chosen = select(frame, dataset="S1 coverage")
    rows = []
    for method in chosen["method"].unique() if len(chosen) else ():
        width = select(chosen, method=method, metric="width")
        row = {"interval": method}
        for k, (hits, n) in enumerate(covered(frame, method)):
            mean = float(select(width, cluster=k)["value"].to_numpy().mean())
            row[f"cluster {k}: held, mean width"] = f"{hits} of {n}, {mean:.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def trial(frame: pd.DataFrame) -> pd.DataFrame:
    """Every method's RATE, calibration and value."""
    chosen = select(frame, dataset=TRIAL)
    rows = []
    for method in select(chosen, metric="ATE")["method"].unique():
        row = {"method": method, "ATE": f"{values(chosen, method=method, metric='ATE').mean():.3f}"}
        for metric in ("AUTOC", "Qini", "slope", "value of treating half"):
            found, se = (values(chosen, method=method, metric=name) for name in (metric, f"{metric} SE"))
            row[metric] = f"{found.mean():.3f} ({se.mean():.3f})" if len(found) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def cost(frame: pd.DataFrame) -> pd.DataFrame:
    """What was timed or counted."""
    chosen = select(frame, dataset="cost")
    return pd.DataFrame([
        {"of": row["method"], "where": ", ".join(f"{name} = {row[name]:.0f}" for name in ("draws", "images", "n")
                                                 if name in row and np.isfinite(row[name])),
         str(row["metric"]): f"{row['value']:.4g}"}
        for _, row in chosen.iterrows()
    ]).fillna("–")  # fmt: skip


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    made = {
        effects: "effect by truth", salience: "map: magnitude", toc: "TOC", quintiles: "effect of quintile",
        pehe: "PEHE", transport: "effect at a tile, mean",
    }  # fmt: skip
    return {draw.__name__: draw(frame) for draw, metric in made.items() if len(select(frame, metric=metric))}


@captioned
def effects(frame: pd.DataFrame) -> Figure:
    """Estimated against true effects (left) and probabilities (right), in bins of images; on the dashed line they are
    equal.
    """
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    for axis, metric, scale in zip(figure.subplots(1, 2), ("effect by truth", "p by truth"), (1.0, 0.5), strict=True):
        part = select(frame, metric=metric)
        truth = part["truth"].to_numpy() * scale
        axis.plot(truth, part["value"].to_numpy(), "o", color=COLOURS["effect clusters"], markersize=3)
        axis.plot([truth.min(), truth.max()], [truth.min(), truth.max()], "k--", linewidth=0.7)
        axis.set_xlabel("truth")
        axis.set_ylabel(metric.replace(" by truth", ", estimated"))
    return figure


@captioned
def salience(frame: pd.DataFrame) -> Figure:
    """The image of best agreement, the response that effects were made from, and what the model is sensitive to."""
    chosen = select(frame, part="map")
    names = list(chosen["metric"].unique())
    figure = Figure(figsize=(2.6 * len(names), 2.7), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        image = select(chosen, metric=name).pivot_table(index="row", columns="column", values="value").to_numpy()
        axis.imshow(image, cmap="RdBu_r" if "direction" in name else "viridis")
        axis.set_title(name.removeprefix("map: "), fontsize=9)
        axis.set_axis_off()
    return figure


@captioned
def toc(frame: pd.DataFrame) -> Figure:
    """How much more the units ranked first gain than the average unit (TOC curves of the Ugandan trial), means over
    fold seeds; bands are uniform over the share treated.
    """
    chosen = select(frame, dataset=TRIAL)
    methods = list(select(chosen, metric="TOC")["method"].unique())
    figure = Figure(figsize=(2.9 * len(methods), 2.9), layout="constrained")
    axes = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axis, method in zip(axes, methods, strict=True):
        colour = COLOURS[method]
        share, gain = curve(select(chosen, metric="TOC", method=method), "share")
        half = curve(select(chosen, metric="TOC half band", method=method), "share")[1]
        axis.fill_between(share, gain - half, gain + half, color=colour, alpha=0.2, linewidth=0)
        axis.plot(share, gain, color=colour)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_title(method, fontsize=9)
        axis.set_xlabel("share treated")
    axes[0].set_ylabel("effect above the average")
    return figure


@captioned
def quintiles(frame: pd.DataFrame) -> Figure:
    """Whether estimated effects rank units: doubly robust effects of fifths of the units by estimated effect."""
    chosen = select(frame, metric="effect of quintile")
    figure = Figure(figsize=(4.4, 3.2), layout="constrained")
    axis = figure.subplots()
    for (method,), part in groups(chosen, "method"):
        group, value = curve(part, "group")
        axis.plot(group + 1, value, marker=COLOURS.marker(method), label=method, **COLOURS.line(method))
    axis.set_xlabel("fifth of the units by estimated effect")
    axis.set_ylabel("average effect there")
    axis.legend(fontsize=7, frameon=False)
    return figure


@captioned
def transport(frame: pd.DataFrame) -> Figure:
    """Predicted effects by place, and their predictive deviation; means over the tiles of one rounded place."""
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("mean", "sd"), strict=True):
        chosen = select(frame, metric=f"effect at a tile, {metric}")
        at = [(*place, part["value"].to_numpy().mean()) for place, part in groups(chosen, "longitude", "latitude")]
        longitude, latitude, value = np.array(at).T
        shown = axis.scatter(longitude, latitude, c=value, s=14, marker="s", cmap="viridis")
        figure.colorbar(shown, ax=axis, label=f"effect, {metric}")
        axis.set_xlabel("longitude")
        axis.set_ylabel("latitude")
    return figure


@captioned
def pehe(frame: pd.DataFrame) -> Figure:
    """The error of estimated effects (PEHE) of every method on design S1: a dot per seed, a bar at the mean; less is
    better.
    """
    chosen = select(frame, dataset="S1", metric="PEHE")
    names = list(chosen["method"].unique())
    figure = Figure(figsize=(6.0, 0.3 * len(names) + 0.9), layout="constrained")
    axis = figure.subplots()
    for i, name in enumerate(names):
        found = values(chosen, method=name)
        axis.plot(found, np.full(len(found), i), "o", color=COLOURS[name], alpha=0.5, markersize=4)
        axis.plot(found.mean(), i, "|", color="black", markersize=12)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("PEHE")
    return figure
