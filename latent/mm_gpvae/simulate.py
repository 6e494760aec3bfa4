r"""The paper's simulation as a pure function of a key: counts and a digit which turns and grows, with known latents.

Per trial, with K = exp(-(t - t')^2 / (2 l^2))::

    g1 ~ GP(0, .3 K) shared        the angle is 120 g1 degrees
    g2 ~ GP(0, .5 K) neural
    g3 ~ GP(0, .8 K) + 1 behaviour the zoom is |g3|
    y  ~ Poisson(exp(W [g1, g2] + d)),  W ~ 1.5 U(-1, 1),  d ~ .5 U(-1, 1)

Every frame shows another image of the digit. Gondur et al., ICLR 2024, simulation, in the form of their released code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key

from core.checks import Count, NonNegative, Positive, checked
from latent.mm_gpvae.fourier import rbf

VARIANCES = (0.5, 0.3, 0.8)
"""Of the neural, the shared and the behaviour latent."""
DEGREES = 120.0
SIDE = 28
"""Of a digit."""
FRAME = 36
"""Of a frame at full resolution: a digit with a margin of 4."""


class Simulation(NamedTuple):
    """Observations and what they were made from."""

    counts: Float[Array, "trials T N"]
    images: Float[Array, "trials T P"]
    """Flattened, in [0, 1]."""
    rates: Float[Array, "trials T N"]
    latents: Float[Array, "trials T 3"]
    """Neural, shared, behaviour: g2, g1, g3."""

    @property
    def zoom(self) -> Float[Array, "trials T"]:
        """|g3|, the part of g3 that images can tell."""
        return jnp.abs(self.latents[..., 2])


@checked
def gp_draws(
    key: Key[Array, ""], trials: Count, bins: Count, length: Positive, variance: NonNegative
) -> Float[Array, "trials T"]:
    """Independent paths of a GP with RBF kernel, through the kernel's eigenvectors."""
    values, vectors = jnp.linalg.eigh(rbf(bins, jnp.array([length]))[0])
    root = vectors * jnp.sqrt(variance * jnp.maximum(values, 0.0))
    return jax.random.normal(key, (trials, bins)) @ root.T


@checked
def warp(digit: Float[Array, "28 28"], degrees: Array, zoom: Array, side: Count = FRAME) -> Float[Array, "side side"]:
    """A digit turned and scaled about the centre of a frame of 36 x 36, bilinearly, then averaged down to ``side``."""
    angle, centre = jnp.deg2rad(degrees), (FRAME - 1) / 2
    grid = jnp.arange(FRAME) - centre
    row, column = grid[:, None], grid[None, :]
    scale = 1 / jnp.maximum(zoom, 0.05)
    back = (SIDE - 1) / 2
    rows = scale * (jnp.cos(angle) * row + jnp.sin(angle) * column) + back
    columns = scale * (jnp.cos(angle) * column - jnp.sin(angle) * row) + back
    frame = map_coordinates(digit, [rows, columns], order=1, mode="constant")
    block = FRAME // side
    return frame.reshape(side, block, side, block).mean(axis=(1, 3))


@checked
def drawn_threes(key: Key[Array, ""], count: Count) -> Float[Array, "count 28 28"]:
    """Threes of two arcs with random sizes, strokes and slants, for runs without data."""

    def draw(key):
        radius_key, width_key, slant_key = jax.random.split(key, 3)
        upper, lower = jnp.array([4.2, 5.0]) * jax.random.uniform(radius_key, (2,), minval=0.85, maxval=1.15)
        angles = jnp.linspace(-0.8, 0.55, 24) * jnp.pi
        top = jnp.stack([14 - upper + upper * jnp.sin(angles), 13 + upper * jnp.cos(angles)], axis=1)
        low = jnp.stack([14 + lower - lower * jnp.sin(angles), 13 + lower * jnp.cos(angles)], axis=1)
        strokes = jnp.concatenate([top, low])
        slant = jax.random.uniform(slant_key, (), minval=-0.3, maxval=0.3)
        strokes = strokes.at[:, 1].add(slant * (14 - strokes[:, 0]))
        pixels = jnp.stack(jnp.meshgrid(jnp.arange(SIDE), jnp.arange(SIDE), indexing="ij"), axis=-1)
        distance = jnp.linalg.norm(pixels[:, :, None] - strokes, axis=-1).min(axis=-1)
        width = jax.random.uniform(width_key, (), minval=1.0, maxval=1.8)
        return jax.nn.sigmoid(3 * (width - distance))

    return jax.vmap(draw)(jax.random.split(key, count))


@checked
def simulate(
    key: Key[Array, ""],
    digits: Float[Array, "M 28 28"],
    *,
    trials: Count = 300,
    bins: Count = 60,
    neurons: int = 100,
    side: Count = FRAME,
    length: Positive = 10.0,
) -> Simulation:
    """Trials of counts and images.

    Args:
      key: of everything random.
      digits: images in [0, 1], shown in turn; with a single one the digit is fixed.
      trials: number of independent trials.
      bins: T.
      neurons: N; the read-outs of fewer neurons are the first of those of more.
      side: of the frames; a divisor of 36.
      length: l of all latents, in bins.
    """
    latent_key, weight_key, offset_key, count_key = jax.random.split(key, 4)
    keys = jax.random.split(latent_key, 3)
    g = [gp_draws(k, trials, bins, length, v) for k, v in zip(keys, VARIANCES, strict=True)]
    latents = jnp.stack([g[0], g[1], g[2] + 1.0], axis=-1)
    W = 1.5 * _per_neuron(weight_key, neurons, 2)
    d = 0.5 * _per_neuron(offset_key, neurons, 1)[:, 0]
    rates = jnp.exp(latents[..., :2] @ W.T + d)
    counts = jax.random.poisson(count_key, rates).astype(jnp.float32)
    shown = np.arange(trials * bins) % len(digits)

    def frame(place):
        angle, zoom, index = place
        return warp(digits[index], angle, zoom, side).ravel()

    places = (DEGREES * latents[..., 1].ravel(), jnp.abs(latents[..., 2]).ravel(), jnp.asarray(shown))
    images = jax.lax.map(frame, places, batch_size=512).reshape(trials, bins, side * side)
    return Simulation(counts, images, rates, latents)


def _per_neuron(key: Key[Array, ""], neurons: int, columns: int) -> Float[Array, "N columns"]:
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(neurons))
    return jax.vmap(lambda k: jax.random.uniform(k, (columns,), minval=-1.0, maxval=1.0))(keys)
