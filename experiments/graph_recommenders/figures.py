"""Figures of the DCCF comparison."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.stats import summary
from experiments.graph_recommenders.config import BASELINE, CURVES, PEER, SIMULATED, SMALL, noisy
from experiments.graph_recommenders.judges import curve, finals

LABELS = {"recall@20": "Recall@20", "ndcg@20": "NDCG@20"}


def figures(frame: pd.DataFrame) -> Mapping[str, Figure]:
    """Every figure for which there are records, by file stem."""
    drawn: dict[str, Figure | None] = {}
    for dataset in frame["dataset"].unique():
        stem = "".join(c if c.isalnum() else "_" for c in dataset)
        drawn[f"curves_{stem}"] = learning_curves(frame, dataset)
        drawn[f"degree_{stem}"] = by_degree(frame, dataset)
    drawn["ablation"] = ablation(frame)
    drawn["robustness"] = robustness(frame)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def methods(frame: pd.DataFrame, dataset: str) -> list[str]:
    """Methods measured on a data set, in the order of the records."""
    return list(frame.loc[frame["dataset"] == dataset, "method"].unique())


def learning_curves(frame: pd.DataFrame, dataset: str) -> Figure | None:
    """R@20 and N@20 against steps: means over seeds, and bands from the lowest to the highest seed."""
    tables = {m: {c: curve(frame, dataset, m, c) for c in CURVES} for m in methods(frame, dataset) if m != PEER}
    tables = {m: by_metric for m, by_metric in tables.items() if not by_metric[CURVES[0]].empty}
    if not tables:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), CURVES, strict=True):
        for name, by_metric in tables.items():
            table = by_metric[metric]
            axes.plot(table.index, table.mean(axis=1), label=name, lw=2 if name in (BASELINE, "DCCF") else 1)
            axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), alpha=0.15, lw=0)
        axes.set(xlabel="steps", ylabel=LABELS[metric], xscale="log", title=dataset)
    axes.legend(fontsize=7, frameon=False)
    return figure


def ablation(frame: pd.DataFrame) -> Figure | None:
    """N@20 of DCCF's variants on simulated intents, with 95 % intervals over seeds."""
    values = {name: finals(frame, SIMULATED, name) for name in methods(frame, SIMULATED)}
    if "DCCF -Disen" not in values:
        return None
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    _bars(axes, values)
    axes.set(xlabel="NDCG@20", title="Ablation on simulated intents")
    return figure


def robustness(frame: pd.DataFrame) -> Figure | None:
    """The share of N@20 that is lost when false edges are added."""
    corrupted = noisy(SMALL)
    lost = {
        name: 1 - finals(frame, corrupted, name) / finals(frame, SIMULATED, name) for name in methods(frame, corrupted)
    }
    if not lost:
        return None
    figure = Figure(figsize=(5, 2.4), layout="constrained")
    axes = figure.subplots()
    _bars(axes, lost)
    axes.set(xlabel=f"share of NDCG@20 lost with {SMALL.false_edges:.0%} false edges")
    return figure


def by_degree(frame: pd.DataFrame, dataset: str) -> Figure | None:
    """N@20 of users by their number of training items: how methods cope with a cold start."""
    if "degree" not in frame:
        return None
    chosen = frame[(frame["dataset"] == dataset) & (frame["metric"] == "ndcg@20") & frame["degree"].notna()]
    if chosen.empty or dataset.startswith(SIMULATED):
        return None
    table = chosen.pivot_table(index="degree", columns="method", values="value", sort=False)
    table = table.loc[sorted(table.index, key=lambda bucket: int(bucket.split("-")[0]))]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in table:
        axes.plot(table.index, table[name], marker="o", label=name, lw=2 if name in (BASELINE, "DCCF") else 1)
    axes.set(xlabel="training items of the user", ylabel="NDCG@20", title=dataset)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _bars(axes: Axes, values: Mapping[str, Iterable[float]]) -> None:
    """Horizontal bars of means with intervals, the first on top."""
    found = [summary(np.asarray(list(v))) for v in values.values()]
    spread = [np.nan_to_num(f.half_width) for f in found]
    axes.barh(range(len(found)), [f.mean for f in found], xerr=spread, color="0.75", ecolor="0.2", capsize=3)
    axes.set_yticks(range(len(found)), list(values))
    axes.invert_yaxis()
