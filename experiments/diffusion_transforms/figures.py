"""Figures and tables of ``diffusion_transforms``."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.diffusion_transforms.study import SAMPLERS
from experiments.lab.frames import curve, groups, interval, select, values
from experiments.lab.style import Palette, captioned

COLOURS = Palette(*SAMPLERS)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Distance from the data by sampler and number of network calls; times of the cost cell."""
    out, chosen = {}, select(frame, metric="sliced W1")
    rows = []
    for method in ["fresh data", *SAMPLERS] if len(chosen) else []:
        cells = {"sampler": method}
        for (calls,), group in groups(select(chosen, method=method), "calls"):
            cells[f"{calls:g} calls" if calls else "no calls"] = interval(group["value"].to_numpy(), 4)
        rows.append(cells)
    if rows:
        out["Sliced W1 from the data, over seeds"] = pd.DataFrame(rows).astype(object).fillna("–")
    timed = select(frame, metric="milliseconds")
    if len(timed):
        columns = {"method": "what", "calls": "steps", "value": "milliseconds"}
        out["Cost"] = timed.loc[:, list(columns)].rename(columns=columns).round(3).reset_index(drop=True)
    return out


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Distance against network calls."""
    return {"samplers": distances(frame)} if len(select(frame, metric="sliced W1")) else {}


@captioned
def distances(frame: pd.DataFrame) -> Figure:
    """How near each sampler comes to the data with so many network calls, means over seeds; dotted: fresh data."""
    chosen = select(frame, metric="sliced W1")
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for method in SAMPLERS:
        axis.plot(*curve(select(chosen, method=method), "calls"), marker=".", label=method, **COLOURS.line(method))
    axis.axhline(float(values(chosen, method="fresh data").mean()), color="0.5", linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="network calls", ylabel="sliced W1 from the data")
    axis.legend(frameon=False, fontsize="small")
    return figure
