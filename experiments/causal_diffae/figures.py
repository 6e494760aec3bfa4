"""Tables and figures of ``causal_diffae``."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal.counterfactual_answers import VARIABLES
from experiments.causal_diffae.study import digits
from experiments.causal_diffae.study.scores import DATASET
from experiments.causal_diffae.study.strokes import MAIN, WEAK_GAMMA
from experiments.lab import Palette, Statistic, drawing, finish, groups, panels, pivot, select
from experiments.lab.plots import along, line
from experiments.lab.system import Drawing

STATISTICS = tuple(Statistic("share", metric) for metric in ("digits kept*", "accuracy"))
METRICS = (
    "cf-MSE do(t)", "cf-MSE do(i)", "r(i), do(t)", "MAE(t) measured, do(t)", "MAE(i) measured, do(t)",
    "MAE(t) predicted, do(t)", "MAE(i) predicted, do(t)", "Frechet, do(t)", "minimality, do(t)", "composition l1, 1",
    "composition l1, 10", "reconstruction MSE", "DCI disentanglement",
)  # fmt: skip
COLOURS = Palette(
    MAIN, "CausalVAE", "SCM-VAE", "Diff-SCM", "DiffAE", "DiffAE aligned", WEAK_GAMMA, "CausalDiffAE, 50% labels",
    "CausalDiffAE, 20% labels", "labels", "labels, propagated", "classifier",
    "CausalDiffAE, parents as in the code",
)  # fmt: skip
MEASURED = Palette(*VARIABLES)
EFFECTS = ("effect of do(t)", "cf-MSE do(t)")
SCORES = ("cf-MSE", "MAE of the set", "MAE of the others", "r(last variable)")
ASKED = ("null", "do(t)", "do(i)")


def worlds(frame: pd.DataFrame) -> pd.DataFrame:
    """Squared error to the true counterfactual, and whether the last variable follows, by question and method."""
    place = frame["metric"].str.extract(r"^(?P<score>.+), (?P<asked>do\(.+\))$")
    named = frame.assign(score=place["score"], asked=place["asked"])
    chosen = named.loc[frame["dataset"].isin(["pendulum", "circuit"])]
    return pivot(("dataset", "asked", "method"), "score", only=SCORES)(chosen)


TABLES = {
    "Weight of guidance (StrokeToy, do(t))": pivot("weight", "metric", only=EFFECTS, dataset=DATASET, method=MAIN),
    "Null interventions of a trained network, by mode of inversion": pivot(
        "mode", "method", metric="inversion MSE", dataset=DATASET
    ),
    "Worlds of four variables": worlds,
    "Real digits (MorphoMNIST): numbers over digits": pivot(
        "metric", "method", only=(MAIN,), dataset=digits.DATASET, picture=None
    ),
    "Real digits (MorphoMNIST): shares of digits read as before, and of originals read right": pivot(
        "method", "metric", "share", only=(*(f"digits kept, {asked}" for asked in ASKED), "accuracy"),
        dataset=digits.DATASET,
    ),
}  # fmt: skip


def pictures(dataset: str, *names: str) -> Drawing:
    """Kept images, a row per name."""

    @drawing("picture")
    def draw(frame: pd.DataFrame) -> Figure:
        """Images and their counterfactuals, in a row per question: do(t) sets the thickness, do(i) the intensity."""
        rows = kept(frame)
        rows = select(rows, seed=rows["seed"].to_numpy().min())
        count = int(rows["example"].to_numpy().max()) + 1
        figure, axes = panels(count * len(names), 0.8, 0.8, columns=count)
        for axis, (name, example) in zip(axes, ((n, e) for n in names for e in range(count)), strict=True):
            found = select(rows, picture=name, example=example)
            axis.set(xticks=[], yticks=[])
            if len(found):
                pixels = np.frombuffer(bytes.fromhex(found["pixels"].to_list()[-1]), np.uint8)
                axis.imshow(pixels.reshape(-1, int(found["width"].to_list()[-1])), cmap="gray", vmin=0, vmax=255)
            if not example:
                axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
        return figure

    def kept(frame: pd.DataFrame) -> pd.DataFrame:
        rows = select(frame, dataset=dataset, metric="picture")
        return rows.loc[rows["picture"].isin(names)] if len(rows) else rows

    return lambda frame: draw(frame) if len(kept(frame)) else None


@drawing("measured t", "measured i")
def traversals(frame: pd.DataFrame) -> Figure:
    """What happens to the measured labels when the code of one variable is moved: means over images, a line per seed.
    On the dashed line a label does what it is told.
    """
    figure, axes = panels(2, 3.0, 2.8, sharey=True)
    for axis, moved in zip(axes, VARIABLES, strict=True):
        rows = select(frame, dataset=DATASET, method=MAIN, moved=moved)
        places = sorted(rows["place"].unique())
        axis.plot(places, places, color="0.6", linestyle="--", linewidth=1, label=f"{moved} as set")
        for measured in VARIABLES:
            for number, (_, part) in enumerate(groups(select(rows, metric=f"measured {measured}"), "seed")):
                label = None if number else f"measured {measured}"
                line(axis, along(part, "place"), shade=False, color=MEASURED[measured], alpha=0.6, label=label)
        finish(axis, f"{moved} is set to, standard deviations", "mean label", legend=True)
    return figure


@drawing(*EFFECTS)
def guidance(frame: pd.DataFrame) -> Figure:
    """The effect of do(t) and the distance to the true counterfactual by the weight of guidance, a line per seed."""
    figure, axes = panels(2, 3.0, 2.8)
    for axis, metric in zip(axes, EFFECTS, strict=True):
        for _, part in groups(
            select(frame, dataset=DATASET, method=MAIN, metric=metric).dropna(subset=["weight"]), "seed"
        ):
            line(axis, along(part, "weight"), shade=False, color=COLOURS[MAIN], alpha=0.6)
        finish(axis, "weight of guidance", metric)
    return figure


@drawing("reconstruction MSE", "cf-MSE do(t)")
def trade_off(frame: pd.DataFrame) -> Figure:
    """What a method keeps of an image (left is better) and how near its counterfactuals are to the true ones (lower is
    better), a point per seed; the dashed line is to do nothing.
    """
    rows = select(frame, dataset=DATASET, weight=None)
    table: Any = rows.pivot_table(index=["method", "seed"], columns="metric", values="value")
    table = table[["reconstruction MSE", "cf-MSE do(t)"]].dropna()
    figure, [axis] = panels(1, 6.0, 3.6)
    for (method,), part in groups(table, "method"):
        if method not in ("truth", "do nothing"):
            style = {"color": COLOURS[method], "markersize": 5}
            axis.plot(part.iloc[:, 0], part.iloc[:, 1], COLOURS.marker(method), label=method, **style)
    still = select(rows, method="do nothing", metric="cf-MSE do(t)")["value"].to_numpy(float)
    if len(still):
        axis.axhline(still.mean(), color="0.6", linestyle="--", linewidth=1)
    finish(axis, "reconstruction MSE", "MSE to the true do(t)", log="xy")
    figure.legend(loc="outside right upper", frameon=False, fontsize="x-small")
    return figure


FIGURES = {
    "strokes": pictures(DATASET, "factual", "true do(t)", "do(t)", "true do(i)", "do(i)"),
    "digits": pictures(digits.DATASET, "factual", "null", "do(t)", "do(i)"),
    "traversals": pictures(DATASET, "do(t) traversed", "do(i) traversed"),
    "traversals_measured": traversals,
    "guidance": guidance,
    "trade_off": trade_off,
}
