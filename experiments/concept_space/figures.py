"""The tables and figures of ``concept_space``, from its records."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import curve, groups, interval, select, values
from experiments.lab.statistics import SHARE
from experiments.lab.style import Palette, captioned

COLOURS = Palette("naive", "over-prompting", "latent", "patched")
"""Of the ways to ask for a concept."""
CONCEPTS = Palette("colour", "size")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Times by separation, times of elicitation, and the ends of underspecified and control runs."""
    out: dict[str, pd.DataFrame] = {}
    rows = []
    for (dataset, colour, size), part in groups(
        select(frame, variant="plain", world="2 x 2"), "dataset", "sep_colour", "sep_size"
    ):
        row: dict[str, Any] = {"world": dataset, "sep_colour": colour, "sep_size": size}
        for metric in ("time to learn colour", "time to learn size"):
            row[metric] = _median(values(part, metric=metric))
        for method in ("naive", "over-prompting", "latent", "patched"):
            row[f"11 by {method}"] = _median(values(part, metric="time", method=method))
        row["final accuracy on 11"] = interval(values(part, metric="final both right"), 2, SHARE)
        row["turns inside"] = f"{values(part, metric='turn inside').mean():.0%}"
        row["toy model's R2"] = interval(values(part, metric="toy R2"), 2)
        rows.append(row)
    if rows:
        out["Steps until learned or elicited, medians over seeds"] = pd.DataFrame(rows)
    others = []
    for (variant, alpha), part in groups(frame, "variant", "alpha"):
        if variant == "plain":
            continue
        final = interval(values(part, metric="final both right"), 2, SHARE)
        until = _median(values(part, metric="time", method="naive"))
        others.append({"variant": variant, "alpha": alpha, "11 by naive": until, "final accuracy on 11": final})
    if others:
        out["Underspecified prompts, guidance and controls (vectors)"] = pd.DataFrame(others)
    cube = [
        {"world": dataset, "class": method.removeprefix("class "), "steps until generated": _median(part["value"])}
        for (dataset, method), part in groups(
            select(frame, world="2 x 2 x 2", metric="time"), "dataset", "method"
        )
    ]  # fmt: skip
    if cube:
        out["Three concepts (colour, size, background), medians over seeds"] = pd.DataFrame(cube)
    return out


def _median(times: Any) -> str:
    if not len(times):
        return "–"
    middle = float(np.median(times))
    return "never" if np.isinf(middle) else f"{middle:.0f}"


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {"trajectories": trajectories, "speed": speed, "elicitation": elicitation, "cube": cube}
    return {name: figure for name, draw in drawn.items() if (figure := draw(frame)) is not None}


@captioned
def trajectories(frame: pd.DataFrame) -> Figure | None:
    """The path of the unseen class through concept space while a model trains, a line per separation of the colours;
    means over seeds. Squares are the classes, the dark one is unseen in training.
    """
    worlds = [(w, p) for (w,), p in groups(select(frame, variant="plain", sep_size=0.4, method="naive"), "dataset")]
    if not worlds:
        return None
    separations = Palette(*sorted(set(pd.concat([part for _, part in worlds])["sep_colour"])))
    figure = Figure(figsize=(3.6 * len(worlds), 3.6), layout="constrained")
    for axis, (world, part) in zip(np.atleast_1d(figure.subplots(1, len(worlds))), worlds, strict=True):
        for (separation,), runs in groups(part, "sep_colour"):
            path = [curve(select(runs, metric=metric), "step")[1] for metric in ("colour", "size")]
            axis.plot(*path, marker=".", markersize=3, color=separations[separation], label=f"{separation:g}")
        for z in ((0, 0), (0, 1), (1, 0), (1, 1)):
            axis.plot(*z, marker="s", color="0.7" if z != (1, 1) else "0.2", zorder=0)
        axis.set(title=world, xlabel="colour", ylabel="size", xlim=(-0.4, 1.4), ylim=(-0.4, 1.4))
        axis.legend(title="sep_colour", frameon=False, fontsize="x-small")
    return figure


@captioned
def speed(frame: pd.DataFrame) -> Figure | None:
    """How soon a concept is learned by how far its values lie apart, a dot per run."""
    rows = select(frame, dataset="vectors", variant="plain")
    if not len(rows):
        return None
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axis = figure.subplots()
    for concept, fixed in (("colour", "sep_size"), ("size", "sep_colour")):
        part = select(rows, metric=f"time to learn {concept}", **{fixed: 0.4})
        axis.plot(part[f"sep_{concept}"], part["value"], ".", color=CONCEPTS[concept], label=concept)
    axis.set(xscale="log", yscale="log", xlabel="separation", ylabel="steps to learn")
    axis.legend(frameon=False)
    return figure


@captioned
def elicitation(frame: pd.DataFrame) -> Figure | None:
    """How soon the unseen class can be elicited: joint accuracy on it during training, a line per way of asking
    (discs).
    """
    rows = select(frame, dataset="discs", metric="both right")
    panels = list(groups(rows, "sep_colour"))
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 3.2), layout="constrained")
    for axis, ((separation,), part) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for method in COLOURS:
            if len(chosen := select(part, method=method)):
                axis.plot(*curve(chosen, "step"), label=method, **COLOURS.line(method))
        axis.set(
            title=f"sep_colour {separation:g}",
            xlabel="step",
            xscale="log",
            ylabel="accuracy on class 11",
            ylim=(-0.03, 1.03),
        )
        axis.legend(frameon=False, fontsize="x-small")
    return figure


@captioned
def cube(frame: pd.DataFrame) -> Figure | None:
    """Joint accuracy on the classes of three concepts during training, dashed where several are switched."""
    panels = list(groups(select(frame, metric="all right", world="2 x 2 x 2"), "dataset"))
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 3.2), layout="constrained")
    number_switched = Palette(0, 1, 2, 3)
    for axis, ((world,), part) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for (method,), rows in groups(part, "method"):
            switched = method.count("1")
            style = {"color": number_switched[switched], "linestyle": "-" if switched < 2 else "--"}
            axis.plot(*curve(rows, "step"), label=method.removeprefix("class "), **style)
        axis.set(title=world, xlabel="step", xscale="log", ylabel="all concepts right", ylim=(-0.03, 1.03))
        axis.legend(frameon=False, fontsize="x-small")
    return figure
