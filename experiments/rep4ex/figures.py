"""Tables and figures of ``rep4ex``."""

import functools

from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, drawing, finish, lines, panels, pivot, select
from experiments.lab.plots import along, line
from experiments.rep4ex.study.extrapolation import DATASET
from experiments.rep4ex.study.training import MSE

STATISTICS = (Statistic("share", "MCC"), Statistic("median", "MSE *"))
"""Errors of single worlds differ by powers of ten: a mean of ten says what the worst one was."""
MAIN = ("Rep4Ex-CF-Oracle", "Rep4Ex-CF", "AE-Vanilla + CF", "OLS on A", "MLP on A", "engression on A")
COLOURS = Palette(*MAIN, "AE-MMR", "AE-Vanilla", "PCA")
robust = functools.partial(pivot, kind="robustness")

TABLES = {
    "Median error of E[Y|do(a)] outside of the support": pivot(
        "method", "metric", "median", dataset=DATASET, metric=MSE),
    "Diagnostics and other regressions of step 2 (medians over worlds)": pivot(
        "metric", "method", "median", kind="diagnostics"),
    "The oracle by support and confounding: MSE of E[Y|do(a)]": pivot(
        ("dataset", "alpha", "gamma", "confounding"), "method", "geometric mean", part="oracle"),
    "Violated assumptions, d = 2, alpha = 2": robust(
        ("violated", "method"), "metric", "median", only=("R^2", "p of the constraint", MSE)),
    "Dimension of the code, d = 2": robust("metric", "encoder", "median", method="AE-MMR"),
    "Four actions for two latents, linear Y: rejections of the over-identification test at 5 %": pivot(
        "actions", "method", "share", of=lambda p: p <= 0.05, metric="p of over-identification"),
    "Ablations, d = 2, alpha = 2": robust(("ablation", "method"), "metric", metric="R^2"),
    "MSE of E[Y|do(a)] by confounding": pivot("confounding", "method", "median", metric="MSE by confounding"),
}  # fmt: skip


def identification(frame) -> Figure | None:
    """R^2 by strength, which the names of data sets tell, in a panel per number of latents."""
    place = frame["dataset"].astype(str).str.extract(r"^d = (?P<d>\d+), alpha = (?P<alpha>[\d.]+)$")
    placed = frame.assign(latents=place["d"] + " latents", strength=place["alpha"].astype(float))
    return lines(
        "How well latents are identified, by the strength of the intervention: worlds are thin, lines are means.",
        "R^2", "strength", panel="latents", only=("AE-MMR", "AE-Vanilla", "PCA"), single=True, shade=False,
        xlabel="strength of the intervention alpha", ylabel="R^2 of the latents", colours=COLOURS,
    )(placed)  # fmt: skip


@drawing("E[Y|do(a, 0)]")
def curves(frame) -> Figure:
    """What each method predicts of the outcome under the first action, inside the training support (shaded) and outside
    of it, in the first world.
    """
    chosen = select(frame, metric="E[Y|do(a, 0)]")
    figure, [axis] = panels(1, width=5)
    axis.axvspan(-1, 1, color="0.93")
    truth = select(chosen, method="truth")
    axis.plot(truth["a"], truth["value"], color="black", linewidth=2, label="truth")
    for method in MAIN:
        line(axis, along(select(chosen, method=method), "a"), label=method, marker="", **COLOURS.line(method))
    low, high = min(truth["value"]), max(truth["value"])
    axis.set_ylim(low - (high - low) / 2, high + (high - low) / 2)
    finish(axis, "action a", "E[Y | do(a, 0)]", legend=True)
    return figure


FIGURES = {
    "identification": identification, "curves": curves,
    "distance": lines(
        "Errors by the distance of the action from the training support, medians over worlds.",
        "MSE by distance", "distance", only=MAIN, statistic="median", log="y", colours=COLOURS,
        xlabel="distance of the action from the support", ylabel=MSE),
}  # fmt: skip
