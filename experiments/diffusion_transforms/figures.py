"""Figures and tables of ``diffusion_transforms``."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.diffusion_transforms.study import MS, REPEATED, SAMPLERS, W1
from experiments.lab import Palette, drawing, finish, panels, pivot, select
from experiments.lab.plots import along, line

COLOURS = Palette(*SAMPLERS)


def distances(frame: pd.DataFrame) -> pd.DataFrame:
    """Distance from the data by sampler and number of network calls, fresh data first."""
    table = pivot("method", "calls", metric=W1)(frame)
    if len(table):
        names = [name for name in ("fresh data", *SAMPLERS) if name in set(table["method"])]
        table = table.set_index("method").loc[names, sorted(table.columns.drop("method"), key=float)].reset_index()
    return table


TABLES = {
    "Sliced W1 from the data by network calls, over seeds": distances,
    "Cost in milliseconds": pivot(("method", "calls"), "metric", metric=MS),
    "Cost in milliseconds, medians of repeats": pivot(
        ("method", "calls"), "metric", "median", metric=REPEATED, per=("seed", "repeat")
    ),
}


@drawing(W1)
def samplers(frame: pd.DataFrame) -> Figure:
    """How near each sampler comes to the data with so many network calls, means over seeds; dotted: fresh data."""
    chosen, (figure, [axis]) = select(frame, metric=W1), panels(1, width=4.6, height=3.6)
    for method in SAMPLERS:
        points = along(select(chosen, method=method), "calls")
        line(axis, points, shade=False, label=method, **COLOURS.line(method))
    axis.axhline(select(chosen, method="fresh data")["value"].to_numpy(float).mean(), color="0.5", linestyle=":")
    finish(axis, "network calls", "sliced W1 from the data", log="xy", legend=True)
    return figure


FIGURES = {"samplers": samplers}
