"""Tables and figures of ``concept_space``."""

import functools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.stats import Summary
from experiments.lab import Palette, Statistic, drawing, finish, groups, lines, panels, pivot, select
from experiments.lab.plots import along

COLOURS = Palette("naive", "over-prompting", "latent", "patched", "random direction")
"""Of the ways to ask for a concept."""
CONCEPTS = {"colour": ("sep_colour", "sep_size"), "size": ("sep_size", "sep_colour")}
"""Of each concept, the separation and the other's."""
STATISTICS = (Statistic("share", "final *"), Statistic("share", "turn inside"), Statistic("share", "first to *"))
CONTROLS = ("underspecified", "guided", "deterministic", "unconditional", "permuted")


def steps(found: Summary) -> str:
    """A step."""
    return f"{found.value:.0f}" if np.isfinite(found.value) else "never"


def exponents(frame: pd.DataFrame) -> pd.DataFrame:
    """Slopes of log time over log separation, of the runs that learned the concept."""
    rows = []
    for concept, (own, other) in CONCEPTS.items():
        found = select(frame, dataset="vectors", variant="plain", metric=f"time to learn {concept}", **{other: 0.4})
        if len(learned := found[np.isfinite(found["value"])]) > 1:
            slope = float(np.polyfit(np.log(learned[own]), np.log(learned["value"]), 1)[0])
            rows.append({"concept": concept, "exponent": f"{slope:.2f}", "runs": len(learned)})
    return pd.DataFrame(rows)


by_world = functools.partial(pivot, ("dataset", "sep_colour", "sep_size"), variant="plain", world="2 x 2")
by_control = functools.partial(pivot, "alpha", "variant", method="naive", only=CONTROLS)
LEARNED = tuple(f"{name} learned at" for name in ("colour of class 10", "colour of class 11", "size of class 01"))
TABLES = {
    "Steps until concepts are learned, and where the path turns, medians over seeds": by_world(
        "metric", "median", method="naive", shown=steps,
        only=("time to learn colour", "time to learn size", *LEARNED, "turn at", "turn in degrees"),
    ),
    "Steps until class 11 is shown, by way of asking, medians over seeds": by_world(
        "method", "median", metric="time", shown=steps
    ),
    "The same without overshooting, smoothed, beside as many naive draws and a random direction": by_world(
        "method", "median", metric="shown at", shown=steps
    ),
    "Naive prompts for class 11": by_world(
        "metric", "share", method="naive",
        only=("final both right", "final success", "turn inside", "first to the stronger"),
    ),
    "The toy model of the path": by_world("metric", only=("toy R2",)),
    "The time to learn a concept as a power of its separation (vectors)": exponents,
    "Underspecified prompts, guidance and controls (vectors): final accuracy on 11": by_control(
        "share", metric="final both right"
    ),
    "Underspecified prompts, guidance and controls (vectors): steps until 11 is shown, medians over seeds": by_control(
        "median", metric="time", shown=steps
    ),
    "Three concepts (colour, size, background): steps until a class is shown, medians over seeds": pivot(
        "method", "dataset", "median", metric="time", world="2 x 2 x 2", shown=steps
    ),
}  # fmt: skip


@drawing("colour", "size")
def trajectories(frame: pd.DataFrame) -> Figure:
    """The path of the unseen class through concept space while a model trains, a line per separation of the colours;
    means over seeds. Squares are the classes, the dark one is unseen in training.
    """
    chosen = select(frame, variant="plain", sep_size=0.4, method="naive")
    worlds = list(groups(chosen, "dataset"))
    separations = Palette(*sorted(chosen["sep_colour"].unique()))
    figure, axes = panels(len(worlds), height=3.6)
    for axis, ((world,), part) in zip(axes, worlds, strict=True):
        for (separation,), runs in groups(part, "sep_colour"):
            x, y = ([f.value for _, f in along(select(runs, metric=m), "step")] for m in ("colour", "size"))
            axis.plot(x, y, marker=".", markersize=3, color=separations[separation], label=f"{separation:g}")
        for z in ((0, 0), (0, 1), (1, 0), (1, 1)):
            axis.plot(*z, marker="s", color="0.7" if z != (1, 1) else "0.2", zorder=0)
        axis.set(xlim=(-0.4, 1.4), ylim=(-0.4, 1.4))
        finish(axis, "colour", "size", title=world)
        axis.legend(title="sep_colour", frameon=False, fontsize="x-small")
    return figure


@drawing("time to learn colour", "time to learn size")
def speed(frame: pd.DataFrame) -> Figure:
    """How soon a concept is learned by how far its values lie apart, a dot per run (vectors)."""
    figure, [axis] = panels(1, width=4)
    colours = Palette(*CONCEPTS)
    for concept, (own, other) in CONCEPTS.items():
        part = select(frame, dataset="vectors", variant="plain", metric=f"time to learn {concept}", **{other: 0.4})
        axis.plot(part[own], part["value"], ".", color=colours[concept], label=concept)
    finish(axis, "separation", "steps to learn", log="xy", legend=True)
    return figure


class BySwitched(Palette):
    """The look of a class: its colour says how many concepts are switched, dashes that they are several."""

    def line(self, name: Any) -> dict[str, Any]:
        """Colour and line style."""
        switched = name.count("1")
        return {"color": self[switched], "linestyle": "-" if switched < 2 else "--"}


FIGURES = {
    "trajectories": trajectories,
    "speed": speed,
    "elicitation": lines(
        "How soon the unseen class can be elicited: joint accuracy on it during training, a line per way of asking "
        "(discs).", "both right", "step", panel="sep_colour", only=tuple(COLOURS), log="x", colours=COLOURS,
        ylabel="accuracy on class 11", dataset="discs",
    ),
    "cube": lines(
        "Joint accuracy on the classes of three concepts during training, dashed where several are switched.",
        "all right", "step", panel="dataset", log="x", colours=BySwitched(0, 1, 2, 3), shade=False,
        ylabel="all concepts right",
    ),
}  # fmt: skip
