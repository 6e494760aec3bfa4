r"""Images whose causal variables are known, so that counterfactuals can be rendered and compared.

Each world is a structural causal model over labels, exogenous noise and a style, and a renderer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from causal.mechanisms import Graph
from core.checks import Count, checked

# --- thickness and intensity (Pawlowski et al. 2020: the causal model of MorphoMNIST) ---------------------------------

THICKNESS_INTENSITY: Graph = ((0, 1), (0, 0))
"""Parents: thickness causes intensity."""


class Strokes(NamedTuple):
    """Thickness t = 0.5 + Gamma(10, rate 5), intensity i = 64 + 191 sigmoid(2 (t - 2.5) + e / 2), e ~ N(0, 1)."""

    thickness: Float[Array, " n"]
    intensity: Float[Array, " n"]
    angle: Float[Array, " n"]
    offset: Float[Array, " n"]
    """Style: direction in radians and distance from the centre in pixels."""


@checked
def thickness_intensity(key: Key[Array, ""], n: Count) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Draws ``(t, i)``."""
    thickness_key, noise_key = jax.random.split(key)
    t = 0.5 + jax.random.gamma(thickness_key, 10.0, (n,)) / 5
    return t, intensity_of(t, jax.random.normal(noise_key, (n,)))


def intensity_of(t: Any, e: Any) -> Any:
    """The intensity which thickness and noise cause."""
    return 64 + 191 * jax.nn.sigmoid(2 * (t - 2.5) + e / 2)


def counterfactual_intensity(t: Any, i: Any, new_t: Any) -> Any:
    """What the intensity would have been at another thickness: i' = 64 + 191 sigmoid(logit((i - 64)/191) + 2 (t' - t)).

    An intensity at the end of its range (64 or 255) stays there, whatever the thickness.
    """
    share = (i - 64) / 191
    return 64 + 191 * jax.nn.sigmoid(jnp.log(share) - jnp.log1p(-share) + 2 * (new_t - t))


@checked
def draw_strokes(key: Key[Array, ""], n: Count) -> Strokes:
    """Strokes with angle ~ U(-0.6, 0.6) and offset ~ U(-2, 2)."""
    keys = jax.random.split(key, 3)
    t, i = thickness_intensity(keys[0], n)
    angle = jax.random.uniform(keys[1], (n,), minval=-0.6, maxval=0.6)
    return Strokes(t, i, angle, jax.random.uniform(keys[2], (n,), minval=-2.0, maxval=2.0))


def do_thickness(strokes: Strokes, t: Any) -> Strokes:
    """The same strokes at another thickness: the intensity follows, the style stays."""
    i = counterfactual_intensity(strokes.thickness, strokes.intensity, t)
    return strokes._replace(thickness=jnp.broadcast_to(t, i.shape), intensity=i)


def do_intensity(strokes: Strokes, i: Any) -> Strokes:
    """The same strokes at another intensity: nothing else changes."""
    return strokes._replace(intensity=jnp.broadcast_to(i, strokes.intensity.shape))


def stroke_labels(strokes: Strokes) -> Float[Array, "n 2"]:
    """Thickness and intensity, standardised."""
    return jnp.stack([(strokes.thickness - 2.5) / 0.63, (strokes.intensity - 158) / 48.4], axis=-1)


@checked
def render_strokes(strokes: Strokes, side: Count = 12) -> Float[Array, "n side side 1"]:
    """(i/255) sigmoid(-(|cos th X + sin th Y - o| - t/2) / 0.25), X and Y pixels from the centre."""
    at = jnp.arange(side) - (side - 1) / 2
    x, y = at[None, None, :], at[None, :, None]
    th, o, t, i = (c[:, None, None] for c in (strokes.angle, strokes.offset, strokes.thickness, strokes.intensity))
    distance = jnp.abs(jnp.cos(th) * x + jnp.sin(th) * y - o) - t / 2
    return (i / 255 * jax.nn.sigmoid(-distance / 0.25))[..., None]


def measured_thickness(images: Float[Array, "n h w 1"]) -> Float[Array, " n"]:
    """Pixels above half of the image's maximum per row, averaged over the middle rows; to be calibrated linearly."""
    rows = images[:, 3:-3, :, 0]
    half = jnp.max(images, axis=(1, 2, 3))[:, None, None] / 2
    return jnp.mean(jnp.sum(rows > half, axis=2), axis=1)


def measured_intensity(images: Float[Array, "n h w 1"]) -> Float[Array, " n"]:
    """The mean of the eight brightest pixels, in grey levels; to be calibrated linearly."""
    flat = images.reshape(images.shape[0], -1)
    return 255 * jnp.mean(jnp.sort(flat, axis=1)[:, -8:], axis=1)


# --- a pendulum and its shadow (Yang et al. 2021) ---------------------------------------------------------------------

PENDULUM: Graph = ((0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0), (0, 0, 0, 0))
"""Parents: angle and light cause the shadow's length and position."""

PENDULUM_SHIFT = np.array([2.0, 104.0, 7.5, 11.0])
PENDULUM_SCALE = np.array([42.0, 44.0, 4.5, 8.0])
"""Labels are normalised as (x - shift) / scale."""


def pendulum_grid() -> Int[np.ndarray, "7308 2"]:
    """All (angle, light) of the data set: angles -40 to 43, lights 60 to 147 except 100."""
    return np.array([(i, j) for i in range(-40, 44) for j in range(60, 148) if j != 100])


def pendulum_split() -> tuple[Int[np.ndarray, "5482 2"], Int[np.ndarray, "1826 2"]]:
    """Settings for training and testing: every fourth is for testing, the first apart."""
    grid = pendulum_grid()
    is_test = np.arange(len(grid)) % 4 == 0
    is_test[0] = False
    return grid[~is_test], grid[is_test]


def pendulum_labels(angle: Any, light: Any) -> Float[Array, "*n 4"]:
    """``(angle, light, shadow length, shadow position)`` in the units of the drawing, 20 wide.

    With th = angle pi/200 and ph = light pi/200, light falls along the line through (x, y) with slope tan ph and meets
    the ground y = -0.5 at P(x, y). The shadow lies between the images of the pivot (10, 10.5) and of the far end of
    the ball, and is at least 3 long.
    """
    ends = _shadow_ends(angle, light)
    length = jnp.maximum(3.0, jnp.abs(ends[0] - ends[1]))
    return jnp.stack(jnp.broadcast_arrays(angle, light, length, (ends[0] + ends[1]) / 2), axis=-1).astype(jnp.float32)


def _along_light(x: Any, y: Any, light: Any, base: float) -> Any:
    slope = jnp.tan(jnp.asarray(light) * jnp.pi / 200)
    return (base - (y - x * slope)) / slope


def _shadow_ends(angle: Any, light: Any) -> tuple[Any, Any]:
    th = jnp.asarray(angle) * jnp.pi / 200
    far = 10 + 9.5 * jnp.sin(th), 10.5 - 9.5 * jnp.cos(th)
    return _along_light(10.0, 10.5, light, -0.5), _along_light(*far, light, -0.5)


@checked
def render_pendulum(labels: Float[Array, "n 4"], side: Count = 96) -> Float[Array, "n side side 4"]:
    """RGBA images: a sun, a ball on a rod, a shadow with the length and position that the labels say.

    The labels need not be consistent: an intervention on the shadow moves nothing else.
    """
    angle, light, length, position = (labels[:, k, None, None] for k in range(4))
    x = ((jnp.arange(side) + 0.5) / side * 20)[None, None, :]
    y = (21 - (jnp.arange(side) + 0.5) / side * 22)[None, :, None]
    th = angle * jnp.pi / 200
    ball = 10 + 8 * jnp.sin(th), 10.5 - 8 * jnp.cos(th)
    sun = _along_light(10.0, 10.5, light, 20.5)
    share = jnp.clip(((x - 10) * (ball[0] - 10) + (y - 10.5) * (ball[1] - 10.5)) / 64, 0.0, 1.0)
    rod = jnp.hypot(x - 10 - share * (ball[0] - 10), y - 10.5 - share * (ball[1] - 10.5)) - 0.2
    shadow = jnp.maximum(jnp.abs(x - position) - length / 2, jnp.abs(y + 0.5) - 0.25)
    shapes = (
        (jnp.hypot(x - sun, y - 20.5) - 3.0, (1.0, 0.65, 0.0)),
        (rod, (0.0, 0.0, 0.0)),
        (jnp.hypot(x - ball[0], y - ball[1]) - 1.5, (0.7, 0.13, 0.13)),
        (shadow, (0.2, 0.2, 0.2)),
    )
    image = jnp.ones((labels.shape[0], side, side, 3))
    pixel = 20 / side
    for distance, colour in shapes:
        mask = jnp.clip(0.5 - distance / pixel, 0.0, 1.0)[..., None]
        image = (1 - mask) * image + mask * jnp.asarray(colour)
    return jnp.concatenate([image, jnp.ones((*image.shape[:-1], 1))], axis=-1)


# --- a circuit of depth two -------------------------------------------------------------------------------------------

CIRCUIT: Graph = ((0, 1, 1, 1), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0))
"""Parents: the arm causes blue, green and red; blue and green cause red."""


class Circuit(NamedTuple):
    """An arm and three lamps, with the noise that made them."""

    labels: Float[Array, "n 4"]
    """(arm, blue, green, red)."""
    noise: Float[Array, "n 4"]
    """The arm itself, then the lamps' N(0, 0.03^2)."""


@checked
def draw_circuit(key: Key[Array, ""], n: Count) -> Circuit:
    """Arm ~ U(0, 1) and lamps caused by it."""
    arm_key, noise_key = jax.random.split(key)
    arm = jax.random.uniform(arm_key, (n, 1))
    noise = jnp.concatenate([arm, 0.03 * jax.random.normal(noise_key, (n, 3))], axis=1)
    return Circuit(circuit_labels(noise), noise)


@checked
def circuit_labels(
    noise: Float[Array, "n 4"], values: Float[Array, "... 4"] | float = 0.0, is_set: Any = (False,) * 4
) -> Float[Array, "n 4"]:
    """Labels of exogenous noise under do(label_k = values_k) where ``is_set[k]``; without interventions the factual."""
    values = jnp.broadcast_to(jnp.asarray(values), noise.shape)
    held = jnp.broadcast_to(jnp.asarray(is_set), noise.shape)

    def bump(at, centre):
        return jnp.maximum(0.0, 1 - jnp.abs(at - centre) / 0.2)

    def settle(k, value):
        return jnp.where(held[:, k], values[:, k], value)

    arm = settle(0, noise[:, 0])
    blue = settle(1, 0.2 + 0.6 * bump(arm, 0.25) + noise[:, 1])
    green = settle(2, 0.2 + 0.6 * bump(arm, 0.6) + noise[:, 2])
    red = settle(3, jnp.clip(0.6 * blue + 0.4 * green + 0.3 * bump(arm, 0.9), 0.0, 1.0) + noise[:, 3])
    return jnp.stack([arm, blue, green, red], axis=1)


@checked
def render_circuit(labels: Float[Array, "n 4"], side: Count = 24) -> Float[Array, "n side side 3"]:
    """A bar whose place is the arm, and a blue, a green and a red disc of the lamps' brightness."""
    x, y = ((jnp.arange(side) + 0.5) / side)[None, None, :], ((jnp.arange(side) + 0.5) / side)[None, :, None]
    arm, *lamps = (labels[:, k, None, None] for k in range(4))
    bar = jnp.maximum(jnp.abs(x - (0.1 + 0.8 * arm)) - 0.04, jnp.abs(y - 0.2) - 0.12)
    image = jnp.clip(0.5 - bar * side, 0.0, 1.0)[..., None] * jnp.ones(3)
    for k, lamp in enumerate(lamps):
        disc = jnp.hypot(x - (0.2 + 0.3 * k), y - 0.7) - 0.12
        colour = jnp.eye(3)[2 - k]  # blue, green, red
        image = image + (jnp.clip(0.5 - disc * side, 0.0, 1.0) * lamp)[..., None] * colour
    return jnp.clip(image, 0.0, 1.0)
