"""Tables and figures of ``mm_gpvae``."""

import functools

from matplotlib.figure import Figure

from experiments.lab import Palette, Statistic, compared, drawing, finish, lines, panels, pivot, select

STATISTICS = (Statistic("deterministic", method="ridge regression", dataset="chewie"),)
COLOURS = Palette(
    "MM-GPVAE", "time domain", "GPFA", "CCA", "average", "unpruned", "counts only", "images only", "ridge regression",
)  # fmt: skip
DOMAINS = Palette("fourier", "time")
LATENTS = ("neural", "shared", "zoom")
result = functools.partial(pivot, "method", "metric", restart=None, kind=None)
seconds = functools.partial(
    lines, x="bins", trials=16, statistic="median", log="xy", xlabel="bins", ylabel="seconds", colours=DOMAINS
)

TABLES = {
    "Simulation: counts and a turning digit": result(
        dataset="simulation", only=(
            "shared R2", "neural R2", "zoom R2", "shared R2, fixed column", "rate R2", "bits/spike", "image MSE",
            "shared R2, counts alone", "shared R2, images alone", "shortest length", "longest length",
        ),
    ),
    "Monkey reaches: counts and velocity": result(
        dataset="chewie", only=(
            "bits/spike", "bits/spike, exchanged velocity", "velocity R2", "velocity R2, counts alone", "mean length",
            "shortest length", "longest length",
        ),
    ),
}  # fmt: skip


@drawing("aligned")
def trajectories(frame) -> Figure:
    """Latents of one test trial: the truth, and what two models infer after alignment."""
    figure, axes = panels(3)
    for axis, latent in zip(axes, LATENTS, strict=True):
        rows = select(frame, kind="trajectory", latent=latent)
        truth = select(rows, metric="truth", method="MM-GPVAE").sort_values("t")
        axis.plot(truth["t"], truth["value"], color="black", label="truth")
        for method in ("MM-GPVAE", "time domain"):
            line = select(rows, metric="aligned", method=method).sort_values("t")
            axis.plot(line["t"], line["value"], label=method, **COLOURS.line(method))
        finish(axis, "bin", "", title=latent)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


FIGURES = {
    "trajectories": trajectories,
    "recovery": compared(
        "How well each method recovers the latents: dots are seeds, squares are means with 95 % intervals.",
        [f"{latent} R2" for latent in LATENTS], dataset="simulation", restart=None, kind=None, colours=COLOURS,
    ),
    "missing_velocity": compared(
        "How well the monkey's velocity is decoded with all modalities, and from spike counts alone: dots are seeds, "
        "squares are means with 95 % intervals.", ["velocity R2", "velocity R2, counts alone"], dataset="chewie",
        colours=COLOURS,
    ),
    "scale": seconds(
        "Seconds of a training step by number of bins, medians over repeats.", "seconds of a step"
    ),
    "scale_divergence": seconds(
        "Seconds of the divergence by number of bins, medians over repeats.", "seconds of the divergence"
    ),
}  # fmt: skip
