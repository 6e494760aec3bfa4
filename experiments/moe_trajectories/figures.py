"""The tables and figures of ``moe_trajectories``, from its records."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.stats import critical_value, from_error
from experiments.lab.frames import groups, interval, select, values
from experiments.lab.statistics import statistic
from experiments.lab.style import Palette, captioned
from experiments.moe_trajectories.claims import STATISTICS

CLASSES = Palette(1, 2, 3)
MEASURES = Palette("coverage", "bias")
COVARIATES = Palette("noise", "planted")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Estimates, the simulation, the comparison of models and steps, classes, importance, and times."""
    made = {
        "Full mixture, estimates": estimates(frame),
        "Simulation": simulation(frame),
        "One step and two, full and finite, over simulated data sets": comparison(frame),
        "Number of classes, without covariates": enumeration(frame),
        "Importance of covariates in the SEM forest": importance(frame),
        "Seconds per replication": batches(frame),
    }
    return {title: table for title, table in made.items() if len(table)}


def _by_parameter(frame: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    if "parameter" not in frame:
        return pd.DataFrame()
    rows = frame.dropna(subset=["parameter"])
    rows = rows.loc[rows["metric"].isin(metrics)].drop_duplicates(["class", "parameter", "metric"], keep="last")
    order = {key: i for i, key in enumerate(dict.fromkeys(zip(rows["class"], rows["parameter"], strict=True)))}
    wide = rows.pivot(index=["class", "parameter"], columns="metric", values="value")
    wide = wide.loc[list(order)].reset_index() if len(wide) else pd.DataFrame()
    return wide.rename_axis(columns=None)


def estimates(frame: pd.DataFrame) -> pd.DataFrame:
    """The field's table: estimate, standard errors and 95 % interval per class and parameter."""
    rows = frame.loc[frame["dataset"].isin(("example", "simulated")) & (frame["method"] == "full MoE")]
    wide = _by_parameter(rows, ["estimate", "SE", "sandwich SE"])
    if not len(wide):
        return wide
    low, high = from_error(wide["estimate"], wide["SE"])
    return pd.DataFrame(
        {
            "class": wide["class"].astype(int),
            "parameter": wide["parameter"],
            "estimate": wide["estimate"].map("{:.4f}".format),
            "SE": wide["SE"].map("{:.4f}".format),
            "sandwich SE": wide["sandwich SE"].map("{:.4f}".format),
            "95 % interval": [f"[{a:.3f}, {b:.3f}]" for a, b in zip(low, high, strict=True)],
        }
    )


def simulation(frame: pd.DataFrame) -> pd.DataFrame:
    """Truth, bias, standard errors, RMSE and coverage per parameter."""
    metrics = ["true", "relative bias", "empirical SE", "mean SE", "relative RMSE", "coverage"]
    wide = _by_parameter(select(frame, dataset="simulation"), metrics)
    if not len(wide):
        return wide
    shown = {"class": wide["class"].astype(int), "parameter": wide["parameter"]}
    return pd.DataFrame({**shown, **{m: wide[m].map("{:.3f}".format) for m in metrics}})


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, entropy, knots and gating coefficients per method."""
    rows = []
    for method in ("full MoE", "finite mixture", "two steps"):
        part = select(frame, dataset="comparison", method=method)
        row = {"method": method}
        for title, where in {
            "accuracy": {"metric": "accuracy"},
            "entropy": {"metric": "entropy"},
            "knot 1": {"metric": "knot", "class": 1},
            "knot 2": {"metric": "knot", "class": 2},
            "gx1 on class": {"metric": "gating", "covariate": "gx1"},
            "gx2 on class": {"metric": "gating", "covariate": "gx2"},
        }.items():
            found = values(part, **where)
            kind = statistic(STATISTICS, metric=where["metric"])
            row[title] = interval(found, kind=kind) if len(found) else "–"
        if len(part):
            rows.append(row)
    return pd.DataFrame(rows)


def enumeration(frame: pd.DataFrame) -> pd.DataFrame:
    """Information criteria per number of classes."""
    rows = frame.loc[frame["metric"].str.startswith("enumeration ")]
    if not len(rows):
        return pd.DataFrame()
    wide = rows.pivot_table(index="classes", columns="metric", values="value")
    wide.columns = [name.removeprefix("enumeration ") for name in wide.columns]
    wide.index = wide.index.astype(int)
    return wide.map("{:.3f}".format).reset_index()


def importance(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean importance over seeds, largest first, and the ranks that a covariate took."""
    rows = select(frame, dataset="forest", metric="importance")
    if not len(rows):
        return pd.DataFrame()
    rows = rows.assign(rank=rows.groupby("seed")["value"].rank(ascending=False))
    made = [
        {"covariate": name, "growth of -2 log L per person": interval(part["value"].to_numpy(), 4),
         "ranks": ", ".join(f"{r:g}" for r in part.sort_values("seed")["rank"]), "mean": part["value"].mean()}
        for (name,), part in groups(rows, "covariate")
    ]  # fmt: skip
    return pd.DataFrame(made).sort_values("mean", ascending=False).drop(columns="mean")


def batches(frame: pd.DataFrame) -> pd.DataFrame:
    """Time per replication by how many are fitted in one call."""
    rows = select(frame, dataset="batches")
    if not len(rows):
        return pd.DataFrame()
    rows = rows.sort_values("batch")
    return pd.DataFrame(
        {"replications per call": rows["batch"].astype(int), "seconds each": rows["value"].map("{:.3f}".format)}
    )


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {"trajectories": trajectories, "simulation": coverage, "importance": bars}
    return {name: figure for name, draw in drawn.items() if (figure := draw(frame)) is not None}


@captioned
def trajectories(frame: pd.DataFrame) -> Figure | None:
    """The mean trajectory of each class at mean covariates, in a panel per model; bands hold 95 % of the persons'
    curves of a class, dotted lines mark its knot.
    """
    rows = frame.loc[frame["metric"].str.startswith("trajectory ")]
    if not len(rows):
        return None
    models = list(dict.fromkeys(rows["method"]))
    figure = Figure(figsize=(0.6 + 3.2 * len(models), 3.2), layout="constrained")
    for axis, model in zip(np.atleast_1d(figure.subplots(1, len(models), sharey=True)), models, strict=True):
        for (k,), part in groups(select(rows, method=model), "class"):
            colour = CLASSES[int(k)]
            lines = {m: select(part, metric=f"trajectory {m}").sort_values("t") for m in ("mean", "low", "high")}
            t = lines["mean"]["t"].to_numpy()
            axis.fill_between(t, lines["low"]["value"], lines["high"]["value"], color=colour, alpha=0.15, linewidth=0)
            axis.plot(t, lines["mean"]["value"], color=colour, label=f"class {k:g}")
            knot = values(frame, method=model, metric="estimate", parameter="knot", **{"class": k})
            if len(knot):
                axis.axvline(knot[0], color=colour, linestyle=":", linewidth=1)
        axis.set_title(model)
        axis.set_xlabel("time (dotted: knots)")
    figure.axes[0].set_ylabel("outcome")
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


@captioned
def coverage(frame: pd.DataFrame) -> Figure | None:
    """Coverage of 95 % intervals (left, the grey band is 0.90 to 0.97) and relative bias with its 95 % interval
    (right) of each parameter, over simulated data sets.
    """
    wide = _by_parameter(select(frame, dataset="simulation"), ["coverage", "relative bias", "relative bias SE"])
    if not len(wide):
        return None
    figure = Figure(figsize=(9, 0.2 * len(wide) + 1), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(wide))[::-1]
    left.axvspan(0.90, 0.97, color="0.9")
    left.plot(wide["coverage"], place, "o", color=MEASURES["coverage"], markersize=3)
    names = [f"{term}, {k:g}" for k, term in zip(wide["class"], wide["parameter"], strict=True)]
    left.set_yticks(place, names, fontsize=6)
    left.set_xlabel("coverage of 95 % intervals")
    right.axvline(0, color="black", linewidth=0.6)
    error, colour = critical_value() * wide["relative bias SE"], MEASURES["bias"]
    right.errorbar(wide["relative bias"], place, xerr=error, fmt="o", color=colour, markersize=3)
    right.set_xlabel("relative bias (bias where the truth is 0)")
    return figure


@captioned
def bars(frame: pd.DataFrame) -> Figure | None:
    """How much a covariate matters: growth of -2 log L per unseen person when it is permuted; bars are means, dots are
    seeds, covariates of pure noise have the other colour.
    """
    rows = select(frame, dataset="forest", metric="importance")
    if not len(rows):
        return None
    means = {name: part["value"].to_numpy().mean() for (name,), part in groups(rows, "covariate")}
    order = sorted(means, key=means.__getitem__)
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, name in enumerate(order):
        found = values(rows, covariate=name)
        colour = COVARIATES["noise" if name.startswith("noise") else "planted"]
        axis.barh(i, found.mean(), color=colour, alpha=0.4)
        axis.plot(found, [i] * len(found), ".", color=colour)
    axis.set_yticks(range(len(order)), order)
    axis.set_xlabel("growth of -2 log L per unseen person when permuted")
    return figure
