"""Figures of the DCCF comparison."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    CURVES,
    MAIN,
    PEER,
    SIMULATED,
    SMALL,
    VALIDATED,
    noisy,
)
from experiments.dccf.judges import STATISTICS, curve, finals
from experiments.lab.frames import select
from experiments.lab.statistics import MEAN, SHARE, Statistic, statistic
from experiments.lab.style import Palette, captioned, plain_log, whiskers

LABELS = {"recall@20": "Recall@20", "ndcg@20": "NDCG@20"}
_BOLD = (BASELINE, "DCCF")
COLOURS = Palette(*_BOLD, "EASE", *(name for name in MAIN if name not in (*_BOLD, "EASE")), PEER)


def figures(frame: pd.DataFrame) -> Mapping[str, Figure]:
    """Every figure for which there are records, by file stem."""
    drawn: dict[str, Figure | None] = {}
    for dataset in frame["dataset"].unique():
        stem = "".join(c if c.isalnum() else "_" for c in dataset)
        drawn[f"validated_{stem}"] = validated(frame, dataset)
        drawn[f"curves_{stem}"] = learning_curves(frame, dataset)
        drawn[f"degree_{stem}"] = by_degree(frame, dataset)
    drawn["ablation"] = ablation(frame)
    drawn["robustness"] = robustness(frame)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def methods(frame: pd.DataFrame, dataset: str) -> list[str]:
    """Methods measured on a data set, in the order of the records."""
    return list(frame.loc[frame["dataset"] == dataset, "method"].unique())


@captioned
def validated(frame: pd.DataFrame, dataset: str) -> Figure | None:
    """Each method is trained until held-out training items are ranked no better, and then tested.

    Left: the ranking of the held-out items during training, a line per seed; a dot marks the step whose parameters
    were tested. Right: the ranking of the test items, a dot per seed and the mean with its 95 % interval.
    """
    if not len(select(frame, dataset=dataset, metric=BEST_STEP)):
        return None
    names = [name for name in methods(frame, dataset) if len(finals(frame, dataset, name, VALIDATED))]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for name in names:
        _course(
            left, curve(frame, dataset, name, f"validation {VALIDATED}"), finals(frame, dataset, name, BEST_STEP), name
        )
    left.set(xscale="log", xlabel="training steps", ylabel=f"{LABELS[VALIDATED]}, held-out training items")
    plain_log(left.xaxis)
    left.legend(fontsize=8, frameon=False)
    for place, name in enumerate(names):
        values = finals(frame, dataset, name, VALIDATED).to_numpy()
        found, colour = statistic(STATISTICS, dataset, name, VALIDATED).of(values), COLOURS[name]
        right.plot(values, np.full(len(values), place), ".", color=colour, alpha=0.5)
        right.errorbar(found.value, place, xerr=whiskers(found), fmt="s", ms=4, color=colour, capsize=3)
    right.set_yticks(range(len(names)), names)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlabel(f"{LABELS[VALIDATED]}, test items")
    return figure


def _course(axes: Axes, table: pd.DataFrame, best: pd.Series, name: str) -> None:
    """A validation curve per seed, its best step marked; nothing for methods without steps."""
    for index, seed in enumerate(table.columns):
        line = table[seed].dropna()
        axes.plot(line.index, line, lw=1, alpha=0.7, label=None if index else name, **COLOURS.line(name))
        axes.plot(best[seed], line[best[seed]], "o", ms=4, color=COLOURS[name])


@captioned
def learning_curves(frame: pd.DataFrame, dataset: str) -> Figure | None:
    """How well test items are ranked during training: means over seeds, with bands from the lowest to the highest."""
    tables = {m: {c: curve(frame, dataset, m, c) for c in CURVES} for m in methods(frame, dataset) if m != PEER}
    tables = {m: by_metric for m, by_metric in tables.items() if not by_metric[CURVES[0]].empty}
    if not tables:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), CURVES, strict=True):
        for name, by_metric in tables.items():
            table = by_metric[metric]
            axes.plot(table.index, table.mean(axis=1), label=name, lw=1 + (name in _BOLD), **COLOURS.line(name))
            axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), alpha=0.15, lw=0, color=COLOURS[name])
        axes.set(xlabel="steps", ylabel=LABELS[metric], xscale="log", title=dataset)
        plain_log(axes.xaxis)
    axes.legend(fontsize=7, frameon=False)
    return figure


@captioned
def ablation(frame: pd.DataFrame) -> Figure | None:
    """What each part of DCCF adds on simulated intents: the ranking of its variants, with 95 % intervals over seeds."""
    values = {name: finals(frame, SIMULATED, name) for name in methods(frame, SIMULATED)}
    if "DCCF -Disen" not in values:
        return None
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    _bars(axes, values, SHARE)
    axes.set(xlabel="NDCG@20", title="Ablation on simulated intents")
    return figure


@captioned
def robustness(frame: pd.DataFrame) -> Figure | None:
    """The share of the ranking quality that is lost to false edges, with 95 % intervals over seeds; less is better."""
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


@captioned
def by_degree(frame: pd.DataFrame, dataset: str) -> Figure | None:
    """How methods cope with users of whom little is known: ranking by number of training items, means over seeds."""
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
        style = {"marker": COLOURS.marker(name), "lw": 1 + (name in _BOLD), **COLOURS.line(name)}
        axes.plot(table.index, table[name], label=name, **style)
    axes.set(xlabel="training items of the user", ylabel="NDCG@20", title=dataset)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _bars(axes: Axes, values: Mapping[str, Iterable[float]], kind: Statistic = MEAN) -> None:
    """Horizontal bars of means with intervals, the first on top."""
    found = [kind.of(list(v)) for v in values.values()]
    colours = [COLOURS[name] for name in values]
    axes.barh(
        range(len(found)), [f.value for f in found], xerr=whiskers(*found), color=colours, ecolor="0.2", capsize=3
    )
    axes.set_yticks(range(len(found)), list(values))
    axes.invert_yaxis()
