"""Worlds of known counterfactuals: each question is answered by the world's own mechanisms."""

import numpy as np
import pytest

from causal import counterfactual_worlds as worlds


def test_questions_have_their_own_answers():
    asked = worlds.stroke_question(16)
    np.testing.assert_array_equal(asked.truth[0], asked.x)
    np.testing.assert_array_equal(asked.answers[2][:, 0], asked.labels[:, 0])  # do(i) leaves t
    assert (np.asarray(asked.answers[1] != asked.labels).all(0)).all()  # do(t) moves both


@pytest.mark.parametrize("make", [worlds.pendulum, worlds.circuit])
def test_worlds_answer_interventions_by_their_own_mechanisms(make):
    there = make(64, 16, 8)
    factual = np.asarray(there.asked["null"][1])
    graph = np.array(there.graph, bool)
    reach = np.linalg.matrix_power(np.eye(4) + graph, 4) > 0
    for is_set, labels in there.asked.values():
        moved = reach[np.asarray(is_set)].any(0) if np.asarray(is_set).any() else np.zeros(4, bool)
        np.testing.assert_allclose(np.asarray(labels)[:, ~moved], factual[:, ~moved], atol=1e-6)
        assert (np.abs(np.asarray(labels) - factual)[:, np.asarray(is_set)].max(0, initial=1.0) > 0.1).all()
    assert there.rows["x"].shape[1:3] == (8, 8)


def test_training_strokes_are_images_with_labels_and_a_rank():
    rows = worlds.training_strokes(32)
    assert {name: column.shape for name, column in rows.items()} == {
        "x": (32, 12, 12, 1), "labels": (32, 2), "rank": (32,)
    }  # fmt: skip
    assert -1 <= float(rows["x"].min()) < float(rows["x"].max()) <= 1
    assert 0 <= float(rows["rank"].min()) < float(rows["rank"].max()) < 1


def test_patches_are_undone():
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)
    assert worlds.blocks_of(images).shape == (2, 14, 14, 4)
    np.testing.assert_allclose(worlds.images_of(worlds.blocks_of(images)), images, atol=1e-6)
