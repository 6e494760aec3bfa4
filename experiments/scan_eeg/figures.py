"""The tables and figures of ``scan_eeg``, from its records."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab.frames import groups, interval, select, values
from experiments.lab.statistics import statistic
from experiments.lab.style import Palette, captioned, whiskers
from experiments.scan_eeg.claims import STATISTICS
from latent.scan_eeg import CONDITIONS, FACTORS, LABELS, OPERATORS

REFERENCE = 8.0
BY_BETA = (
    "active latents", "KL", "UDR (lasso)", "UDR (spearman)", "mean largest correlation", "best latent: age",
    "mean accuracy",
)  # fmt: skip
COMPARED = (
    "LPP difference + LR", "components + LR", "PCA-10 + LR", "raw + LR", "supervised network", "autoencoder + LR",
    "beta-VAE + LR", "beta-VAE by UDR + LR", "SCAN",
)  # fmt: skip

COLOURS = Palette(
    "beta-VAE",
    "SCAN",
    "recombination",
    "PCA-10",
    "supervised network",
    "autoencoder",
    "raw",
    "components",
    "LPP difference",
)
CLEANED = {
    "none": {"color": "0.8"}, "PCA-10": {"color": COLOURS["PCA-10"]}, "beta-VAE": {"color": COLOURS["beta-VAE"]},
    "beta-VAE, few trials to ERP": {"color": COLOURS["beta-VAE"], "linestyle": "--"}, "clean": {"color": "black"},
}  # fmt: skip
SIDES = Palette(0, 1)
"""Of a label."""


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Those whose records are there: means over seeds with 95 % intervals."""
    made = {
        "Models by beta": by_beta(frame),
        "Correlation with the clean ERP": denoising(frame),
        "SCAN's markers (beta 8, shares of models)": markers(frame),
        "Recombined concepts": recombination(frame),
        "Seconds": seconds(frame),
    }
    return {title: table for title, table in made.items() if len(table)}


def _shown(frame: pd.DataFrame) -> str:
    """A metric with the interval that is declared for it, over means of each seed or person."""
    if not len(frame):
        return "–"
    kind = statistic(STATISTICS, metric=str(frame["metric"].iloc[0]))
    return interval(np.array([part["value"].mean() for _, part in groups(frame, kind.over)]), kind=kind)


def by_beta(frame: pd.DataFrame) -> pd.DataFrame:
    """What becomes of the models as beta grows."""
    pool = select(frame, part="pool")
    return pd.DataFrame([
        {"beta": f"{beta:g}", **{metric: _shown(select(rows, metric=metric)) for metric in BY_BETA}}
        for (beta,), rows in (groups(pool, "beta") if len(pool) else ())
    ])  # fmt: skip


def denoising(frame: pd.DataFrame) -> pd.DataFrame:
    """Planted people beside their clean ERPs, real ones beside their other trials."""
    rows = select(frame, part="denoising")
    if not len(rows):
        return rows
    sources = rows["source"].fillna("single trial") if "source" in rows else "single trial"
    rows = rows.assign(source=rows["dataset"] + ": " + sources)
    return pd.DataFrame([
        {"of": source, "method": method,
         **{form: _shown(select(part, form=form)) for form in ("whole", "less grand mean")}}
        for (source, method), part in groups(rows, "source", "method")
    ])  # fmt: skip


def markers(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether the latent which naming a label moves most carries the label's factor."""
    rows = select(frame, part="markers", beta=REFERENCE)
    return pd.DataFrame([
        {"label": label, **{
            words: _shown(select(rows, metric=f"{words}: {label}"))
            for words in ("marker is carrier", "carrier in top two")
        }}
        for label in (LABELS if len(rows) else ()) if label != "random"
    ])  # fmt: skip


def recombination(frame: pd.DataFrame) -> pd.DataFrame:
    """How far from what they should be: divergence over random pairs, and the ERPs of one pair in a figure."""
    rows = select(frame, part="recombination")
    return pd.DataFrame([
        {"operator": operator, "method": method,
         **{metric: _shown(select(rows, operator=operator, method=method, metric=metric))
            for metric in ("divergence from concept", "RMS from mean ERP")}}
        for operator in (OPERATORS if len(rows) else ())
        for method in ("recombination", "first concept", "SCAN's concept")
    ])  # fmt: skip


def seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """What training costs."""
    rows = select(frame, dataset="cost")
    return pd.DataFrame([
        {"method": method, "metric": metric, "seconds": interval(part["value"].to_numpy(), 5)}
        for (method, metric), part in (groups(rows, "method", "metric") if len(rows) else ())
    ])  # fmt: skip


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Those whose records are there."""
    drawn = {
        "accuracies": (accuracies, "age"),
        "udr": (udr, "UDR (lasso)"),
        "latents": (latents, "marker strength"),
        "traversals": (traversals, "traversal"),
        "prototypes": (prototypes, "prototype"),
        "recombined": (recombined, "recombined"),
        "denoised": (denoised, "waveform"),
    }
    found = set(frame["metric"])
    return {name: draw(frame) for name, (draw, metric) in drawn.items() if metric in found}


@captioned
def accuracies(frame: pd.DataFrame) -> Figure:
    """How well each method tells the planted labels of people it was not trained on: dots are seeds, squares are means
    with 95 % intervals, the dotted line is chance.
    """
    present = set(select(frame, dataset="simulated")["method"])
    methods = [name for name in COMPARED if name in present][::-1]
    figure = Figure(figsize=(11, 0.8 + 0.28 * len(methods)), layout="constrained")
    for axis, label in zip(figure.subplots(1, len(LABELS), sharey=True), LABELS, strict=True):
        for place, method in enumerate(methods):
            numbers = values(frame, dataset="simulated", method=method, metric=label)
            colour = COLOURS[_family(method)]
            axis.plot(numbers, np.full(len(numbers), place), ".", color=colour, alpha=0.5)
            if len(numbers) > 1:
                s = statistic(STATISTICS, metric=label).of(numbers)
                axis.errorbar(s.value, place, xerr=whiskers(s), color=colour, marker="s", markersize=4, capsize=2)
        axis.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
        axis.set_xlim(0.35, 1.0)
        axis.set_title(label)
        axis.grid(axis="x", linewidth=0.3)
    figure.axes[0].set_yticks(range(len(methods)), methods)
    figure.supxlabel("balanced accuracy on other people", fontsize=9)
    return figure


@captioned
def udr(frame: pd.DataFrame) -> Figure:
    """Whether UDR, which needs no labels, tells good models: every model's UDR by its accuracy (left) and by how well
    single latents follow the planted factors (right).
    """
    pool = select(frame, part="pool").pivot_table(index=["seed", "beta", "member"], columns="metric", values="value")
    betas = Palette(*sorted(set(pool.index.get_level_values("beta"))))
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("mean accuracy", "mean largest correlation"), strict=True):
        for beta, rows in pool.groupby(level="beta"):
            axis.plot(rows["UDR (lasso)"], rows[metric], "o", color=betas[beta], alpha=0.7, label=f"β = {beta:g}")
        axis.set_xlabel("UDR (lasso)")
        axis.set_ylabel(metric)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


@captioned
def latents(frame: pd.DataFrame) -> Figure:
    """The latents of one model: their correlations with the planted factors (left), and how far naming a label moves
    them (right).
    """
    rows = select(frame, part="latents", beta=REFERENCE)
    kl = select(rows, metric="latent KL").sort_values("value", ascending=False)
    names = [f"{latent:g} ({value:.2f})" for latent, value in zip(kl["latent"], kl["value"], strict=True)]
    figure = Figure(figsize=(9, 0.8 + 0.3 * len(kl)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, metric, column, order, scale in (
        (left, "correlation", "factor", FACTORS, {"cmap": "PuOr", "vmin": -1, "vmax": 1}),
        (right, "marker strength", "label", LABELS, {"cmap": "Greys", "vmin": 0}),
    ):
        table = select(rows, metric=metric).pivot_table(index="latent", columns=column, values="value")
        table = table.loc[list(kl["latent"]), list(order)]
        image = axis.imshow(table.to_numpy(), aspect="auto", **scale)
        axis.set_xticks(range(len(order)), order, rotation=40, ha="right", fontsize=8)
        figure.colorbar(image, ax=axis, shrink=0.8, label=metric)
    left.set_yticks(range(len(names)), names)
    left.set_ylabel("latent (KL)")
    return figure


@captioned
def traversals(frame: pd.DataFrame) -> Figure:
    """What moving one latent from -2 to 2 does to the ERP at Pz."""
    rows = select(frame, metric="traversal")
    shown = list(dict.fromkeys(rows["latent"]))
    figure, axes = _waves(len(shown), [f"latent {latent:g}" for latent in shown])
    places = sorted(rows["at"].unique())
    colours = colormaps["coolwarm"](np.linspace(0, 1, len(places)))
    for (latent, condition, at), line in groups(rows, "latent", "condition", "at"):
        axis = axes[CONDITIONS.index(condition), shown.index(latent)]
        _line(axis, line, color=colours[places.index(at)], label=f"{at:g}")
    axes[0, 0].legend(fontsize=6, frameon=False, title="z", title_fontsize=6)
    return figure


@captioned
def prototypes(frame: pd.DataFrame) -> Figure:
    """The ERP at Pz that SCAN generates for either side of each label."""
    rows = select(frame, metric="prototype")
    figure, axes = _waves(len(LABELS), LABELS)
    for (label, condition, at), line in groups(rows, "label", "condition", "at"):
        axis = axes[CONDITIONS.index(condition), LABELS.index(label)]
        _line(axis, line, color=SIDES[int(at)], label=f"{at:g}")
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


@captioned
def recombined(frame: pd.DataFrame) -> Figure:
    """ERPs of concepts that SCAN combines by its operators, (old, depressed) with (depressed, sex 1), beside the mean
    ERP of people who are what should come out.
    """
    rows = select(frame, metric="recombined")
    figure, axes = _waves(len(OPERATORS), OPERATORS)
    styles = {
        "people": {"color": "black"},
        "recombination": {"color": COLOURS["recombination"]},
        "SCAN's concept": {"color": COLOURS["SCAN"], "linestyle": "--"},
        "first concept": {"color": "0.5", "linestyle": ":"},
    }
    for (operator, condition), part in groups(rows, "operator", "condition"):
        for method, style in styles.items():
            axis = axes[CONDITIONS.index(condition), OPERATORS.index(operator)]
            _line(axis, select(part, method=method), label=method, **style)
    axes[0, 0].legend(fontsize=6, frameon=False)
    return figure


@captioned
def denoised(frame: pd.DataFrame) -> Figure:
    """One person's ERP from a single trial, as it is and cleaned by each method, beside the clean ERP."""
    rows = select(frame, metric="waveform")
    figure, axes = _waves(1, ["one test person"])
    for (condition,), part in groups(rows, "condition"):
        axis = axes[CONDITIONS.index(condition), 0]
        for method, style in CLEANED.items():
            _line(axis, select(part, method=method), label=method, **style)
    axes[0, 0].legend(fontsize=6, frameon=False)
    return figure


def _waves(columns: int, titles: Iterable[str]) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(max(4.5, 2.4 * columns), 4.2), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey=True)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for axis, condition in zip(axes[:, 0], CONDITIONS, strict=True):
        axis.set_ylabel(f"{condition}, Pz")
    figure.supxlabel("ms after the picture", fontsize=9)
    return figure, axes


def _line(axis: Axes, rows: pd.DataFrame, **style: Any) -> None:
    rows = rows.sort_values("t")
    axis.plot(rows["t"], rows["value"], linewidth=1.2, **style)
    axis.axvline(0, color="black", linewidth=0.3)


def _family(method: str) -> str:
    """The name that a method's colour goes by, whatever classifier follows it."""
    return "LPP difference" if method.startswith("LPP") else method.removesuffix(" + LR").removesuffix(" by UDR")
