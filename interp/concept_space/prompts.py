"""Ways to ask a model for the unseen class: naively, with an exaggerated colour, with a steered embedding."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from core.checks import Count, checked
from interp.concept_space.networks import Prompt, plain
from interp.concept_space.worlds import Concepts, corners

Told = Callable[[Any], Any]
"""From concept values [n, k] to conditions [n, c], linear in the values."""


def name_of(z: np.ndarray) -> str:
    """Of a class."""
    return "class " + "".join(map(str, z.tolist()))


@checked
def class_prompts(told: Told, concepts: Concepts = 2) -> dict[str, Prompt]:
    """A prompt of one row for every class, by name."""
    values = corners(concepts)
    classes = told(jnp.asarray(values, jnp.float32))
    return {name_of(z): plain(classes[n : n + 1]) for n, z in enumerate(values)}


@checked
def eliciting_prompts(told: Told, exaggerations: Sequence[float], strengths: Sequence[float]) -> dict[str, Prompt]:
    """Prompts for class 11 of two concepts, one row each: "over k" and "latent s".

    Args:
      told: how values are told.
      exaggerations: multiples of the colour's distance from the middle.
      strengths: multiples of the colour's contribution to the embedding, e(01) + s (e(11) - e(01)).
    """
    over = {f"over {k:g}": plain(told(jnp.array([[0.5 + k * 0.5, 1.0]]))) for k in exaggerations}
    classes = told(jnp.asarray(corners(2), jnp.float32))
    return over | {f"latent {s:g}": Prompt(classes[3:], classes[1:2], jnp.full(1, s)) for s in strengths}


@checked
def control_prompts(
    told: Told, draws: Count, strengths: Sequence[float], direction: Float[Array, " width"]
) -> dict[str, Prompt]:
    """What the best of several eliciting prompts is compared with, one row each: "naive i" and "random s".

    The first are one and the same naive prompt, to be drawn as often as there are eliciting ones; the others go from
    e(01) in a given direction as far as the latent interventions of these strengths go in theirs.
    """
    classes = told(jnp.asarray(corners(2), jnp.float32))
    unit = (direction / jnp.linalg.norm(direction))[None]
    naive = {f"naive {i}": plain(classes[3:])._replace(turned=unit) for i in range(draws)}
    return naive | {f"random {s:g}": Prompt(classes[3:], classes[1:2], jnp.full(1, s), unit) for s in strengths}


@checked
def random_direction(key: Key[Array, ""], width: Count) -> Float[Array, " width"]:
    """Of no length of its own."""
    return jax.random.normal(key, (width,))


@checked
def repeated(chosen: dict[str, Prompt], count: Count) -> Prompt:
    """All prompts as one batch, each ``count`` times."""
    stacked = jax.tree.map(lambda *rows: jnp.concatenate(rows), *chosen.values())
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), stacked)
