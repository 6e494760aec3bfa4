"""The tables and figures of ``causal_diffae``, from its records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.causal_diffae.claims import STATISTICS, unguided
from experiments.causal_diffae.study import digits
from experiments.causal_diffae.study.scores import DATASET, VARIABLES
from experiments.causal_diffae.study.strokes import MAIN, WEAK_GAMMA
from experiments.lab.frames import groups, interval, select, values
from experiments.lab.statistics import statistic
from experiments.lab.style import Palette, captioned

WORLDS = ("pendulum", "circuit")
COLOURS = Palette(
    MAIN, "CausalVAE", "SCM-VAE", "Diff-SCM", "DiffAE", "DiffAE aligned", WEAK_GAMMA, "CausalDiffAE, 50% labels",
    "CausalDiffAE, 20% labels", "labels", "labels, propagated", "classifier",
    "CausalDiffAE, parents as in the code",
)  # fmt: skip
MEASURED = Palette(*VARIABLES)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Guidance, inversion, the small worlds and real digits."""
    made = {
        "Weight of guidance (StrokeToy, do(t))": _along(frame, "weight", ("effect of do(t)", "cf-MSE do(t)")),
        "Null interventions of a trained network, by mode of inversion": pd.concat(
            [_along(frame, "mode", ("inversion MSE",), method).assign(method=method) for method in (MAIN, WEAK_GAMMA)]
        ),
        "Worlds of four variables": worlds(frame),
        "Real digits (MorphoMNIST)": real(frame),
    }
    return {title: table for title, table in made.items() if len(table)}


def _along(frame: pd.DataFrame, column: str, metrics: Sequence[str], method: str = MAIN) -> pd.DataFrame:
    if column not in frame:
        return pd.DataFrame()
    rows = []
    for (place,), part in groups(select(frame, dataset=DATASET, method=method).dropna(subset=[column]), column):
        cells = {metric: interval(found, 4) for metric in metrics if len(found := values(part, metric=metric))}
        rows.append({column: place, **cells})
    return pd.DataFrame(rows)


def worlds(frame: pd.DataFrame) -> pd.DataFrame:
    """Squared error to the true counterfactual, and whether the last variable follows, by question and method."""
    rows = []
    for name in WORLDS:
        for (method,), part in groups(select(frame, dataset=name), "method"):
            asked = sorted({metric.split(", ", 1)[1] for metric in part["metric"]} - {"null"})
            for question in asked:
                row: dict[str, Any] = {"world": name, "asked": question, "method": method}
                for metric in ("cf-MSE", "MAE of the set", "MAE of the others", "r(last variable)"):
                    row[metric] = interval(values(part, metric=f"{metric}, {question}"), 4 if metric == "cf-MSE" else 2)
                rows.append(row)
    return pd.DataFrame(rows).sort_values(["world", "asked", "method"]) if rows else pd.DataFrame()


def real(frame: pd.DataFrame) -> pd.DataFrame:
    """One number per metric and seed."""
    part = select(frame, dataset=digits.DATASET)
    part = part.loc[part["metric"] != "picture"]
    rows = [
        {"method": method, "metric": metric, "value": interval(values(each), kind=statistic(STATISTICS, metric=metric))}
        for (method, metric), each in groups(part, "method", "metric")
    ]
    return pd.DataFrame(rows)


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    made = {
        "strokes": pictures(frame, DATASET, ("factual", "true do(t)", "do(t)", "true do(i)", "do(i)")),
        "digits": pictures(frame, digits.DATASET, ("factual", "null", "do(t)", "do(i)")),
        "traversals": pictures(frame, DATASET, ("do(t) traversed", "do(i) traversed")),
        "traversals_measured": traversals(frame),
        "guidance": guidance(frame),
        "trade_off": trade_off(frame),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


@captioned
def pictures(frame: pd.DataFrame, dataset: str, names: Sequence[str]) -> Figure | None:
    """Images and their counterfactuals, in a row per question: do(t) sets the thickness, do(i) the intensity."""
    rows = select(frame, dataset=dataset, metric="picture")
    rows = rows.loc[rows["picture"].isin(names)] if len(rows) else rows
    if not len(rows):
        return None
    rows = select(rows, seed=int(rows["seed"].to_numpy().min()))
    count = int(rows["example"].to_numpy().max()) + 1
    figure = Figure(figsize=(0.8 * count + 1.2, 0.8 * len(names)), layout="constrained")
    for line, name in zip(figure.subplots(len(names), count, squeeze=False), names, strict=True):
        for example, axis in enumerate(line):
            found = select(rows, picture=name, example=example)
            axis.set(xticks=[], yticks=[])
            if len(found):
                pixels = np.frombuffer(bytes.fromhex(found["pixels"].to_list()[-1]), np.uint8)
                axis.imshow(pixels.reshape(-1, int(found["width"].to_list()[-1])), cmap="gray", vmin=0, vmax=255)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    return figure


@captioned
def traversals(frame: pd.DataFrame) -> Figure | None:
    """What happens to the measured labels when the code of one variable is moved: means over images, a line per seed.
    On the dashed line a label does what it is told.
    """
    rows = select(frame, dataset=DATASET, method=MAIN).dropna(subset=["moved"]) if "moved" in frame else frame.iloc[:0]
    if not len(rows):
        return None
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    for axis, moved in zip(figure.subplots(1, 2, sharey=True), VARIABLES, strict=True):
        places = sorted(rows["place"].unique())
        axis.plot(places, places, color="0.6", linestyle="--", linewidth=1, label=f"{moved} as set")
        for measured in VARIABLES:
            for (seed,), part in groups(select(rows, moved=moved, metric=f"measured {measured}"), "seed"):
                line = part.sort_values("place")
                label = f"measured {measured}" if seed == rows["seed"].min() else None
                axis.plot(line["place"], line["value"], marker=".", color=MEASURED[measured], alpha=0.6, label=label)
        axis.set(xlabel=f"{moved} is set to, standard deviations", ylabel="mean label")
        axis.legend(frameon=False, fontsize="x-small")
    return figure


@captioned
def guidance(frame: pd.DataFrame) -> Figure | None:
    """The effect of do(t) and the distance to the true counterfactual by the weight of guidance, a line per seed."""
    rows = select(frame, dataset=DATASET, method=MAIN)
    if "weight" not in rows or rows["weight"].isna().to_numpy().all():
        return None
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("effect of do(t)", "cf-MSE do(t)"), strict=True):
        for (_,), part in groups(select(rows, metric=metric).dropna(subset=["weight"]), "seed"):
            ordered = part.sort_values("weight")
            axis.plot(ordered["weight"], ordered["value"], marker="o", color=COLOURS[MAIN], alpha=0.6)
        axis.set(xlabel="weight of guidance", ylabel=metric)
    return figure


@captioned
def trade_off(frame: pd.DataFrame) -> Figure | None:
    """What a method keeps of an image (left is better) and how near its counterfactuals are to the true ones (lower is
    better), a point per seed; the dashed line is to do nothing.
    """
    rows = unguided(select(frame, dataset=DATASET))
    chosen = {}
    for (method,), part in groups(rows, "method"):
        pair = [values(part, metric=metric) for metric in ("reconstruction MSE", "cf-MSE do(t)")]
        if len(pair[0]) == len(pair[1]) > 0 and method not in ("truth", "do nothing"):
            chosen[method] = pair
    if not chosen:
        return None
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for method, (kept, off) in chosen.items():
        axis.plot(kept, off, COLOURS.marker(method), color=COLOURS[method], label=method, markersize=5)
    still = values(rows, method="do nothing", metric="cf-MSE do(t)")
    if len(still):
        axis.axhline(still.mean(), color="0.6", linestyle="--", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="reconstruction MSE", ylabel="MSE to the true do(t)")
    figure.legend(loc="outside right upper", frameon=False, fontsize="x-small")
    return figure
