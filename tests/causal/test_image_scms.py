"""Worlds with known counterfactuals, and strokes measured in their images."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from causal import image_scms as scm
from causal import stroke_measures
from core.datasets import morphomnist

needs_data = pytest.mark.skipif(morphomnist.locate() is None, reason="morphomnist_ti is not in the data directory")


@settings(max_examples=40, deadline=None)
@given(st.floats(0.6, 6.0), st.floats(-3, 3), st.floats(0.6, 6.0))
def check_round_trip(t, e, new_t):
    with jax.enable_x64(True):
        i = scm.intensity_of(t, e)
        assert float(scm.counterfactual_intensity(t, i, t)) == pytest.approx(float(i), abs=1e-9)
        there = scm.counterfactual_intensity(t, i, new_t)
        assert float(there) == pytest.approx(float(scm.intensity_of(new_t, e)), abs=1e-5)
        if 64.001 < float(there) < 254.999:
            assert float(scm.counterfactual_intensity(new_t, there, t)) == pytest.approx(float(i), abs=1e-5)


def test_counterfactual_intensities_go_there_and_back(record_property):
    check_round_trip()
    record_property("value", "i' = i at t' = t to 1e-9; there and back to 1e-5 grey levels in float64")


def test_attributes_follow_their_laws():
    t, i = scm.thickness_intensity(jax.random.key(0), 4_000)
    assert scipy.stats.kstest(np.asarray(t) - 0.5, scipy.stats.gamma(10, scale=0.2).cdf).pvalue > 1e-3
    share = (np.asarray(i, float) - 64) / 191
    noise = 2 * (np.log(share / (1 - share)) - 2 * (np.asarray(t, float) - 2.5))
    assert scipy.stats.kstest(noise, scipy.stats.norm.cdf).pvalue > 1e-3


def test_interventions_on_strokes_change_what_they_cause_only():
    strokes = scm.draw_strokes(jax.random.key(1), 64)
    thicker, brighter = scm.do_thickness(strokes, 3.0), scm.do_intensity(strokes, 200.0)
    assert (thicker.angle == strokes.angle).all()
    assert (thicker.thickness == 3.0).all()
    assert (jnp.sign(thicker.intensity - strokes.intensity) == jnp.sign(3.0 - strokes.thickness)).all()
    assert (brighter.thickness == strokes.thickness).all()
    assert (brighter.intensity == 200.0).all()


def test_strokes_are_measured_in_their_images():
    strokes = scm.draw_strokes(jax.random.key(2), 256)
    images = scm.render_strokes(strokes)
    assert images.shape == (256, 12, 12, 1)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert np.corrcoef(scm.measured_thickness(images), strokes.thickness)[0, 1] > 0.9
    assert np.corrcoef(scm.measured_intensity(images), strokes.intensity)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("angle", "light", "length", "middle"), [(0, 75, 3.935, 7.4112), (17, 120, 3.0, 13.3388), (-40, 60, 3.0, 2.008)]
)
def test_shadows_fall_where_the_formula_says(angle, light, length, middle):
    found = scm.pendulum_labels(jnp.float32(angle), jnp.float32(light))
    np.testing.assert_allclose(found[2:], [length, middle], atol=1e-3)


def test_the_pendulum_has_its_published_size_and_split():
    train, test = scm.pendulum_split()
    assert (len(scm.pendulum_grid()), len(train), len(test)) == (7308, 5482, 1826)
    labels = np.asarray(scm.pendulum_labels(*scm.pendulum_grid().T))
    assert (labels[:, 2] == 3.0).mean() == pytest.approx(0.396, abs=1e-3)


def test_renders_show_the_pendulum_and_are_opaque():
    labels = scm.pendulum_labels(jnp.array([0.0, 30.0]), jnp.array([75.0, 75.0]))
    images = np.asarray(scm.render_pendulum(labels, 48))
    assert images.shape == (2, 48, 48, 4)
    assert (images[..., 3] == 1).all()
    red = (images[..., 0] > 0.6) & (images[..., 1] < 0.3)  # the ball
    columns = np.arange(48)[None, None, :]
    centres = (red * columns).sum((1, 2)) / red.sum((1, 2))
    expected = (10 + 8 * np.sin(np.array([0.0, 30.0]) * np.pi / 200)) / 20 * 48 - 0.5
    np.testing.assert_allclose(centres, expected, atol=0.3)


def test_the_circuit_is_settled_in_topological_order():
    drawn = scm.draw_circuit(jax.random.key(0), 64)
    np.testing.assert_array_equal(scm.circuit_labels(drawn.noise), drawn.labels)
    under = scm.circuit_labels(drawn.noise, jnp.array([0.0, 0.9, 0.0, 0.0]), (False, True, False, False))
    np.testing.assert_array_equal(under[:, [0, 2]], drawn.labels[:, [0, 2]])
    assert (under[:, 1] == jnp.float32(0.9)).all()
    rise = np.asarray(under[:, 3] - drawn.labels[:, 3])
    assert rise.max() > 0.1
    assert (rise * np.asarray(0.9 - drawn.labels[:, 1]) >= -1e-6).all()
    assert scm.render_circuit(under, 16).shape == (64, 16, 16, 3)


def test_thickness_of_bars_is_their_width():
    x = np.arange(28) - 13.5
    bars = np.stack([np.broadcast_to((np.abs(x) <= w / 2)[:, None], (28, 28)) for w in (2, 4, 6)])[..., None]
    found = stroke_measures.thickness(bars.astype(float))
    np.testing.assert_allclose(found, [2, 4, 6], atol=0.4)
    assert stroke_measures.thickness(np.zeros((1, 28, 28, 1)))[0] == 0
    np.testing.assert_allclose(stroke_measures.intensity(0.5 * bars.astype(float)), 127.5)
    assert stroke_measures.intensity(np.zeros((1, 28, 28, 1)))[0] == 0


@needs_data
def test_measures_agree_with_the_attributes_of_real_digits():
    strokes = morphomnist.load()
    t, i = (measure(strokes.images[:200]) for measure in (stroke_measures.thickness, stroke_measures.intensity))
    assert np.corrcoef(t, strokes.thickness[:200])[0, 1] > 0.95
    assert np.abs(t - strokes.thickness[:200]).mean() < 0.25
    assert np.corrcoef(i, strokes.intensity[:200])[0, 1] > 0.999
    assert np.abs(i - strokes.intensity[:200]).mean() < 1.0
