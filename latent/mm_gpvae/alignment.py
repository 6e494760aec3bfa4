"""How well latents that are known up to an affine map tell the truth, and how well rates and spikes are told."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from core.checks import checked

Values = Float[np.ndarray, "*any D"]


class Score(NamedTuple):
    """R2 of one true latent."""

    aligned: float
    """By least squares with intercept on a group of columns."""
    one_to_one: float
    """On the best single column of the group."""


def r2(truth: np.ndarray, guess: np.ndarray) -> float:
    """1 - SSE / SST, pooled over all entries with a mean per channel (the last axis) of the truth."""
    spread = truth - truth.mean(axis=tuple(range(truth.ndim - 1)))
    return float(1 - np.square(truth - guess).sum() / np.square(spread).sum())


def aligned(columns: Values, truth: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """The least-squares fit of the truth with intercept, all trials and bins together."""
    x = columns.reshape(-1, columns.shape[-1]).astype(np.float64)
    design = np.hstack([x, np.ones((len(x), 1))])
    fitted = design @ np.linalg.lstsq(design, truth.reshape(-1, 1).astype(np.float64), rcond=None)[0]
    return fitted.reshape(truth.shape)


def affine_r2(columns: Values, truth: Float[np.ndarray, "*any"]) -> float:
    """R2 of :func:`aligned`."""
    return r2(truth.reshape(-1, 1).astype(np.float64), aligned(columns, truth).reshape(-1, 1))


@checked
def score(latents: Values, truth: Float[np.ndarray, "*any"], group: Sequence[int]) -> Score:
    """R2 of a true latent on a group of inferred ones; zero where the group is empty."""
    if not group:
        return Score(0.0, 0.0)
    columns = latents[..., list(group)]
    single = max(affine_r2(columns[..., i : i + 1], truth) for i in range(len(group)))
    return Score(affine_r2(columns, truth), single)


def bits_per_spike(
    counts: Float[np.ndarray, "trials T N"], rates: Float[np.ndarray, "trials T N"], mean: Float[np.ndarray, " N"]
) -> float:
    """Poisson log-likelihood over that of constant rates, in bits per spike."""
    gain = scipy.special.xlogy(counts, rates / np.maximum(mean, 1e-9)) - (rates - mean)
    return float(gain.sum() / (counts.sum() * np.log(2)))
