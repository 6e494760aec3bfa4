"""Units by image, and how batches of them are drawn on the device."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from causal.treatment_effects import Target, Units
from core.checks import Count, checked
from core.learner import Layout, Learner, LearnerLike, Stream, of_first_run, replicate_seeds, stream, with_sampler

Rows = TypeVar("Rows", Units, Target)
SHARED_X = Units(None, 0, 0, 0)
"""Runs with the same images and outcomes of their own."""


def by_image(
    x: Float[Any, "images ..."], image: Int[np.ndarray, " n"], t: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> Units:
    """Units in rows, one row per image, padded with weight zero; weights add up to the number of images.

    Every image is then encoded once, however many units it has.
    """
    counts = np.bincount(image, minlength=len(x))
    order = np.argsort(image, kind="stable")
    place = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.zeros((3, len(x), max(1, counts.max())), np.float32)
    for row, values in zip(padded, (t, y, np.full(len(image), len(x) / len(image))), strict=True):
        row[image[order], place] = np.asarray(values)[order]
    return Units(x, *map(jnp.asarray, padded))


@checked
def sample_images(batch_size: Count):
    """``sample(data, key, step)``: images drawn at random, each with all of its units (or targets).

    Where outcomes have a leading axis of runs, all runs get the same images: their first layers are then one matrix
    product over the columns of all runs' filters.
    """

    def sample(data: Rows, key: Key[Array, ""], step: Int[Array, ""]) -> Rows:
        chosen = jax.random.randint(stream(key, Stream.EXAMPLES, step), (batch_size,), 0, data.weight.shape[-2])
        return type(data)(_pictures(data.x, chosen), *(jnp.take(leaf, chosen, axis=-2) for leaf in data[1:]))

    return sample


@checked
def sample_balanced_keys(batch_size: Count):
    """``sample(units, key, step)``: as many images with treated units as with controls, one unit of that arm of each.

    The authors' sampler, which weights images equally, not units. No image is drawn twice for an arm.
    """
    half = batch_size // 2

    def sample(units: Units, key: Key[Array, ""], step: Int[Array, ""]) -> Units:
        keys = jax.random.split(stream(key, Stream.EXAMPLES, step), 4)
        rows, columns = [], []
        for arm, (image_key, unit_key) in enumerate(keys.reshape(2, 2)):
            eligible = (units.weight > 0) & (units.t == arm)
            has_one = jnp.where(eligible.any(axis=1), 0.0, -jnp.inf)
            chosen = jax.lax.top_k(has_one + jax.random.gumbel(image_key, has_one.shape), half)[1]
            noise = jax.random.gumbel(unit_key, (half, eligible.shape[1]))
            rows.append(chosen)
            columns.append(jnp.argmax(jnp.where(eligible[chosen], noise, -jnp.inf), axis=1))
        row, column = jnp.concatenate(rows), jnp.concatenate(columns)
        t, y = units.t[row, column][:, None], units.y[row, column][:, None]
        return Units(_pictures(units.x, row), t, y, jnp.ones_like(y))

    return sample


def of_units(sample: Callable[..., Any]) -> Callable[..., Any]:
    """A sampler of units as one of training data of the cluster model."""
    return lambda data, key, step: data._replace(units=sample(data.units, key, step))


@checked
def together(learner: LearnerLike, sample: Callable[..., Any], runs: Count, axes: Any) -> Learner:
    """Runs that see the same images at every step, each with its own outcomes, as one program.

    Args:
      learner: of one run.
      sample: draws a batch for all runs, see :func:`sample_images`; with the key of the first run.
      runs: how many.
      axes: prefix of the batch which marks what each run has its own of (0) and what all share (None).
    """
    many = replicate_seeds(learner, runs, axes)
    drawing = with_sampler(many, lambda data, key, step: sample(data, of_first_run(key), of_first_run(step)), None)
    return drawing._replace(layout=Layout(runs=runs, run_axes=axes))


def _pictures(x: Array, chosen: Int[Array, " batch"]) -> Float[Array, "batch ..."]:
    return x[chosen].astype(jnp.float32)
