"""Tables and figures of the influence experiments."""

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, drawing, finish, lines, panels, pivot, select
from experiments.lab.plots import along, line
from experiments.lab.statistics import MEAN, rule_of
from experiments.lab.style import whiskers

METHODS = (
    "exact", "block-exact", "EK-FAC", "K-FAC", "diagonal", "CG, 30 iterations", "LiSSA", "TRAK", "TracIn",
    "dot product", "cosine", "representation", "gradient norm", "loss",
)  # fmt: skip
DECODERS, COST = "planted facts", "cost"
COSTLY = ("EK-FAC", "LiSSA", "CG, 30 iterations", "dot product", "TracIn")
COLOURS = Palette(*COSTLY, *(name for name in METHODS if name not in COSTLY))
ORDERS = Palette("token overlap of the top", "recall of same-order statements")
SHARE = Statistic("share")
STATISTICS = tuple(
    Statistic("share", metric)
    for metric in (
        *("AUC", "recall of *", "filter's recall *", "share of the top *", "token overlap *"),
        *("attribution on the object", "attribution on the object, evenly spread", "same order above flipped"),
    )
)
"""Statistics of the numbers; the intervals of tables and figures are theirs."""


def table(frame: pd.DataFrame, along: str, across: str, only: Sequence[str] = ()) -> pd.DataFrame:
    """A pivot whose cells have the intervals that are declared for their metrics."""
    shares = np.array([rule_of(STATISTICS, metric=metric).kind == "share" for metric in frame["metric"]], bool)
    found = [pivot(along, across)(frame.loc[~shares]), pivot(along, across, "share")(frame.loc[shares])]
    parts = [each.set_index(along) for each in found if len(each)]
    if not parts:
        return pd.DataFrame()
    whole = parts[0].join(parts[1:], how="outer") if across == "column" else pd.concat(parts)
    order = [name for name in only if name in whole.index] + [name for name in whole.index if name not in only]
    return whole.loc[order].fillna("–").reset_index()


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Agreement of attribution methods on every task, and what they cost."""
    chosen = frame.loc[~frame["dataset"].isin((DECODERS, COST)) & (frame["method"] != "PBRF")]
    return table(chosen.assign(column=chosen["dataset"] + ": " + chosen["metric"]), "method", "column", METHODS)


def of_decoders(frame: pd.DataFrame) -> pd.DataFrame:
    """What decoders of each size show."""
    return table(select(frame, dataset=DECODERS, layer=None, rank=None), "metric", "method")


costing = functools.partial(pivot, dataset=COST)
TABLES = {
    "Agreement of attribution methods, and what they cost": compared,
    "Influences of decoders on planted facts": of_decoders,
    "Seconds of the stages, and slopes in doubly logarithmic axes": costing("method", "metric", repeat=None),
    "Slopes of five repeats, and kronfluence's time over ours": costing(
        ("metric", "repeat"), "method", "deterministic"
    ),
}


def decoders(frame: pd.DataFrame) -> list[str]:
    """Names of the decoders, smallest first."""
    chosen = select(frame, dataset=DECODERS)
    return list(chosen.sort_values("width")["method"].unique()) if "width" in chosen else []


def bars(axis: Axes, frame: pd.DataFrame, across: str, names: Sequence[str], by: str) -> None:
    """Groups of bars by name along the axis, a grey per value of another column: means with intervals over seeds."""
    shades = list(dict.fromkeys(frame[by]))
    for i, shade in enumerate(shades):
        cells = [select(frame, **{across: name, by: shade})["value"].to_numpy(float) for name in names]
        found = [MEAN.of(values) if len(values) else None for values in cells]
        at = np.arange(len(names)) + (i - (len(shades) - 1) / 2) * 0.8 / len(shades)
        heights, grey = [s.value if s else np.nan for s in found], f"{0.25 + 0.5 * i / max(len(shades) - 1, 1):.2f}"
        axis.bar(at, heights, 0.8 / len(shades), yerr=whiskers(*found), color=grey, label=str(shade))
    axis.axhline(0, color="0.6", lw=0.6)
    axis.set_xticks(np.arange(len(names)), names, rotation=30, ha="right", fontsize=8)


@drawing("correlation with PBRF")
def correlations(frame: pd.DataFrame) -> Figure:
    """How well each method agrees with the response to retraining (PBRF): a group of bars per method, a shade per task,
    with 95 % intervals over seeds.
    """
    chosen, (figure, [axis]) = select(frame, metric="correlation with PBRF"), panels(1, 6.6, 3.4)
    bars(axis, chosen, "method", [m for m in METHODS if m in {*chosen["method"]}], "dataset")
    title = "Agreement with the proximal Bregman response (95 % intervals over seeds)"
    finish(axis, "", "correlation with PBRF", title=title, legend=True)
    return figure


@drawing("gradient evaluations per query", "correlation with PBRF")
def costs(frame: pd.DataFrame) -> Figure:
    """Agreement with the response to retraining against what it costs, in gradients per query; means over seeds."""
    figure, [axis] = panels(1, 5.4, 3.6)
    evaluations = select(frame, metric="gradient evaluations per query")
    for task, marker in zip(dict.fromkeys(evaluations["dataset"]), "os^", strict=False):
        for method in COSTLY:
            x = select(evaluations, dataset=task, method=method)["value"]
            y = select(frame, dataset=task, method=method, metric="correlation with PBRF")["value"]
            if len(x) and len(y):
                label = method if marker == "o" else None
                axis.plot(x.mean(), y.mean(), marker, color=COLOURS[method], label=label, ms=7)
    label = "gradients per query (circles: regression, squares: image, triangles: language)"
    finish(axis, label, "correlation with PBRF", log="x", legend=True)
    return figure


@drawing("flipped influence")
def word_order(frame: pd.DataFrame) -> Figure:
    """How much statements of the queried fact influence it, by their order of words and language, in units of each
    query's spread; a shade per decoder, with 95 % intervals over seeds.
    """
    kinds = [f"{kind} influence" for kind in ("same-order", "flipped", "other-language", "filler")]
    figure, [axis] = panels(1, 4.8)
    bars(axis, select(frame, dataset=DECODERS, layer=None, rank=None), "metric", kinds, "method")
    axis.set_xticks(axis.get_xticks(), [kind.removesuffix(" influence") for kind in kinds], rotation=0, ha="center")
    finish(axis, "", "mean influence / spread", title="Influence of statements of the queried fact", legend=True)
    return figure


@drawing(*ORDERS)
def overlap(frame: pd.DataFrame) -> Figure:
    """What the most influential sequences share with the query, by the width of the decoder: content tokens, and recall
    of statements in the same order; 95 % intervals over seeds.
    """
    figure, [axis] = panels(1, 4)
    for metric in ORDERS:
        line(axis, along(select(frame, metric=metric), "width", "share"), label=metric, **ORDERS.line(metric))
    finish(axis, "width of the decoder", "", legend=True)
    return figure


@drawing("share of influence")
def layers(frame: pd.DataFrame) -> Figure:
    """Where influence lies in the decoder: the share of each block in the influence of the top sequences, with 95 %
    intervals.
    """
    chosen, (figure, [axis]) = select(frame, metric="share of influence"), panels(1, 4.8)
    bars(axis, chosen, "layer", sorted(chosen["layer"].unique()), "method")
    finish(axis, "", "share of influence")
    return figure


def sparsity(frame: pd.DataFrame) -> Figure | None:
    """The figure of influences by rank, of those that are positive."""
    return lines(
        "How influence is spread over training sequences: influence at each rank, mean over queries, a line per seed.",
        "influence by rank", "rank", by="seed", shade=False, log="xy", xlabel="rank of the training sequence",
        ylabel="influence, mean over queries", colours=Palette(*sorted(frame["seed"].unique())),
    )(frame.loc[frame["value"] > 0])  # fmt: skip


FIGURES = {
    "correlation_with_response": correlations,
    "cost_and_agreement": costs,
    "sparsity": sparsity,
    "word_order": word_order,
    "overlap_with_size": overlap,
    "layers": layers,
}
