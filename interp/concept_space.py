r"""Concept space: where the generations of a conditional diffusion model lie between the concepts it was shown.

Park, Okawa, Lee, Lubana, Tanaka, Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space,
NeurIPS 2024, arXiv 2406.19370. A world has two concepts, z = (z_1, z_2) in {0, 1}^2; a model is trained on the classes
00, 01 and 10 and asked for 11. Its point in concept space is the mean over generations of measured coordinates, 0 at
class 0's mean of a concept and 1 at class 1's. Everything here is pure; times of learning and turns are read off
recorded trajectories.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from latent.film import FilmMlp
from latent.unet import UNet, sinusoids

CLASSES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
"""Values of (colour, size)."""
SEEN = (0, 1, 2)
"""Classes to train on: those with at most one concept switched."""


# --- the world of discs -----------------------------------------------------------------------------------------------


class World(NamedTuple):
    """How far the two values of each concept lie apart."""

    sep_colour: Any = 0.8
    sep_size: Any = 0.4


class Disc(NamedTuple):
    """What an image shows; coordinates in [-1, 1]."""

    colour: Float[Array, "*b 3"]
    size: Float[Array, "*b"]
    """Radius."""
    centre: Float[Array, "*b 2"]
    background: Float[Array, "*b 3"]


def class_means(world: World, z: Float[Array, "*b 2"]) -> tuple[Float[Array, "*b 3"], Float[Array, "*b"]]:
    """Colour and radius of concept values: red and large at 0, blue and small at 1; linear in between."""
    half = jnp.asarray(world.sep_colour) / 2
    red = jnp.stack([0.5 + half, 0.5 - half, 0.5 - half], axis=-1)
    blue = jnp.stack([0.5 - half, 0.5 - half, 0.5 + half], axis=-1)
    size = 0.45 + jnp.asarray(world.sep_size) * (0.5 - z[..., 1])
    return red + z[..., :1] * (blue - red), size


def draw(key: Key[Array, ""], world: World, z: Int[Array, " b"] | Float[Array, "b 2"]) -> Disc:
    """Discs of given concept values, with the spread of the training data around each class's mean."""
    count = z.shape[0]
    keys = jax.random.split(key, 4)
    colour, size = class_means(world, jnp.asarray(z, float))

    def uniform(key, shape, spread):
        return spread * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    return Disc(
        colour + uniform(keys[0], (count, 3), jnp.asarray(world.sep_colour) / 8),
        size + uniform(keys[1], (count,), jnp.asarray(world.sep_size) * 3 / 8),
        uniform(keys[2], (count, 2), 0.5),
        0.9 + uniform(keys[3], (count, 1), 0.1) * jnp.ones(3),
    )


def typical(world: World, z: Float[Array, "b 2"]) -> Disc:
    """The class means in the middle of the image: what a prompt asks for."""
    colour, size = class_means(world, jnp.asarray(z, float))
    count = size.shape[0]
    return Disc(colour, size, jnp.zeros((count, 2)), jnp.full((count, 3), 0.9))


def render(disc: Disc, side: int, edge: float = 0.06) -> Float[Array, "*b side side 3"]:
    """Images in [0, 1]; the mask falls from 1 to 0 over a few ``edge`` around the radius."""
    x, y = _pixels(side)
    r = jnp.hypot(x - disc.centre[..., 0, None, None], y - disc.centre[..., 1, None, None])
    return _compose(jax.nn.sigmoid((disc.size[..., None, None] - r) / edge), disc)


def render_triangle(disc: Disc, side: int, edge: float = 0.06) -> Float[Array, "*b side side 3"]:
    """The same with an upright equilateral triangle of the disc's area, side sqrt(4 pi / sqrt 3) times the radius."""
    x, y = _pixels(side)
    x, y = x - disc.centre[..., 0, None, None], y - disc.centre[..., 1, None, None]
    inradius = disc.size[..., None, None] * np.sqrt(4 * np.pi / np.sqrt(3)) / (2 * np.sqrt(3))
    sides = [x * np.cos(a) + y * np.sin(a) - inradius for a in (-np.pi / 2, np.pi / 6, 5 * np.pi / 6)]
    outside = jnp.maximum(jnp.maximum(sides[0], sides[1]), sides[2])
    return _compose(jax.nn.sigmoid(-outside / edge), disc)


def _pixels(side: int) -> tuple[Array, Array]:
    at = (jnp.arange(side) + 0.5) / side * 2 - 1
    return at[None, :], -at[:, None]


def _compose(mask: Array, disc: Disc) -> Array:
    colour, background = (c[..., None, None, :] for c in (disc.colour, disc.background))
    return mask[..., None] * colour + (1 - mask[..., None]) * background


def condition(disc: Disc) -> Float[Array, "*b 4"]:
    """What the model is told: the actual colour and radius; position and background it must make up."""
    return jnp.concatenate([disc.colour, disc.size[..., None]], axis=-1)


def masked(cond: Float[Array, "*b 4"], hide_colour: Bool[Array, "*b"]) -> Float[Array, "*b 4"]:
    """The prompt without its colour (zeros) where asked: an underspecified prompt. The rest is untouched."""
    return jnp.where(hide_colour[..., None] & (jnp.arange(4) < 3), 0.0, cond)


def measure(
    images: Float[Array, "*b h w 3"], threshold: float = 0.2
) -> tuple[Float[Array, "*b 3"], Float[Array, "*b"]]:
    """Colour and radius read off the pixels.

    The background is the median of the border, per image and channel; a pixel belongs to the object with the share
    of its distance from the background to that of the farthest pixels (those within a twentieth of the maximum),
    whose mean is the colour. The radius is that of a disc of the object's area. An image without a distance above the
    threshold shows nothing: radius 0, its colour that of the background.
    """
    border = jnp.concatenate(
        [images[..., 0, :, :], images[..., -1, :, :], images[..., 1:-1, 0, :], images[..., 1:-1, -1, :]], axis=-2
    )
    background = jnp.median(border, axis=-2)
    distance = jnp.linalg.norm(images - background[..., None, None, :], axis=-1)
    largest = jnp.max(distance, axis=(-1, -2), keepdims=True)
    core = distance >= 0.95 * largest
    colour = jnp.sum(images * core[..., None], axis=(-2, -3)) / jnp.sum(core, axis=(-1, -2))[..., None]
    level = jnp.sum(distance * core, axis=(-1, -2)) / jnp.sum(core, axis=(-1, -2))
    share = jnp.clip(distance / jnp.maximum(level, 1e-6)[..., None, None], 0.0, 1.0)
    area = jnp.sum(jnp.where(share > threshold, share, 0.0), axis=(-1, -2)) * (2 / images.shape[-2]) ** 2
    shown = largest[..., 0, 0] > 0.1
    return jnp.where(shown[..., None], colour, background), jnp.where(shown, jnp.sqrt(area / jnp.pi), 0.0)


def coordinates(colour: Float[Array, "*b 3"], size: Float[Array, "*b"], world: World) -> Float[Array, "*b 2"]:
    """The point in concept space: projections on the lines between the class means, 0 at class 0 and 1 at class 1."""
    (red, blue), (large, small) = class_means(world, jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    axis = blue - red
    along_colour = (colour - red) @ axis / (axis @ axis)
    return jnp.stack([along_colour, (size - large) / (small - large)], axis=-1)


def concept_signal(world: World, side: int, concept: int, z: Float[Array, " 2"] | None = None) -> Float[Array, ""]:
    """|dx / dz_i|: the norm of the rendered image's derivative along a concept, at class 00's mean or at ``z``.

    By forward differentiation of the renderer.
    """
    z = jnp.zeros(2) if z is None else z
    direction = jnp.zeros(2).at[concept].set(1.0)
    _, tangent = jax.jvp(lambda z: render(typical(world, z[None]), side)[0], (z,), (direction,))
    return jnp.linalg.norm(tangent)


# --- the world of vectors ---------------------------------------------------------------------------------------------


def draw_values(key: Key[Array, ""], z: Float[Array, "b 2"], spread: float = 0.25) -> Float[Array, "b 2"]:
    """Concept values around those of the classes, uniform within ``spread`` of the separation."""
    return z + spread * jax.random.uniform(key, z.shape, minval=-1.0, maxval=1.0)


def centres(world: World, z: Float[Array, "b 2"]) -> Float[Array, "b 2"]:
    """Points of concept values: the unit square stretched to sides (sep_colour, sep_size), centred at 0."""
    sides = jnp.stack([jnp.asarray(world.sep_colour), jnp.asarray(world.sep_size)], axis=-1)
    return (jnp.asarray(z, float) - 0.5) * sides


def draw_points(key: Key[Array, ""], world: World, z: Float[Array, "b 2"], noise: float = 0.05) -> Float[Array, "b 2"]:
    """The points of concept values with Gaussian noise: what is generated, while the values are what is told."""
    return centres(world, z) + noise * jax.random.normal(key, z.shape)


def point_coordinates(x: Float[Array, "*b 2"], world: World) -> Float[Array, "*b 2"]:
    """The point in concept space of a vector."""
    return x / jnp.stack([jnp.asarray(world.sep_colour), jnp.asarray(world.sep_size)], axis=-1) + 0.5


# --- networks with prompts that can be steered ------------------------------------------------------------------------


class Prompt(NamedTuple):
    """A condition and, for latent interventions, the one from which its embedding is extrapolated.

    The network uses e(base) + strength (e(cond) - e(base)): strength 1 is the plain condition.
    """

    cond: Float[Array, "b c"]
    base: Float[Array, "b c"]
    strength: Float[Array, " b"]


def plain(cond: Float[Array, "b c"]) -> Prompt:
    """A prompt without an intervention."""
    return Prompt(cond, cond, jnp.ones(cond.shape[0]))


class PromptEmbedding(nn.Module):
    """Two layers (Linear, GELU, Linear), extrapolated as the prompt says."""

    width: int

    @nn.compact
    def __call__(self, prompt: Prompt) -> Float[Array, "b width"]:
        """The embedding."""
        inner, outer = nn.Dense(self.width, name="in"), nn.Dense(self.width, name="out")

        def embed(cond):
            return outer(nn.gelu(inner(cond)))

        base = embed(prompt.base)
        return base + prompt.strength[:, None] * (embed(prompt.cond) - base)


class DiscDenoiser(nn.Module):
    """A U-Net with time and prompt added in every block."""

    channels: Sequence[int] = (16, 32)
    blocks: int = 1
    width: int = 64
    dropout: float = 0.0
    middle_attention: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], time: Float[Array, " b"], prompt: Prompt) -> Array:
        """The raw prediction; the time is in [0, 1]."""
        emb = nn.Dense(self.width, name="time_in")(sinusoids(1_000.0 * time, 64))
        emb = nn.Dense(self.width, name="time_out")(nn.gelu(emb)) + PromptEmbedding(self.width, name="prompt")(prompt)
        unet = UNet(
            x.shape[-1], self.channels, self.blocks, mode="add", act=nn.gelu, groups=8, epsilon=1e-6,
            dropout=self.dropout, middle_attention=self.middle_attention, name="unet",
        )  # fmt: skip
        return unet(x, emb)


class PointDenoiser(nn.Module):
    """A perceptron for the world of vectors."""

    width: int = 64
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b 2"], time: Float[Array, " b"], prompt: Prompt) -> Array:
        """The raw prediction; the time is in [0, 1]."""
        emb = PromptEmbedding(self.width, name="prompt")(prompt)
        return FilmMlp(self.width, self.blocks, time_scale=1_000.0, name="net")(x, time, emb)


def patched(params: Any, donor: Any) -> Any:
    """The parameters with the prompt embedding of another model, such as a later checkpoint."""
    return {**params, "params": {**params["params"], "prompt": donor["params"]["prompt"]}}


# --- reading trajectories ---------------------------------------------------------------------------------------------


def accuracy(points: Float[np.ndarray, "*b n 2"], z: np.ndarray) -> Float[np.ndarray, "*b 2"]:
    """Share of generations on the right side of the midpoint, per concept."""
    return ((np.asarray(points) > 0.5) == (np.asarray(z) > 0.5)).mean(axis=-2)


def joint_accuracy(points: Float[np.ndarray, "*b n 2"], z: np.ndarray) -> Float[np.ndarray, "*b"]:
    """Share of generations with every concept right."""
    return ((np.asarray(points) > 0.5) == (np.asarray(z) > 0.5)).all(axis=-1).mean(axis=-1)


def learning_time(times: np.ndarray, curve: np.ndarray, threshold: float = 0.8) -> float:
    """The first time from which the curve stays above the threshold; infinity if it ends below."""
    below = np.flatnonzero(np.asarray(curve) <= threshold)
    first = below[-1] + 1 if len(below) else 0
    return float(times[first]) if first < len(times) else float("inf")


def first_time(times: np.ndarray, curve: np.ndarray, threshold: float = 0.8) -> float:
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


def turn(path: Float[np.ndarray, "t 2"], sigma: float = 1.0) -> Turn:
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


def stereotype(path: Float[np.ndarray, "t 2"]) -> int:
    """Which seen class with one concept switched, 01 (1) or 10 (2), the path first moves to: the larger lead.

    The mean of z_2 - z_1 over the first half of the path's length: positive is toward 01 (colour wrong, size right).
    """
    path = np.asarray(path, np.float64)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    early = path[length <= 0.5 * length[-1]]
    return 1 if (early[:, 1] - early[:, 0]).mean() > 0 else 2
