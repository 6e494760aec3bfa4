"""Tables and figures of ``scan_eeg``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, compared, drawing, finish, groups, panels, pivot, select
from experiments.lab.pivots import Pivot
from experiments.lab.statistics import rule_of
from experiments.lab.system import Drawing
from experiments.scan_eeg.config import SMNI, STOP, UCI
from latent.scan_eeg import CONDITIONS, FACTORS, LABELS

STATISTICS = (
    Statistic("balanced share", "balanced accuracy", dataset=UCI, over="person"),
    *(Statistic("share", "balanced accuracy", dataset=name, over="person") for name in (SMNI, STOP)),
    *(Statistic("share", label) for label in (*LABELS, "balanced accuracy")),
    *(Statistic("share", metric) for metric in ("marker is carrier*", "carrier in top two*", "mean accuracy")),
    Statistic("mean", "correlation with other trials", over="person"),
)
REFERENCE = 8.0
COMPARED = (
    "LPP difference + LR", "components + LR", "PCA-10 + LR", "raw + LR", "supervised network", "autoencoder + LR",
    "beta-VAE + LR", "beta-VAE by UDR + LR", "SCAN",
)  # fmt: skip
COLOURS = Palette(*COMPARED)
CONCEPTS = Palette("recombination", "SCAN's concept")


class OfSeeds(Pivot):
    """A pivot over metrics, each with the statistic that is declared for it, of the means over the models of a seed."""

    def cells(self, frame):
        """The summaries by row, then by column."""
        found: dict[Any, Any] = {}
        for (metric,), rows in groups(select(frame, **self.where), "metric"):
            keys = dict.fromkeys([*self.along, self.across, "metric", "seed"])
            means = rows.groupby(list(keys), as_index=False).agg({"value": "mean"})
            one = Pivot(self.along, self.across, rule_of(STATISTICS, metric=str(metric)), {}, only=self.only)
            for place, row in one.cells(means).items():
                found.setdefault(place, {}).update(row)
        return found


def denoising(along: str, metric: str, *per: str) -> Pivot:
    """Correlations by method, whole and less the grand mean."""
    return pivot((along, "method"), "form", part="denoising", metric=metric, per=per or "seed")


TABLES = {
    "Models by beta": OfSeeds(
        ("beta",), "metric", Statistic(), {"part": "pool"}, only=(
            "active latents", "KL", "UDR (lasso)", "UDR (spearman)", "mean largest correlation", "best latent: age",
            "mean accuracy",
        ),
    ),
    "Correlation with the clean ERP": denoising("source", "correlation with clean"),
    "Correlation with the same person's other trials": denoising(
        "dataset", "correlation with other trials", "seed", "person"
    ),
    "SCAN's markers (beta 8, shares of models)": OfSeeds(
        ("metric",), "method", Statistic(), {"part": "markers", "beta": REFERENCE}
    ),
    "Recombined concepts": pivot(("operator", "method"), "metric", part="recombination"),
    "Seconds": pivot("method", "metric", dataset="cost"),
}  # fmt: skip


@drawing("UDR (lasso)")
def udr(frame) -> Figure:
    """Whether UDR, which needs no labels, tells good models: every model's UDR by its accuracy (left) and by how well
    single latents follow the planted factors (right).
    """
    pool = select(frame, part="pool").pivot_table(index=["seed", "beta", "member"], columns="metric", values="value")
    betas = Palette(*sorted(set(pool.index.get_level_values("beta"))))
    figure, axes = panels(2)
    for axis, metric in zip(axes, ("mean accuracy", "mean largest correlation"), strict=True):
        for beta, rows in pool.groupby(level="beta"):
            axis.plot(rows["UDR (lasso)"], rows[metric], "o", color=betas[beta], alpha=0.7, label=f"β = {beta:g}")
        finish(axis, "UDR (lasso)", metric)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


@drawing("marker strength")
def latents(frame) -> Figure:
    """The latents of one model: their correlations with the planted factors (left), and how far naming a label moves
    them (right).
    """
    rows = select(frame, part="latents", beta=REFERENCE)
    kl = select(rows, metric="latent KL").sort_values("value", ascending=False)
    figure, axes = panels(2, width=4.5, height=0.8 + 0.3 * len(kl), sharey=True)
    for axis, metric, column, order, scale in (
        (axes[0], "correlation", "factor", FACTORS, {"cmap": "PuOr", "vmin": -1, "vmax": 1}),
        (axes[1], "marker strength", "label", LABELS, {"cmap": "Greys", "vmin": 0}),
    ):
        table = select(rows, metric=metric).pivot_table(index="latent", columns=column, values="value")
        image = axis.imshow(table.loc[list(kl["latent"]), list(order)].to_numpy(), aspect="auto", **scale)
        axis.set_xticks(range(len(order)), order, rotation=40, ha="right", fontsize=8)
        figure.colorbar(image, ax=axis, shrink=0.8, label=metric)
    names = [f"{latent:g} ({value:.2f})" for latent, value in zip(kl["latent"], kl["value"], strict=True)]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylabel("latent (KL)")
    return figure


def waves(
    caption: str, metric: str, column: str, by: str, styles: Callable[[Any, Sequence[Any]], Mapping[str, Any]]
) -> Drawing:
    """A figure of ERPs at Pz: a column of panels per value of a coordinate, a row per condition, a line per name."""

    def draw(frame) -> Figure | None:
        rows = select(frame, metric=metric, part="curves")
        if not len(rows):
            return None
        columns, names = (list(dict.fromkeys(rows[key])) for key in (column, by))
        figure, axes = panels(2 * len(columns), 2.4, 2.1, len(columns), sharex=True, sharey=True)
        for (condition, place, name), part in groups(rows, "condition", column, by):
            axis = axes[CONDITIONS.index(condition) * len(columns) + columns.index(place)]
            part, label = part.sort_values("t"), f"{name:g}" if isinstance(name, float) else name
            axis.plot(part["t"], part["value"], label=label, **{"linewidth": 1.2, **styles(name, names)})
        for i, axis in enumerate(axes):
            axis.axvline(0, color="black", linewidth=0.3)
            title = columns[i] if i < len(columns) else ""
            finish(axis, "", "", title=f"{column} {title:g}" if isinstance(title, float) else title)
        for row, condition in enumerate(CONDITIONS):
            axes[row * len(columns)].set_ylabel(f"{condition}, Pz")
        axes[0].legend(fontsize=6, frameon=False)
        figure.supxlabel("ms after the picture", fontsize=9)
        figure.set_label(caption)
        return figure

    return draw


LOOKS: Mapping[str, Mapping[str, Any]] = {
    "none": {"color": "0.8"}, "first concept": {"color": "0.5", "linestyle": ":"}, "clean": {"color": "black"},
    "people": {"color": "black"}, "PCA-10": {"color": COLOURS["PCA-10 + LR"]},
    "beta-VAE": {"color": COLOURS["beta-VAE + LR"]}, "recombination": CONCEPTS.line("recombination"),
    "beta-VAE, few trials to ERP": {"color": COLOURS["beta-VAE + LR"], "linestyle": "--"},
    "SCAN's concept": {"color": CONCEPTS["SCAN's concept"], "linestyle": "--"},
}  # fmt: skip


def named(name: Any, names: Sequence[Any]) -> Mapping[str, Any]:
    """The look of a method."""
    return LOOKS[name]


FIGURES = {
    "accuracies": compared(
        "How well each method tells the planted labels of people it was not trained on: dots are seeds, squares are "
        "means with 95 % intervals, the dotted line is chance.", LABELS, only=COMPARED, statistic="share",
        colours=COLOURS, reference=0.5, xlabel="balanced accuracy on other people", dataset="simulated",
    ),
    "udr": udr,
    "latents": latents,
    "traversals": waves(
        "What moving one latent from -2 to 2 does to the ERP at Pz.", "traversal", "latent", "at",
        lambda at, places: {"color": colormaps["coolwarm"](np.linspace(0, 1, len(places)))[sorted(places).index(at)]},
    ),
    "prototypes": waves(
        "The ERP at Pz that SCAN generates for either side of each label.", "prototype", "label", "at",
        lambda side, sides: Palette(0, 1).line(int(side)),
    ),
    "recombined": waves(
        "ERPs of concepts that SCAN combines by its operators, (old, depressed) with (depressed, sex 1), beside the "
        "mean ERP of people who are what should come out.", "recombined", "operator", "method", named,
    ),
    "denoised": waves(
        "One person's ERP from a single trial, as it is and cleaned by each method, beside the clean ERP.", "waveform",
        "metric", "method", named,
    ),
}  # fmt: skip
