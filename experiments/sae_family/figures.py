"""Tables and figures of the family: error against sparsity, firing frequencies, error inside a language model."""

import functools

from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, drawing, finish, lines, panels, pivot, select
from experiments.lab.pivots import Pivot

METHODS = ("TopK", "BatchTopK", "Gated", "JumpReLU", "ReLU, L1")
COLOURS = Palette(*METHODS)
STATISTICS = tuple(Statistic("share", metric) for metric in ("features above .9", "dead"))
QUALITY = ("fvu", "l0", "mean max cosine", "features above .9", "dead", "shrinkage", "least active", "largest silent",
           "loss recovered")  # fmt: skip


def quality(dataset: str, *along: str) -> Pivot:
    """What is measured of every dictionary."""
    return pivot(along or "method", "metric", STATISTICS, only=QUALITY, dataset=dataset)


cost = functools.partial(pivot, statistic="median", dataset="cost")
TABLES = {
    "Planted features, k = 6": quality("planted"),
    "Planted features over sparsity": quality("planted sweep", "method", "knob"),
    "A wide dictionary at a large learning rate": quality("planted, wide"),
    "Twice as many features as latents": quality("planted, crowded"),
    "Residual stream of a small decoder": quality("decoder", "m", "k"),
    "Cost of decoding": cost(("m", "k"), "metric", method="decode"),
    "Cost of a step of small dictionaries": cost("method", "metric", m=None),
}


@drawing("fvu", "l0", "mean max cosine")
def pareto(frame) -> Figure:
    """What is lost (left, the fraction of variance unexplained) and which planted features are found (right) by the
    number of active latents; means over seeds. The dotted line is the true number of active features.
    """
    figure, axes = panels(2)
    for axis, metric, label in zip(axes, ("fvu", "mean max cosine"), ("FVU", "mean best cosine"), strict=True):
        for method in METHODS:
            means = select(frame, method=method).pivot_table(index="knob", columns="metric", values="value")
            if len(means):
                means = means.loc[means["l0"] > 0].sort_values(by="l0")
                axis.plot(means["l0"], means[metric], marker="o", markersize=3, label=method, **COLOURS.line(method))
        axis.axvline(6, color="0.7", linestyle=":", linewidth=1)
        finish(axis, "active latents per example (L0)", label, log="xy" if metric == "fvu" else "x")
    axes[1].legend(frameon=False, fontsize="small")
    return figure


FIGURES = {
    "pareto": lambda frame: pareto(select(frame, dataset="planted sweep")),
    "densities": lines(
        "How often latents fire, a line per seed; silent latents are at the left end.", "latents in bin", "log_density",
        by="seed", shade=False, xlabel="log10 firing frequency", ylabel="latents", colours=Palette(*range(6)),
    ),
    "scaling": lines(
        "How much of a decoder's residual stream a dictionary leaves unexplained, by its number of latents; a line per "
        "number of active ones, means over seeds.", "fvu", "m", by="k", dataset="decoder", log="xy", xlabel="latents",
        ylabel="FVU", colours=Palette(4, 8, 16, 32, 64),
    ),
}  # fmt: skip
