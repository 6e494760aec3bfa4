"""Tables and figures of RecSAE."""

from collections.abc import Sequence
from typing import cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, along, drawing, finish, line, lines, panels, pivot, select
from experiments.recsae.config import SUBJECT

SHARES = (
    "hr@?", "hr@??", "ndcg@*", "mrr@*", "dead", "coherence*", "interpretable", "f1", "precision", "recall",
    "significant", "groups recovered", "share of *", "latents whose *", "sign test *",
)  # fmt: skip
STATISTICS = (
    *(Statistic("deterministic", method=name, dataset="amazon_beauty") for name in ("Popularity", "Item-kNN")),
    *(Statistic("share", metric) for metric in SHARES),
)
KINDS = Palette("latents", "neurons", "others", "ranking")
"""Of units, and of what is kept of the ranking."""
DATASETS = Palette("amazon_beauty", "planted walks", "movielens_1m", "grocery")
PLACES = ("fvu", "dead", "l0", "hr@10", "hr@20", "ndcg@10", "ndcg@20")
CONCEPTS = (
    "units", "units judged", "coherence", "coherence of .9 or more", "coherence, distinct items", "interpretable", "f1",
    "precision", "recall", "significant", "halves agree",
)  # fmt: skip


def starting(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The rows of methods whose names begin so; with the number of active latents that they name, as a column."""
    found = cast(pd.DataFrame, frame.loc[[name.startswith(prefix) for name in frame["method"]]])
    return found.assign(k=[float(name.split("k = ")[1].split()[0]) if "k = " in name else None
                           for name in found["method"]])  # fmt: skip


def in_place(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per number of active latents."""
    return pivot(("dataset", "method"), "metric", only=PLACES)(starting(frame, f"{SUBJECT},"))


TABLES = {
    "With the reconstruction in place": in_place,
    "Concepts of units on new sequences": pivot(("dataset", "method"), "metric", only=CONCEPTS, part="concepts"),
    "Steering of the most confident latents": pivot(
        ("method", "metric"), "dataset", part="steering", dose=None, state=None
    ),
    "Steering by dose": pivot(("metric", "dose"), "dataset", part="steering"),
    "Concept items where a latent is not active": pivot(("metric", "state"), "dataset", part="steering"),
    "Latents that go with popularity scaled down": pivot(("metric", "factor"), "dataset", part="debiasing"),
    "Planted groups": pivot(("method", "metric"), "dataset", part="recovery"),
}


def by_dataset(frame: pd.DataFrame, width: float) -> tuple[Figure, Sequence[tuple[Axes, str, pd.DataFrame]]]:
    """A panel for each data set of which the coherence is known."""
    datasets = sorted(set(select(frame, metric="coherence")["dataset"]))
    figure, axes = panels(len(datasets), width, 3.6)
    return figure, [(axis, name, select(frame, dataset=name)) for axis, name in zip(axes, datasets, strict=True)]


@drawing("fvu", "coherence")
def trade_off(frame: pd.DataFrame) -> Figure:
    """How much of the recommender's ranking is kept with k active latents, and how coherent latents are beside neurons
    (dotted); means over seeds.
    """
    figure, plots = by_dataset(frame, 4.2)
    for axis, dataset, here in plots:
        hits, coherent = select(here, metric="hr@10"), select(here, metric="coherence")
        before = select(hits, method=f"{SUBJECT}, probed")["value"].to_numpy().mean()
        kept, trained = starting(hits, f"{SUBJECT}, k"), starting(coherent, "latents, k")
        kept = kept.assign(value=kept["value"] / before)
        line(axis, along(kept, "k"), color=KINDS["ranking"], label="HR@10 kept in place")
        line(axis, along(trained, "k"), color=KINDS["latents"], label="coherence of latents")
        neurons = select(coherent, method="neurons")["value"].to_numpy().mean()
        axis.axhline(neurons, color=KINDS["neurons"], ls=":", label="coherence of neurons")
        finish(axis, "active latents k", "", log="x", title=dataset, legend=axis is plots[0][0])
        axis.set_ylim(0, 1.05)
        axis.set_xticks(sorted(set(trained["k"])), [f"{k:g}" for k in sorted(set(trained["k"]))], minor=False)
        axis.minorticks_off()
    return figure


@drawing("coherence")
def coherences(frame: pd.DataFrame) -> Figure:
    """How coherent the items are that move a unit most, by kind of unit, means over seeds; more is easier to name."""
    figure, plots = by_dataset(frame, 5.0)
    for axis, dataset, here in plots:
        found = sorted(along(select(here, metric="coherence"), "method"), key=lambda pair: pair[1].value)
        kinds = ["latents" if name.startswith("latents, k") else name if name in KINDS else "others"
                 for name, _ in found]  # fmt: skip
        axis.barh([name for name, _ in found], [mean.value for _, mean in found], color=[KINDS[kind] for kind in kinds])
        axis.tick_params(axis="y", labelsize=8)
        finish(axis, "share of the commonest class in the top 10", "", title=dataset)
        axis.set_xlim(0, 1)
    return figure


FIGURES = {
    "trade_off": trade_off,
    "dose_response": lines(
        "How far multiplying a latent steers the recommendations: the share of its concept's items in the top 10, mean "
        "over seeds, and a thin line per seed.",
        "share of concept items", "dose", by="dataset", single=True, colours=DATASETS, xlabel="multiple of the latent",
        ylabel="concept's items in the top 10",
    ),
    "coherence": coherences,
}  # fmt: skip
