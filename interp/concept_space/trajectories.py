"""Reading trajectories through concept space: accuracies, times of learning, turns, and a toy model of them."""

from typing import Annotated, NamedTuple

import numpy as np
import scipy.ndimage
import scipy.optimize
import scipy.special
from jaxtyping import Float, Real

from core.checks import FINITE, Fraction, Positive, checked


@checked
def accuracy(points: Float[np.ndarray, "*b n k"], z: np.ndarray) -> Float[np.ndarray, "*b k"]:
    """Share of generations on the right side of the midpoint, per concept."""
    return ((np.asarray(points) > 0.5) == (np.asarray(z) > 0.5)).mean(axis=-2)


@checked
def joint_accuracy(points: Float[np.ndarray, "*b n k"], z: np.ndarray) -> Float[np.ndarray, "*b"]:
    """Share of generations with every concept right."""
    return ((np.asarray(points) > 0.5) == (np.asarray(z) > 0.5)).all(axis=-1).mean(axis=-1)


@checked
def success(points: Float[np.ndarray, "*b n k"], z: np.ndarray) -> Float[np.ndarray, "*b"]:
    """Share of generations whose every coordinate is less than a half from its class's: what overshoots has failed."""
    return (np.abs(np.asarray(points) - np.asarray(z)) < 0.5).all(axis=-1).mean(axis=-1)


@checked
def learned_at(
    times: Real[np.ndarray, " t"],
    curve: Annotated[Real[np.ndarray, " t"], FINITE],
    threshold: Fraction = 0.9,
    sigma: Positive = 1.5,
) -> float:
    """When something is learned, as the authors' code has it: the smoothed curve is above the threshold three times.

    The curve is smoothed over checkpoints with a Gaussian; the time is that of the middle of the first three in a row
    that lie above the threshold, infinite where there are none.
    """
    above = scipy.ndimage.gaussian_filter1d(np.asarray(curve, np.float64), sigma) > threshold
    middle = np.flatnonzero(above[:-2] & above[1:-1] & above[2:]) + 1
    return float(times[middle[0]]) if len(middle) else float("inf")


@checked
def learning_time(
    times: Real[np.ndarray, " t"], curve: Annotated[Real[np.ndarray, " t"], FINITE], threshold: Fraction = 0.8
) -> float:
    """The first time from which the curve stays above the threshold; infinity if it ends below."""
    below = np.flatnonzero(np.asarray(curve) <= threshold)
    first = below[-1] + 1 if len(below) else 0
    return float(times[first]) if first < len(times) else float("inf")


@checked
def first_time(
    times: Real[np.ndarray, " t"], curve: Annotated[Real[np.ndarray, " t"], FINITE], threshold: Fraction = 0.8
) -> float:
    """The first time above the threshold; infinity if there is none."""
    above = np.flatnonzero(np.asarray(curve) > threshold)
    return float(times[above[0]]) if len(above) else float("inf")


class Turn(NamedTuple):
    """Where a trajectory bends most."""

    index: int
    degrees: float
    """Change of direction at the bend."""
    is_inside: bool
    """Whether the bend is neither at the start nor at the end of the path."""


@checked
def turn(path: Annotated[Float[np.ndarray, "t 2"], FINITE], sigma: Positive = 1.0) -> Turn:
    """The largest curvature of the smoothed path, weighted by how far it moves: |v x a| / |v|^2 per checkpoint.

    The angle through which the direction changes at each point is smoothed over two neighbours and weighted with the
    path length around it relative to the whole, so that jitter at rest is no turn. Fewer than three points have none.
    """
    path = np.asarray(path, np.float64)
    if len(path) < 3:
        return Turn(0, 0.0, is_inside=False)
    steps = np.arange(len(path))
    kernel = np.exp(-((steps[:, None] - steps) ** 2) / (2 * sigma**2))
    smooth = kernel / kernel.sum(axis=1, keepdims=True) @ path
    velocity = np.diff(smooth, axis=0)
    length = np.linalg.norm(velocity, axis=1)
    total = max(length.sum(), 1e-12)
    heading = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
    bend = np.abs(np.diff(heading))
    weight = np.minimum(length[:-1], length[1:]) / total
    score = bend * weight
    at = int(np.argmax(score))
    moved = np.cumsum(length)[at] / total
    window = slice(max(at - 1, 0), at + 2)
    return Turn(at + 1, float(np.degrees(bend[window].sum())), bool(0.05 < moved < 0.95))


@checked
def stereotype(path: Annotated[Float[np.ndarray, "t 2"], FINITE]) -> int:
    """Which seen class with one concept switched, 01 (1) or 10 (2), the path first moves to: the larger lead.

    The mean of z_2 - z_1 over the first half of the path's length: positive is toward 01 (colour wrong, size right).
    """
    path = np.asarray(path, np.float64)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    early = path[length <= 0.5 * length[-1]]
    return 1 if (early[:, 1] - early[:, 0]).mean() > 0 else 2


@checked
def toy_path(times: Real[np.ndarray, " t"], numbers: Real[np.ndarray, "4"]) -> Float[np.ndarray, "t 2"]:
    """A path of (weaker, stronger) concept: ours, a formulation of the paper's idea.

    With two logistic curves s_i = 1 / (1 + exp(-(t - t_i) / tau_i)) of the classes that carry the concepts, the
    stronger coordinate rises from the middle with its own, (1 + s_2) / 2; the weaker one is drawn with it to the seen
    class's value 0, and released when its own concept is learned: (1 - s_2) / 2 + s_1 (1 + s_2) / 2.

    Args:
      times: of the checkpoints.
      numbers: (t_1, log tau_1, t_2, log tau_2), 1 the weaker concept.
    """
    first, log_first, second, log_second = numbers
    s1, s2 = (
        scipy.special.expit((times - at) / np.exp(log_tau))
        for at, log_tau in ((first, log_first), (second, log_second))
    )
    return np.stack([(1 - s2) / 2 + s1 * (1 + s2) / 2, (1 + s2) / 2], axis=1)


class ToyFit(NamedTuple):
    """Least squares of :func:`toy_path` to a trajectory."""

    weaker: float
    """When the weaker concept is learned."""
    stronger: float
    r2: float
    """Share of the path's variance around its mean that is explained; may be negative."""


@checked
def fit_toy(
    times: Annotated[Real[np.ndarray, " t"], FINITE], path: Annotated[Float[np.ndarray, "t 2"], FINITE]
) -> ToyFit:
    """Four numbers per path of (weaker, stronger) concept, from several starts."""
    times, path = np.asarray(times, np.float64), np.asarray(path, np.float64)
    span = np.ptp(times)
    scaled = (times - times[0]) / span

    def residual(numbers):
        return (toy_path(scaled, numbers) - path).ravel()

    bounds = ([-1.0, -5.0, -1.0, -5.0], [2.0, 0.5, 2.0, 0.5])
    starts = [(late, -2.5, early, -2.5) for late in (0.1, 0.3, 0.6, 0.9) for early in (0.05, 0.2)]
    found = min(
        (scipy.optimize.least_squares(residual, start, bounds=bounds) for start in starts), key=lambda f: f.cost
    )
    total = ((path - path.mean(axis=0)) ** 2).sum()
    weaker, _, stronger, _ = found.x
    return ToyFit(
        float(times[0] + weaker * span),
        float(times[0] + stronger * span),
        float(1 - 2 * found.cost / max(total, 1e-12)),
    )
