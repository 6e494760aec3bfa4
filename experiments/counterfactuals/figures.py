"""The tables and figures of ``causal_diffae``, from its records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.counterfactuals import digits
from experiments.counterfactuals.claims import unguided
from experiments.counterfactuals.scores import DATASET
from experiments.counterfactuals.strokes import MAIN
from experiments.frames import COLOURS, groups, interval, select, values

WORLDS = ("pendulum", "circuit")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Guidance, inversion, the small worlds and real digits."""
    made = {
        "Weight of guidance (StrokeToy, do(t))": _along(frame, "weight", ("effect of do(t)", "cf-MSE do(t)")),
        "Null interventions of a trained network, by mode of inversion": _along(frame, "mode", ("inversion MSE",)),
        "Worlds of four variables": worlds(frame),
        "Real digits (MorphoMNIST)": real(frame),
    }
    return {title: table for title, table in made.items() if len(table)}


def _along(frame: pd.DataFrame, column: str, metrics: Sequence[str]) -> pd.DataFrame:
    if column not in frame:
        return pd.DataFrame()
    rows = []
    for (place,), part in groups(select(frame, dataset=DATASET).dropna(subset=[column]), column):
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
        {"method": method, "metric": metric, "value": interval(values(each))}
        for (method, metric), each in groups(part, "method", "metric")
    ]
    return pd.DataFrame(rows)


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    made = {
        "strokes": pictures(frame, DATASET, ("factual", "true do(t)", "do(t)", "true do(i)", "do(i)")),
        "digits": pictures(frame, digits.DATASET, ("factual", "null", "do(t)", "do(i)")),
        "guidance": guidance(frame),
        "trade_off": trade_off(frame),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def pictures(frame: pd.DataFrame, dataset: str, names: Sequence[str]) -> Figure | None:
    """A grid: a row of images per question."""
    rows = select(frame, dataset=dataset, metric="picture")
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


def guidance(frame: pd.DataFrame) -> Figure | None:
    """The effect of do(t) and the distance to the truth against the weight."""
    rows = select(frame, dataset=DATASET, method=MAIN)
    if "weight" not in rows or rows["weight"].isna().to_numpy().all():
        return None
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("effect of do(t)", "cf-MSE do(t)"), strict=True):
        for (_,), part in groups(select(rows, metric=metric).dropna(subset=["weight"]), "seed"):
            ordered = part.sort_values("weight")
            axis.plot(ordered["weight"], ordered["value"], marker="o", color=COLOURS[0], alpha=0.6)
        axis.set(xlabel="weight of guidance", ylabel=metric)
    return figure


def trade_off(frame: pd.DataFrame) -> Figure | None:
    """What a method changes against what it keeps: distance to the truth by reconstruction error, a dot per seed."""
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
    for i, (method, (kept, off)) in enumerate(chosen.items()):
        axis.plot(kept, off, "osD^"[i // len(COLOURS) % 4], color=COLOURS[i % len(COLOURS)], label=method, markersize=5)
    still = values(rows, method="do nothing", metric="cf-MSE do(t)")
    if len(still):
        axis.axhline(still.mean(), color="0.6", linestyle="--", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="reconstruction MSE", ylabel="MSE to the true do(t)")
    figure.legend(loc="outside right upper", frameon=False, fontsize="x-small")
    return figure
