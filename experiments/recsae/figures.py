"""Tables and figures of RecSAE from its records."""

from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab.frames import curve, groups, interval, select
from experiments.lab.statistics import statistic
from experiments.lab.style import Palette, captioned
from experiments.recsae.config import SUBJECT
from experiments.recsae.judges import STATISTICS

KINDS = Palette("latents", "neurons", "others", "ranking")
"""Of units, and of what is kept of the ranking."""
DATASETS = Palette("amazon_beauty", "planted walks", "movielens_1m", "grocery")

PLACES = ("fvu", "dead", "l0", "hr@10", "hr@20", "ndcg@10", "ndcg@20")
CONCEPTS = (
    "units", "units judged", "coherence", "coherence of .9 or more", "coherence, distinct items",
    "interpretable", "f1", "precision", "recall",
    "significant", "halves agree",
)  # fmt: skip


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over seeds with 95 % intervals."""
    if not len(frame):
        return {}
    spliced = starting(frame, f"{SUBJECT},")
    found = {
        "With the reconstruction in place": wide(spliced, ("dataset", "method"), PLACES),
        "Concepts of units on new sequences": wide(select(frame, part="concepts"), ("dataset", "method"), CONCEPTS),
        "Steering of the most confident latents": long(select(frame, part="steering"), ("dose", "state")),
        "Latents that go with popularity scaled down": long(select(frame, part="debiasing"), ("factor",)),
        "Planted groups": long(select(frame, part="recovery"), ()),
    }
    return {title: table for title, table in found.items() if len(table)}


def starting(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The rows of methods whose names begin so."""
    return cast(pd.DataFrame, frame.loc[[name.startswith(prefix) for name in frame["method"]]])


def along_k(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the number of active latents that their method names, as a column."""
    return frame.assign(k=[float(name.split("k = ")[1].split()[0]) for name in frame["method"]])


def shown(metric: str, numbers: np.ndarray) -> str:
    """A metric over seeds with the interval that is declared for it."""
    return interval(numbers, kind=statistic(STATISTICS, metric=metric))


def wide(frame: pd.DataFrame, rows: tuple[str, ...], metrics: tuple[str, ...]) -> pd.DataFrame:
    """A row per method, a column per metric."""
    cells: dict[Any, dict[str, str]] = {}
    for (*place, metric), part in groups(frame, *rows, "metric"):
        if metric in metrics:
            numbers = part["value"].to_numpy()
            text = f"{numbers.mean():,.0f}" if metric.startswith("units") else shown(metric, numbers)
            cells.setdefault(tuple(place), dict(zip(rows, place, strict=True)))[metric] = text
    order = [*rows, *metrics]
    table = pd.DataFrame(list(cells.values())).astype(object).fillna("–")
    return cast(pd.DataFrame, table[[name for name in order if name in table]])


def long(frame: pd.DataFrame, coordinates: tuple[str, ...]) -> pd.DataFrame:
    """A row per measurement, a column per data set."""
    cells: dict[Any, dict[str, str]] = {}
    known = [name for name in coordinates if name in frame]
    told = frame.astype(dict.fromkeys(known, object)).fillna(dict.fromkeys(known, ""))
    for (dataset, method, metric, *at), part in groups(told, "dataset", "method", "metric", *known):
        place = ", ".join(f"{name} {value}" for name, value in zip(known, at, strict=True) if value != "")
        row = {"method": method, "measured": metric, "at": place or "–"}
        cells.setdefault((method, metric, place), row)[dataset] = shown(metric, part["value"].to_numpy())
    return pd.DataFrame(list(cells.values())).astype(object).fillna("–")


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn: dict[str, Figure] = {}
    found = set(frame["metric"])
    if {"fvu", "coherence"} <= found:
        drawn["trade_off"] = trade_off(frame)
    if "share of concept items" in found:
        drawn["dose_response"] = doses(frame)
    if "coherence" in found:
        drawn["coherence"] = coherences(frame)
    return drawn


@captioned
def trade_off(frame: pd.DataFrame) -> Figure:
    """How much of the recommender's ranking is kept with k active latents, and how coherent latents are beside neurons
    (dotted); means over seeds.
    """
    datasets = sorted(set(frame["dataset"]))
    figure = Figure(figsize=(4.2 * len(datasets), 3.4), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        whole = select(frame, dataset=dataset, method=f"{SUBJECT}, probed", metric="hr@10")["value"].to_numpy().mean()
        kept = along_k(starting(select(frame, dataset=dataset, metric="hr@10"), f"{SUBJECT}, k"))
        kept = kept.assign(value=kept["value"] / whole)
        axes.plot(*curve(kept, "k"), "o-", color=KINDS["ranking"], label="HR@10 kept in place")
        agreement = select(frame, dataset=dataset, metric="coherence")
        trained = along_k(starting(agreement, "latents, k"))
        ks = trained["k"].to_numpy()
        axes.plot(*curve(trained, "k"), "s-", color=KINDS["latents"], label="coherence of latents")
        neurons = select(agreement, method="neurons")["value"].to_numpy().mean()
        axes.axhline(neurons, color=KINDS["neurons"], ls=":", label="coherence of neurons")
        axes.set(title=dataset, xlabel="active latents k", xscale="log", ylim=(0, 1.05))
        axes.set_xticks(sorted(set(ks)), [f"{k:g}" for k in sorted(set(ks))], minor=False)
        axes.minorticks_off()
    figure.axes[0].legend(fontsize=8)
    return figure


@captioned
def doses(frame: pd.DataFrame) -> Figure:
    """How far multiplying a latent steers the recommendations: the share of its concept's items in the top 10, mean
    over seeds, and a thin line per seed.
    """
    rows = select(frame, metric="share of concept items")
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for dataset, part in groups(rows, "dataset"):
        colour = DATASETS[dataset[0]]
        for _, own in groups(part, "seed"):
            axes.plot(*curve(own, "dose"), color=colour, lw=0.6, alpha=0.6)
        axes.plot(*curve(part, "dose"), "o-", color=colour, label=dataset[0])
    axes.set(xlabel="multiple of the latent", ylabel="concept's items in the top 10", ylim=(0, None))
    axes.legend(fontsize=8)
    return figure


@captioned
def coherences(frame: pd.DataFrame) -> Figure:
    """How coherent the items are that move a unit most, by kind of unit, means over seeds; more is easier to name."""
    rows = select(frame, metric="coherence")
    datasets = sorted(set(rows["dataset"]))
    figure = Figure(figsize=(5.0 * len(datasets), 3.6), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        means = sorted(
            (part["value"].mean(), method[0]) for method, part in groups(select(rows, dataset=dataset), "method")
        )
        values = np.array([value for value, _ in means])
        axes.barh(range(len(means)), values, color=[KINDS[_kind(method)] for _, method in means])
        axes.set_yticks(range(len(means)), [method for _, method in means], fontsize=8)
        axes.set(title=dataset, xlabel="share of the commonest class in the top 10", xlim=(0, 1))
    return figure


def _kind(method: str) -> str:
    return "latents" if method.startswith("latents, k") else "neurons" if method == "neurons" else "others"
