"""Tables and figures of ``moe_trajectories``."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.stats import critical_value
from experiments.lab import Palette, Statistic, compared, drawing, finish, groups, panels, pivot, select
from experiments.moe_trajectories.study import EXPERT, FULL, GATING

STATISTICS = tuple(Statistic("share", metric) for metric in ("accuracy", "entropy", "starts that agree"))
CLASSES, MEASURES = Palette(1, 2, 3), Palette("coverage", "bias")
ESTIMATES = ("estimate", "SE", "sandwich SE", "95 % from", "95 % to")
SIMULATED = ("true", "relative bias", "empirical SE", "mean SE", "relative RMSE", "coverage")
CRITERIA = tuple(f"enumeration {name}" for name in ("log L", "aic", "bic", "sabic", "entropy"))


def fixed(digits: int):
    """A number alone, with so many digits."""
    return lambda found: f"{found.value:.{digits}f}"


def estimates(frame: pd.DataFrame) -> pd.DataFrame:
    """The field's table: estimate, standard errors and 95 % interval per class and parameter."""
    chosen = select(frame, method=FULL)
    value, se = (select(chosen, metric=metric) for metric in ("estimate", "SE"))
    limits = []
    if len(value):
        half = critical_value() * se["value"].to_numpy()
        limits = [value.assign(metric=name, value=value["value"].to_numpy() + sign * half)
                  for name, sign in (("95 % from", -1), ("95 % to", 1))]  # fmt: skip
    table = pivot(("dataset", "class", "parameter"), "metric", "deterministic", only=ESTIMATES, shown=fixed(4))
    return table(pd.concat([chosen, *limits]))


def ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """The rank of each covariate's importance at each seed, 1 the largest."""
    chosen = select(frame, dataset="forest", metric="importance")
    if not len(chosen):
        return chosen
    ranked = chosen.assign(value=chosen.groupby("seed")["value"].rank(ascending=False))
    return pivot("covariate", "seed", "deterministic", shown=fixed(0))(ranked)


TABLES = {
    "Full mixture, estimates": estimates,
    "Simulation": pivot(
        ("class", "parameter"), "metric", "deterministic", only=SIMULATED, shown=fixed(3), dataset="simulation"
    ),
    "Over simulated data sets: classification": pivot(
        "method", "metric", "share", only=("accuracy", "entropy"), dataset="comparison"
    ),
    "Over simulated data sets: knots by class": pivot("method", "class", dataset="comparison", metric="knot"),
    "Over simulated data sets: gating coefficients": pivot(
        "method", "covariate", dataset="comparison", metric="gating"
    ),
    "Number of classes, without covariates": pivot("classes", "metric", "deterministic", only=CRITERIA, shown=fixed(3)),
    "Importance of covariates in the SEM forest: growth of -2 log L per person": pivot(
        "covariate", "metric", dataset="forest", only=("importance",)
    ),
    "Importance of covariates in the SEM forest: ranks by seed": ranks,
    "Seconds per replication by how many are fitted in one call": pivot(
        "batch", "metric", "geometric mean", dataset="batches"
    ),
}


@drawing("trajectory mean")
def trajectories(frame: pd.DataFrame) -> Figure:
    """The mean trajectory of each class at mean covariates, in a panel per model; bands hold 95 % of the persons'
    curves of a class, dotted lines mark its knot.
    """
    rows = frame.loc[frame["metric"].str.startswith("trajectory ")]
    models = list(dict.fromkeys(rows["method"]))
    figure, axes = panels(len(models), width=3.2, sharey=True)
    for axis, model in zip(axes, models, strict=True):
        for (k,), part in groups(select(rows, method=model), "class"):
            colour = CLASSES[int(k)]
            mean, low, high = (select(part, metric=f"trajectory {m}").sort_values("t") for m in ("mean", "low", "high"))
            axis.fill_between(mean["t"], low["value"], high["value"], color=colour, alpha=0.15, linewidth=0)
            axis.plot(mean["t"], mean["value"], color=colour, label=f"class {k:g}")
            for knot in select(frame, method=model, metric="estimate", parameter="knot", **{"class": k})["value"]:
                axis.axvline(knot, color=colour, linestyle=":", linewidth=1)
        first = axis is axes[0]
        finish(axis, "time (dotted: knots)", "outcome" if first else "", title=model, legend=first)
    return figure


@drawing("relative bias")
def simulation(frame: pd.DataFrame) -> Figure:
    """Coverage of 95 % intervals (left, the grey band is 0.90 to 0.97) and relative bias with its 95 % interval
    (right) of each parameter, over simulated data sets.
    """
    rows = select(frame, dataset="simulation").dropna(subset=["parameter"])
    wide = rows.pivot_table(index=["class", "parameter"], columns="metric", values="value", sort=False)
    figure = Figure(figsize=(9, 0.2 * len(wide) + 1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(wide))[::-1]
    left.axvspan(0.90, 0.97, color="0.9")
    left.plot(wide["coverage"], place, "o", color=MEASURES["coverage"], markersize=3)
    left.set_yticks(place, [f"{term}, {k:g}" for k, term in wide.index], fontsize=6)
    right.axvline(0, color="black", linewidth=0.6)
    error = critical_value() * wide["relative bias SE"]
    right.errorbar(wide["relative bias"], place, xerr=error, fmt="o", color=MEASURES["bias"], markersize=3)
    finish(left, "coverage of 95 % intervals", "")
    finish(right, "relative bias (bias where the truth is 0)", "")
    return figure


FIGURES = {
    "trajectories": trajectories,
    "simulation": simulation,
    "importance": compared(
        "How much a covariate matters: growth of -2 log L per unseen person when it is permuted; dots are seeds, "
        "squares means. The first four are planted, the others pure noise.",
        ("importance",), by="covariate", only=(*EXPERT, *GATING, *(f"noise {i}" for i in range(1, 7))),
        xlabel="growth of -2 log L per unseen person when permuted", dataset="forest",
    ),
}  # fmt: skip
