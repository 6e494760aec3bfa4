"""What representations of ERPs are measured by, and the hand-made features that they are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, checked
from latent.scan_eeg.erps import FACTORS, LABELS, TIMES

CARRIERS = {"age": "N1 latency", "sex": "N1 amplitude", "anxiety": "P2 amplitude", "depression": "LPP amplitude"}
"""The planted factor through which each label shows."""


@checked
def balanced_accuracy(truth: Int[Array, " n"], guess: Int[Array, " n"], classes: Count) -> Float[Array, ""]:
    """The mean recall over the classes which occur in ``truth``."""
    member = jax.nn.one_hot(truth, classes)
    count = member.sum(0)
    recall = (member * (truth == guess)[:, None]).sum(0) / jnp.maximum(count, 1)
    return jnp.sum(recall) / jnp.maximum(jnp.sum(count > 0), 1)


def correlations(z: Float[Array, "n latents"], factors: Float[Array, "n factors"]) -> Float[Array, "latents factors"]:
    """Pearson's; 0 for constant columns."""
    return _unit(z).T @ _unit(factors)


def _unit(columns):
    centred = columns - columns.mean(0)
    norm = jnp.linalg.norm(centred, axis=0)
    return jnp.where(norm > 1e-9, centred / jnp.where(norm > 1e-9, norm, 1.0), 0.0)


def waveform_correlation(a: Float[Array, "n c t"], b: Float[Array, "n c t"]) -> Float[Array, " n"]:
    """Pearson's, of every pair of recordings as vectors."""
    return jax.vmap(lambda x, y: jnp.vdot(_unit(x.reshape(-1)), _unit(y.reshape(-1))))(a, b)


def single_latent_accuracy(
    z: Float[Array, "n latents"], labels: Int[Array, " n"], test_z: Float[Array, "m latents"], test: Int[Array, " m"]
) -> Float[Array, ""]:
    """Balanced accuracy of the nearest of two class means on one latent: the one that is best on the first data."""
    positive = labels[:, None] == 1
    means = [jnp.mean(z, axis=0, where=positive == value) for value in (False, True)]

    def guess(points):
        return (jnp.abs(points - means[1]) < jnp.abs(points - means[0])).astype(jnp.int32)

    score = jax.vmap(balanced_accuracy, in_axes=(None, 1, None))
    best = jnp.argmax(score(labels, guess(z), 2))
    return score(test, guess(test_z), 2)[best]


@checked
def window_means(x: Float[Array, "n 6 256"], start: float, stop: float) -> Float[Array, "n 6"]:
    """Mean amplitudes between two times in ms."""
    return jnp.mean(x, axis=-1, where=(start <= TIMES) & (stop >= TIMES))


@checked
def lpp_difference(x: Float[Array, "n 6 256"], start: float = 400.0, stop: float = 772.0) -> Float[Array, "n 3"]:
    """The late positive potential as clinicians measure it: positive less neutral, per site."""
    means = window_means(x, start, stop)
    return means[:, 3:] - means[:, :3]


def components(x: Float[Array, "n 6 256"]) -> Float[Array, "n 30"]:
    """N1's peak and latency (80-200 ms), P2's peak and latency (160-320 ms), and P3's mean (300-450 ms)."""
    parts = [*_peak(-x, 80, 200), *_peak(x, 160, 320), window_means(x, 300, 450)]
    return jnp.concatenate(parts, axis=1)


def _peak(x, start: float, stop: float):
    inside = jnp.where((start <= TIMES) & (stop >= TIMES), x, -jnp.inf)
    return inside.max(-1), TIMES[inside.argmax(-1)]


@checked
def markers(
    active: Bool[np.ndarray, " latents"], correlation: Float[np.ndarray, "latents factors"],
    strength: Float[np.ndarray, "labels latents"],
) -> dict[str, float]:  # fmt: skip
    """Whether the latent that naming a label moves most is the one which carries its planted factor.

    Args:
      active: whether a latent says anything; others are neither marker nor carrier.
      correlation: with the planted factors, absolute.
      strength: how far naming a label moves each latent, see :func:`marker_strength`.
    """
    found: dict[str, float] = {}
    for label, factor in CARRIERS.items():
        moved = np.where(active, strength[LABELS.index(label)], -1)
        carrier = int(np.argmax(np.where(active, correlation[:, FACTORS.index(factor)], -1)))
        found[f"marker is carrier: {label}"] = float(np.argmax(moved) == carrier)
        found[f"carrier in top two: {label}"] = float(carrier in np.argsort(-moved)[:2])
    return found | {"largest difference: random": float(np.where(active, strength[LABELS.index("random")], 0).max())}
