"""Tables and figures of the influence experiments, drawn from their records."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.stats import Summary, summary
from experiments.lab.frames import by_seed, select
from experiments.lab.statistics import Statistic, statistic
from experiments.lab.style import Palette, captioned, whiskers

METHODS = (
    "exact", "block-exact", "EK-FAC", "K-FAC", "diagonal", "CG, 30 iterations", "LiSSA", "TRAK", "TracIn",
    "dot product", "cosine", "representation", "gradient norm", "loss",
)  # fmt: skip
DECODERS, COST = "planted facts", "cost"
COSTLY = ("EK-FAC", "LiSSA", "CG, 30 iterations", "dot product", "TracIn")
COLOURS = Palette(*COSTLY, *(name for name in METHODS if name not in COSTLY))
ORDERS = Palette("token overlap of the top", "recall of same-order statements")


STATISTICS = tuple(
    Statistic("share", metric)
    for metric in (
        *("AUC", "recall of *", "filter's recall *", "share of the top *", "token overlap *"),
        *("attribution on the object", "attribution on the object, evenly spread"),
    )
)


def of(metric: str, values: np.ndarray) -> Summary:
    """A metric over seeds with the interval that is declared for it."""
    return statistic(STATISTICS, metric=metric).of(values)


def cell(metric: str, values: np.ndarray) -> str:
    """A number with its interval."""
    found = of(metric, values)
    text = f"{found.value:.3g}"
    return f"{text} [{found.low:.3g}, {found.high:.3g}]" if found.high > found.low else text


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Comparisons of methods, and what decoders of each size show; means and 95 % intervals over seeds."""
    compared = frame.loc[~frame["dataset"].isin((DECODERS, COST))]
    compared = compared.loc[compared["method"] != "PBRF"]
    found = {
        "Agreement of attribution methods, and what they cost": _pivot(
            compared, "method", ["dataset", "metric"], METHODS
        )
    }
    plain = frame.loc[frame["dataset"] == DECODERS]
    for coordinate in ("layer", "rank"):
        if coordinate in plain:
            plain = plain.loc[plain[coordinate].isna()]
    found["Influences of decoders on planted facts"] = _pivot(plain, "metric", ["method"])
    found["Seconds of the stages, and slopes in doubly logarithmic axes"] = _pivot(
        cast(pd.DataFrame, frame.loc[frame["dataset"] == COST]), "method", ["metric"]
    )
    return {title: table for title, table in found.items() if len(table)}


def _pivot(frame: pd.DataFrame, rows: str, columns: list[str], order: tuple[str, ...] = ()) -> pd.DataFrame:
    cells: dict[Any, dict[str, str]] = {}
    for place, group in frame.groupby([rows, *columns], sort=False):
        row, *column = cast(tuple[Any, ...], place)
        cells.setdefault(row, {rows: row})[": ".join(column)] = cell(
            str(group["metric"].iloc[0]), group["value"].to_numpy()
        )
    known = [name for name in order if name in cells] + [name for name in cells if name not in order]
    return pd.DataFrame([cells[name] for name in known]).fillna("–")


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn: dict[str, tuple[Callable[[pd.DataFrame], Figure], str]] = {
        "correlation_with_response": (correlations, "correlation with PBRF"),
        "cost_and_agreement": (costs, "gradient evaluations per query"),
        "sparsity": (sparsity, "influence by rank"),
        "word_order": (word_order, "flipped influence"),
        "overlap_with_size": (overlap, "token overlap of the top"),
        "layers": (layers, "share of influence"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


@captioned
def correlations(frame: pd.DataFrame) -> Figure:
    """How well each method agrees with the response to retraining (PBRF): a group of bars per method, a shade per task,
    with 95 % intervals over seeds.
    """
    chosen = select(frame, metric="correlation with PBRF")
    tasks = list(dict.fromkeys(chosen["dataset"]))
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axis = figure.subplots()
    methods = [m for m in METHODS if m in set(chosen["method"])]
    for i, task in enumerate(tasks):
        stats = [summary(v.to_numpy()) if len(v := by_seed(chosen, dataset=task, method=m)) else None for m in methods]
        at = np.arange(len(methods)) + (i - (len(tasks) - 1) / 2) * 0.8 / len(tasks)
        heights = [s.value if s else np.nan for s in stats]
        style = {"color": _shade(i, len(tasks)), "label": task, "error_kw": {"lw": 0.8}}
        axis.bar(at, heights, 0.8 / len(tasks), yerr=whiskers(*stats), **style)
    axis.set_xticks(np.arange(len(methods)), methods, rotation=35, ha="right", fontsize=8)
    axis.set_ylabel("correlation with PBRF")
    axis.axhline(0, color="0.6", lw=0.6)
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("Agreement with the proximal Bregman response (95 % intervals over seeds)", fontsize=10)
    return figure


@captioned
def costs(frame: pd.DataFrame) -> Figure:
    """Agreement with the response to retraining against what it costs, in gradients per query; means over seeds."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axis = figure.subplots()
    evaluations = select(frame, metric="gradient evaluations per query")
    for task, marker in zip(dict.fromkeys(evaluations["dataset"]), "os^", strict=False):
        for method in COSTLY:
            x = by_seed(evaluations, dataset=task, method=method)
            y = by_seed(frame, dataset=task, method=method, metric="correlation with PBRF")
            if len(x) and len(y):
                label = method if marker == "o" else None
                axis.plot(x.mean(), y.mean(), marker, color=COLOURS[method], label=label, ms=7)
    axis.set_xscale("log")
    axis.set_xlabel("gradients per query (circles: regression, squares: image, triangles: language)", fontsize=8)
    axis.set_ylabel("correlation with PBRF")
    axis.legend(frameon=False, fontsize=8)
    return figure


@captioned
def sparsity(frame: pd.DataFrame) -> Figure:
    """How influence is spread over training sequences: influence at each rank, mean over queries, a line per seed."""
    chosen = select(frame, metric="influence by rank")
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    seeds = Palette(*sorted(chosen["seed"].unique()))
    for seed, line in chosen.groupby("seed"):
        line = line.loc[line["value"] > 0].sort_values("rank")
        axis.loglog(line["rank"], line["value"], marker=".", ms=3, lw=1, label=f"seed {seed}", **seeds.line(seed))
    axis.set_xlabel("rank of the training sequence")
    axis.set_ylabel("influence, mean over queries")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("Few sequences carry much, none carries all", fontsize=10)
    return figure


@captioned
def word_order(frame: pd.DataFrame) -> Figure:
    """How much statements of the queried fact influence it, by their order of words and language, in units of each
    query's spread; a shade per decoder, with 95 % intervals over seeds.
    """
    kinds = ("same-order influence", "flipped influence", "other-language influence", "filler influence")
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axis = figure.subplots()
    sizes = list(dict.fromkeys(select(frame, dataset=DECODERS)["method"]))
    for i, size in enumerate(sizes):
        stats = [
            summary(v.to_numpy()) if len(v := by_seed(frame, method=size, metric=kind)) else None for kind in kinds
        ]
        at = np.arange(len(kinds)) + (i - (len(sizes) - 1) / 2) * 0.8 / len(sizes)
        heights, shade = [s.value if s else np.nan for s in stats], _shade(i, len(sizes))
        axis.bar(at, heights, 0.8 / len(sizes), yerr=whiskers(*stats), color=shade, label=size)
    axis.set_xticks(np.arange(len(kinds)), [kind.removesuffix(" influence") for kind in kinds])
    axis.set_ylabel("mean influence / spread")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("Influence of statements of the queried fact", fontsize=10)
    return figure


@captioned
def overlap(frame: pd.DataFrame) -> Figure:
    """What the most influential sequences share with the query, by the width of the decoder: content tokens, and recall
    of statements in the same order; 95 % intervals over seeds.
    """
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    for metric in ORDERS:
        chosen = select(frame, metric=metric)
        widths = sorted(chosen["width"].unique())
        stats = [of(metric, chosen.loc[chosen["width"] == width, "value"].to_numpy()) for width in widths]
        errors = whiskers(*stats)
        axis.errorbar(
            widths, [s.value for s in stats], errors, color=ORDERS[metric], marker="o", label=metric, capsize=2
        )
    axis.set_xlabel("width of the decoder")
    axis.legend(frameon=False, fontsize=8)
    return figure


@captioned
def layers(frame: pd.DataFrame) -> Figure:
    """Where influence lies in the decoder: the share of each block in the influence of the top sequences, with 95 %
    intervals.
    """
    chosen = select(frame, metric="share of influence")
    names = sorted(chosen["layer"].unique())
    stats = [of("share of influence", chosen.loc[chosen["layer"] == name, "value"].to_numpy()) for name in names]
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axis = figure.subplots()
    axis.bar(names, [s.value for s in stats], yerr=whiskers(*stats), color=COLOURS["EK-FAC"])
    axis.tick_params(axis="x", rotation=30)
    axis.set_ylabel("share of influence")
    return figure


def _shade(place: int, of: int) -> str:
    """A grey: colours belong to methods."""
    return f"{0.25 + 0.5 * place / max(of - 1, 1):.2f}"
