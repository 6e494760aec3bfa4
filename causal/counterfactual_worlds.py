"""Worlds whose counterfactual images are known: strokes, a pendulum with its shadow, and a circuit of depth two.

Each has training images, test images, questions ("what if the light had stood elsewhere?") and the true answers. Real
digits are asked the same questions as strokes; of their answers the attributes are known and the images are not.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal import image_scms as scm
from causal.mechanisms import Graph, Intervention, Mode
from core.checks import Count, Natural, checked
from core.datasets import morphomnist
from core.patches import patches, unpatched

ASKED = ("null", "do(t)", "do(i)")
"""What is asked of strokes: nothing, another thickness, another intensity."""


class Question(NamedTuple):
    """Test strokes and what is asked of them; images in [-1, 1], values in the units of the labels."""

    x: Any
    labels: Any
    interventions: Intervention
    """[3, b, 2]: nothing, do(t), do(i)."""
    answers: Any
    """[3, b, 2]: labels of the true counterfactuals."""
    truth: Any
    """[3, b, 12, 12, 1]: the true counterfactuals."""


@checked
def training_strokes(count: Count) -> dict[str, Any]:
    """Images ``x``, ``labels``, and a ``rank`` in [0, 1) by which labels are taken away."""
    strokes = scm.draw_strokes(jax.random.key(1), count)
    rank = jax.random.uniform(jax.random.key(2), (count,))
    return {"x": 2 * scm.render_strokes(strokes) - 1, "labels": scm.stroke_labels(strokes), "rank": rank}


@checked
def stroke_question(count: Count) -> Question:
    """do(t') with t' from the law of t, do(i') with i' ~ U(70, 250)."""
    keys = jax.random.split(jax.random.key(3), 3)
    strokes = scm.draw_strokes(keys[0], count)
    t = 0.5 + jax.random.gamma(keys[1], 10.0, (count,)) / 5
    i = jax.random.uniform(keys[2], (count,), minval=70.0, maxval=250.0)
    worlds = (strokes, scm.do_thickness(strokes, t), scm.do_intensity(strokes, i))
    answers = jnp.stack([scm.stroke_labels(world) for world in worlds])
    is_set = jnp.broadcast_to(jnp.array([[0, 0], [1, 0], [0, 1]], bool)[:, None], answers.shape)
    truth = jnp.stack([2 * scm.render_strokes(world) - 1 for world in worlds])
    return Question(truth[0], answers[0], Intervention(is_set, answers), answers, truth)


class World(NamedTuple):
    """Training rows, and what is asked of the test images."""

    name: str
    graph: Graph
    rows: dict[str, Any]
    """Images in [-1, 1] and labels, normalised."""
    asked: dict[str, tuple[Any, Any]]
    """By question ``(is_set [4], labels [b, 4] of the true counterfactuals)``; the first is nothing."""
    truth: dict[str, Any]
    """The true images."""
    modes: tuple[Mode, ...]


@checked
def pendulum(count: Count, test_count: Count, side: Count) -> World:
    """Of the published settings every test image has an angle and a light; both and the shadow are intervened on.

    Args:
      count: of training images.
      test_count: of images that are asked about.
      side: of images, in pixels.
    """
    train, test = scm.pendulum_split()
    rng = np.random.default_rng(0)
    train = rng.permutation(train)[:count]
    test = rng.permutation(test)[:test_count]
    other = rng.permutation(test)

    def labels(settings, length=None):
        found = scm.pendulum_labels(*(jnp.asarray(column, jnp.float32) for column in settings.T))
        return found if length is None else found.at[:, 2].set(length)

    answers = {
        "null": labels(test),
        "do(angle)": labels(np.stack([other[:, 0], test[:, 1]], 1)),
        "do(light)": labels(np.stack([test[:, 0], other[:, 1]], 1)),
        "do(shadow length)": labels(test, labels(other)[:, 2]),
    }
    set_by = {"null": (), "do(angle)": (0,), "do(light)": (1,), "do(shadow length)": (2,)}

    def render(found):
        return 2 * scm.render_pendulum(found, side)[..., :3] - 1

    def normal(found):
        return (found - scm.PENDULUM_SHIFT) / scm.PENDULUM_SCALE

    return _world("pendulum", scm.PENDULUM, labels(train), answers, set_by, render, normal, ("paper",))


@checked
def circuit(count: Count, test_count: Count, side: Count) -> World:
    """Depth two: red follows blue, which follows the arm."""
    train = scm.draw_circuit(jax.random.key(0), count)
    test, other = (scm.draw_circuit(jax.random.key(seed), test_count) for seed in (1, 2))
    set_by = {"null": (), "do(arm)": (0,), "do(blue)": (1,), "do(red)": (3,)}
    answers = {
        name: scm.circuit_labels(test.noise, other.labels, jnp.array([k in which for k in range(4)]))
        for name, which in set_by.items()
    }

    def render(found):
        return 2 * scm.render_circuit(found, side) - 1

    mean, std = train.labels.mean(0), train.labels.std(0)
    return _world(
        "circuit", scm.CIRCUIT, train.labels, answers, set_by, render, lambda y: (y - mean) / std, ("paper", "code")
    )


def _world(name, graph, train, answers, set_by, render, normal, modes) -> World:
    rows = {"x": render(train), "labels": jnp.asarray(normal(train), jnp.float32)}
    asked = {
        question: (jnp.array([k in which for k in range(4)]), jnp.asarray(normal(answers[question]), jnp.float32))
        for question, which in set_by.items()
    }
    return World(name, graph, rows, asked, {question: render(found) for question, found in answers.items()}, modes)


THICKNESS, INTENSITY = (1.5, 4.0), (70.0, 250.0)
"""Ranges from which interventions on digits are drawn, in pixels and grey levels."""


def blocks_of(images: Any) -> Any:
    """[n, h, w, 1] in [0, 1] to blocks of 2 x 2 pixels [n, h/2, w/2, 4] in [-1, 1]: what the U-Net works on."""
    return 2 * patches(jnp.asarray(images), 2, 2) - 1


def images_of(x: Any) -> Any:
    """The inverse of :func:`blocks_of`, clipped to [0, 1]."""
    return np.clip((np.asarray(unpatched(x, 2)) + 1) / 2, 0, 1)


def labels_of(thickness: Any, intensity: Any) -> Any:
    """Standardised labels."""
    return np.stack([(thickness - 2.5) / 0.63, (intensity - 158) / 48.4], axis=1).astype(np.float32)


class DigitQuestion(NamedTuple):
    """Test digits and two interventions on each."""

    strokes: morphomnist.Strokes
    labels: np.ndarray
    """[3, b, 2]: factual, under do(t), under do(i)."""


@checked
def digit_question(count: Count, data: morphomnist.Strokes, seed: Natural) -> DigitQuestion:
    """do(t') and do(i') uniformly, the intensity under do(t') by the causal model.

    Args:
      count: of digits, drawn from the data.
      data: test digits.
      seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(data.digit), min(count, len(data.digit)), replace=False)
    strokes = morphomnist.Strokes(*(column[chosen] for column in data))
    t, i = (rng.uniform(*limits, len(chosen)).astype(np.float32) for limits in (THICKNESS, INTENSITY))
    follows = np.asarray(scm.counterfactual_intensity(strokes.thickness, strokes.intensity, t))
    factual = (strokes.thickness, strokes.intensity)
    labels = [labels_of(*factual), labels_of(t, follows), labels_of(strokes.thickness, i)]
    return DigitQuestion(strokes, np.stack(labels))
