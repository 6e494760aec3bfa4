"""Worlds of concepts: images of discs and triangles, rendered and measured, and vectors with the same concepts."""

import itertools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Real

from core.checks import Count, Fraction, NonNegative, Positive, checked
from core.kinds import Range

Concepts = Annotated[int, Range(2, 3)]


@checked
def corners(concepts: Concepts = 2) -> Int[np.ndarray, "classes concepts"]:
    """All classes: values of (colour, size) or (colour, size, background)."""
    return np.array(list(itertools.product((0, 1), repeat=concepts)))


@checked
def shown_corners(concepts: Concepts = 2) -> Int[np.ndarray, "classes concepts"]:
    """Classes to train on: those with at most one concept switched."""
    every = corners(concepts)
    return every[every.sum(axis=1) <= 1]


class World(NamedTuple):
    """How far the two values of each concept lie apart; without a third concept backgrounds are light."""

    sep_colour: Any = 0.8
    sep_size: Any = 0.4
    sep_background: Any = None

    @property
    def concepts(self) -> int:
        """Two, or three."""
        return 2 if self.sep_background is None else 3

    @property
    def separations(self) -> Float[Array, "*b concepts"]:
        """All of them."""
        return jnp.stack([jnp.asarray(sep, float) for sep in self if sep is not None], axis=-1)


# --- discs and triangles ----------------------------------------------------------------------------------------------


class Disc(NamedTuple):
    """What an image shows; coordinates in [-1, 1]."""

    colour: Float[Array, "*b 3"]
    size: Float[Array, "*b"]
    """Radius."""
    centre: Float[Array, "*b 2"]
    background: Float[Array, "*b 3"]


def class_means(world: World, z: Float[Array, "*b k"]) -> tuple[Array, Array, Array]:
    """Colour, radius, grey of the background: red, large, light at 0 and blue, small, dark at 1; linear between."""
    half = jnp.asarray(world.sep_colour) / 2
    red = jnp.stack([0.5 + half, 0.5 - half, 0.5 - half], axis=-1)
    blue = jnp.stack([0.5 - half, 0.5 - half, 0.5 + half], axis=-1)
    size = 0.45 + jnp.asarray(world.sep_size) * (0.5 - z[..., 1])
    dark = jnp.zeros_like(size) if world.sep_background is None else jnp.asarray(world.sep_background) * z[..., 2]
    return red + z[..., :1] * (blue - red), size, 0.9 - dark


@checked
def draw(key: Key[Array, ""], world: World, z: Real[Array, "b k"]) -> Disc:
    """Discs of given concept values, with the spread of the training data around each class's mean."""
    count = z.shape[0]
    keys = jax.random.split(key, 4)
    colour, size, grey = class_means(world, jnp.asarray(z, float))

    def uniform(key, shape, spread):
        return spread * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    return Disc(
        colour + uniform(keys[0], (count, 3), jnp.asarray(world.sep_colour) / 8),
        size + uniform(keys[1], (count,), jnp.asarray(world.sep_size) * 3 / 8),
        uniform(keys[2], (count, 2), 0.5),
        grey[:, None] + uniform(keys[3], (count, 1), 0.1) * jnp.ones(3),
    )


@checked
def typical(world: World, z: Real[Array, "b k"]) -> Disc:
    """The class means in the middle of the image: what a prompt asks for."""
    colour, size, grey = class_means(world, jnp.asarray(z, float))
    return Disc(colour, size, jnp.zeros((size.shape[0], 2)), grey[:, None] * jnp.ones(3))


@checked
def render(disc: Disc, side: Count, edge: Positive = 0.06) -> Float[Array, "*b side side 3"]:
    """Images in [0, 1]; the mask falls from 1 to 0 over a few ``edge`` around the radius."""
    x, y = _pixels(side)
    r = jnp.hypot(x - disc.centre[..., 0, None, None], y - disc.centre[..., 1, None, None])
    return _compose(jax.nn.sigmoid((disc.size[..., None, None] - r) / edge), disc)


@checked
def render_triangle(disc: Disc, side: Count, edge: Positive = 0.06) -> Float[Array, "*b side side 3"]:
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


@checked
def condition(disc: Disc, concepts: Concepts = 2) -> Float[Array, "*b c"]:
    """What the model is told: the actual values of the concepts; the rest it must make up."""
    parts = [disc.colour, disc.size[..., None], disc.background][:concepts]
    return jnp.concatenate(parts, axis=-1)


@checked
def masked(cond: Float[Array, "*b c"], hide_colour: Bool[Array, "*b"]) -> Float[Array, "*b c"]:
    """The prompt without its colour (zeros) where asked: an underspecified prompt. The rest is untouched."""
    return jnp.where(hide_colour[..., None] & (jnp.arange(cond.shape[-1]) < 3), 0.0, cond)


@checked
def measure(images: Float[Array, "*b h w 3"], threshold: Fraction = 0.2) -> Disc:
    """What the pixels show.

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
    share = jnp.where(share > threshold, share, 0.0)
    pixels = jnp.sum(share, axis=(-1, -2))
    radius = jnp.sqrt(pixels / jnp.pi) * 2 / images.shape[-2]
    x, y = _pixels(images.shape[-2])
    centre = jnp.stack([jnp.sum(share * at, axis=(-1, -2)) / jnp.maximum(pixels, 1e-6) for at in (x, y)], axis=-1)
    shown = largest[..., 0, 0] > 0.1
    colour = jnp.where(shown[..., None], colour, background)
    return Disc(colour, jnp.where(shown, radius, 0.0), centre, background)


@checked
def coordinates(seen: Disc, world: World) -> Float[Array, "*b k"]:
    """The point in concept space: projections on the lines between the class means, 0 at class 0 and 1 at class 1."""
    ends = jnp.stack([jnp.zeros(world.concepts), jnp.ones(world.concepts)])
    (red, blue), (large, small), (light, dark) = class_means(world, ends)
    axis = blue - red
    along = [(seen.colour - red) @ axis / (axis @ axis), (seen.size - large) / (small - large)]
    if world.concepts == 3:
        along.append((seen.background.mean(axis=-1) - light) / (dark - light))
    return jnp.stack(along, axis=-1)


@checked
def concept_signal(
    world: World, side: Count, concept: Annotated[int, Range(0, 2)], z: Float[Array, " k"] | None = None
) -> Float[Array, ""]:
    """|dx / dz_i|: the norm of the rendered image's derivative along a concept, at class 00's mean or at ``z``.

    By forward differentiation of the renderer.
    """
    z = jnp.zeros(world.concepts) if z is None else z
    direction = jnp.zeros_like(z).at[concept].set(1.0)
    _, tangent = jax.jvp(lambda z: render(typical(world, z[None]), side)[0], (z,), (direction,))
    return jnp.linalg.norm(tangent)


# --- vectors ----------------------------------------------------------------------------------------------------------


@checked
def draw_values(key: Key[Array, ""], z: Real[Array, "b k"], spread: NonNegative = 0.25) -> Float[Array, "b k"]:
    """Concept values around those of the classes, uniform within ``spread`` of the separation."""
    return z + spread * jax.random.uniform(key, z.shape, minval=-1.0, maxval=1.0)


@checked
def centres(world: World, z: Real[Array, "b k"]) -> Float[Array, "b k"]:
    """Points of concept values: the unit cube stretched to the separations, centred at 0."""
    return (jnp.asarray(z, float) - 0.5) * world.separations


@checked
def draw_points(
    key: Key[Array, ""], world: World, z: Real[Array, "b k"], noise: NonNegative = 0.05
) -> Float[Array, "b k"]:
    """The points of concept values with Gaussian noise: what is generated, while the values are what is told."""
    return centres(world, z) + noise * jax.random.normal(key, z.shape)


def told_point(world: World, z: Any) -> Any:
    """The condition of concept values [n, k]: the actual coordinates, away from the 0 that stands for nothing."""
    return 1.0 + centres(world, z)


class Telling(NamedTuple):
    """What a model of points is told of what it sees; numbers, so that runs of any kind are one program."""

    alpha: Any = 0.0
    """Probability that the colour is left out for class 01."""
    permuted: Any = False
    """Whether conditions are another example's."""
    conditional: Any = 1.0
    """0 where nothing is told."""
    dropped: Any = 0.0
    """Probability that the whole condition is -1, for guidance."""


@checked
def training_points(
    key: Key[Array, ""], world: World, telling: Telling, concepts: Concepts, count: Count
) -> dict[str, Array]:
    """Points ``x`` of the seen classes, and conditions ``cond`` with what is hidden, permuted or dropped of them."""
    keys = jax.random.split(key, 6)
    seen = jnp.asarray(shown_corners(concepts), jnp.float32)
    classes = seen[jax.random.randint(keys[0], (count,), 0, len(seen))]
    z = draw_values(keys[1], classes)
    x, cond = draw_points(keys[2], world, z), told_point(world, z)
    is_hidden = jax.random.bernoulli(keys[3], telling.alpha, (count,))
    is_hidden &= (classes[:, 0] == 0) & (classes[:, 1] == 1)
    cond = jnp.where(is_hidden[:, None] & (jnp.arange(concepts) == 0), 0.0, cond)
    cond = jnp.where(telling.permuted, jax.random.permutation(keys[4], cond), cond) * telling.conditional
    is_dropped = jax.random.bernoulli(keys[5], telling.dropped, (count, 1))
    return {"x": x, "cond": jnp.where(is_dropped, -1.0, cond)}


@checked
def point_coordinates(x: Float[Array, "*b k"], world: World) -> Float[Array, "*b k"]:
    """The point in concept space of a vector."""
    return x / world.separations + 0.5
