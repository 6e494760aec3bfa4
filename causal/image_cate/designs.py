"""Simulated experiments on real images: effects that depend on a dark-centred spot in an image.

Designs of this project; the response is that of the kernel which the authors' code moderates effects with.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from core.checks import Natural, checked

Design = Literal["S1", "S2", "S3"]
EFFECTS: dict[Design, tuple[float, ...]] = {"S1": (0.0, 2.0), "S2": (1.0, 1.0), "S3": (-1.0, 0.5, 2.0)}
CENTRES = np.array([0.17, 0.5, 0.83])
PER_IMAGE = 2


class Experiment(NamedTuple):
    """Units, two per image, and the truth."""

    image: Int[np.ndarray, " n"]
    t: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    p: Float[np.ndarray, "images clusters"]
    """True p(z | image)."""
    mu: Float[np.ndarray, " clusters"]

    @property
    def effect(self) -> Float[np.ndarray, " images"]:
        """True tau(m)."""
        return self.p @ self.mu


def standardised(images: np.ndarray) -> Float[np.ndarray, "images h w c"]:
    """Less the mean, by the deviation, of every band over all images and pixels."""
    x = images.astype(np.float32)
    return (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))


def spot_kernel() -> Float[np.ndarray, "7 7"]:
    """A dark centre with a bright surround: mean zero, norm one."""
    kernel = np.ones((7, 7))
    kernel[2:5, 2:5] = -1.0
    kernel -= kernel.mean()
    return kernel / np.linalg.norm(kernel)


def response_map(band: Float[np.ndarray, "images h w"]) -> Float[np.ndarray, "images h-6 w-6"]:
    """Cross-correlation with the kernel at every valid position."""
    kernel = spot_kernel()
    return np.stack([np.einsum("ijkl,kl->ij", sliding_window_view(image, (7, 7)), kernel) for image in band])


def response_rank(x: Float[np.ndarray, "images h w c"]) -> Float[np.ndarray, " images"]:
    """q: the rank of every image's largest response in band 0, over their number."""
    largest = response_map(x[..., 0]).max((1, 2))
    return np.argsort(np.argsort(largest, kind="stable"), kind="stable") / len(x)


@checked
def cluster_probabilities(design: Design, q: Float[np.ndarray, " images"]) -> Float[np.ndarray, "images clusters"]:
    """p(z | image)."""
    if design != "S3":
        pi = 1 / (1 + np.exp(-12 * (q - 0.5)))
        return np.stack([1 - pi, pi], axis=1)
    weight = np.exp(-60 * (q[:, None] - CENTRES) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


@checked
def simulate(design: Design, x: Float[np.ndarray, "images h w c"], seed: Natural) -> Experiment:
    """Units with tau = mu_Z + N(0, 0.3^2), Y(0) = 0.5 * mean of band 1 (standardised) + N(0, 0.5^2).

    T ~ Bernoulli(0.5). Draws, in this order: uniforms for Z, normals of the effects, normals of Y(0), uniforms for T;
    units in the order of the images 0, 0, 1, 1, ...
    """
    p, mu = cluster_probabilities(design, response_rank(x)), np.array(EFFECTS[design])
    image = np.repeat(np.arange(len(x)), PER_IMAGE)
    band = x[..., 1].mean((1, 2))
    rng, n = np.random.default_rng(seed), len(image)
    u = rng.uniform(size=n)
    from_top = np.cumsum(p[image][:, ::-1], axis=1)[:, :-1]  # the last cluster below its own probability, and so on
    z = (u[:, None] < from_top).sum(axis=1)
    tau = mu[z] + 0.3 * rng.normal(size=n)
    y0 = 0.5 * ((band - band.mean()) / band.std())[image] + 0.5 * rng.normal(size=n)
    t = (rng.uniform(size=n) < 0.5).astype(float)
    return Experiment(image, t, y0 + t * tau, p, mu)
