"""Answers to questions of counterfactual worlds: the truth is perfect, and to do nothing is not."""

import jax.numpy as jnp
import numpy as np
import pytest

from causal import counterfactual_answers as answers
from causal import counterfactual_metrics as cm
from causal import counterfactual_worlds as worlds


def blind(x):
    """A predictor whose features are the pixels."""
    flat = jnp.asarray(x).reshape(len(x), -1)[:, ::12]
    return cm.Seen(flat[:, :2], flat)


def test_true_strokes_are_perfect_and_factual_ones_are_not():
    asked = worlds.stroke_question(48)
    rulers = answers.Rulers.fit(asked.x, asked.labels)
    assert [cm.correlation(a, b) > 0.9 for a, b in zip(rulers(asked.x).T, np.asarray(asked.labels).T, strict=True)]
    true = {name: np.asarray(asked.truth[k]) for k, name in enumerate(worlds.ASKED)}
    found = answers.of_strokes(asked, true, rulers, blind)
    still = answers.of_strokes(asked, dict.fromkeys(true, true["null"]), rulers, blind)
    for name in ("do(t)", "do(i)"):
        assert found[f"cf-MSE {name}"] == 0.0
        assert found[f"Frechet, {name}"] == pytest.approx(0.0, abs=1e-8)
        assert found[f"effect, {name}"] == pytest.approx(1.0, abs=0.15)
        assert still[f"cf-MSE {name}"] > 0.01
        assert still[f"effect, {name}"] == 0.0
    assert found["r(i), do(t)"] > 0.9
    assert still["thickness kept under do(i), px"] == still["reconstruction MSE"] == 0.0
    assert "cf-MSE do(t), random x_T" not in found
    again = answers.of_strokes(asked, true | {"do(t), new noise": true["null"]}, rulers, blind)
    assert again["cf-MSE do(t), random x_T"] == still["cf-MSE do(t)"]


def test_true_labels_of_a_world_are_without_error():
    there = worlds.circuit(16, 12, 6)
    for question, (is_set, labels) in there.asked.items():
        found = answers.of_world(there, question, there.truth[question], np.asarray(labels))
        assert found["cf-MSE"] == found["MAE of the set"] == found["MAE of the others"] == 0.0
        assert found["r(last variable)"] == (0.0 if question == "null" else pytest.approx(1.0))
        off = answers.of_world(there, question, there.truth[question], np.asarray(labels) + np.asarray(is_set))
        assert (off["MAE of the set"], off["MAE of the others"]) == (
            pytest.approx(float(np.any(is_set)), abs=1e-6), pytest.approx(0.0, abs=1e-6)
        )  # fmt: skip


def test_a_code_of_blocks_that_are_the_labels_is_aligned_and_complete():
    labels = np.random.default_rng(0).normal(size=(200, 2))
    found = answers.of_code(np.repeat(labels[:, :, None], 3, axis=2), labels)
    assert found["label correlation"] == pytest.approx(1.0)
    assert found["DCI completeness of blocks"] > 0.9
    assert answers.of_code(np.repeat(labels[:, ::-1, None], 3, axis=2), labels)["label correlation"] < 0.3
