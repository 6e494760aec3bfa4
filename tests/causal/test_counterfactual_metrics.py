import numpy as np
import pytest
import scipy.linalg

from causal import counterfactual_metrics as cm


def test_the_frechet_distance_equals_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)), 0.5 + rng.normal(size=(200, 4))
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(root))
    assert cm.frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert cm.frechet(a, a) == pytest.approx(0.0, abs=1e-8)
    assert cm.frechet(a, a + 2.0) == pytest.approx(16.0, rel=1e-8)
    dead = np.concatenate([a, np.zeros((300, 1))], axis=1)
    assert cm.frechet(dead, dead) == pytest.approx(0.0, abs=1e-8)


def test_composition_counts_null_interventions():
    x = np.ones((2, 3))
    assert cm.composition(lambda x: x, x) == {1: 0.0, 10: 0.0}
    found = cm.composition(lambda x: x + 0.1, x)
    assert found == pytest.approx({1: 0.1, 10: 1.0})
    np.testing.assert_allclose(cm.composition(lambda x: x + np.array([[0.1], [0.2]]), x, axis=(1,))[10], [1.0, 2.0])


def test_minimality_prefers_the_smaller_of_two_changes():
    rng = np.random.default_rng(1)
    attribute = rng.uniform(size=200)
    factual = np.stack([attribute, rng.normal(size=200)], axis=1)
    target = rng.permutation(attribute)
    minimal = np.stack([target, factual[:, 1]], axis=1)
    careless = np.stack([target, rng.normal(size=200)], axis=1)
    assert cm.minimality(factual, minimal, attribute, target) < cm.minimality(factual, careless, attribute, target)
    assert np.isnan(cm.minimality(factual[:2], minimal[:2], attribute[:2], target[:2]))


def test_calibration_undoes_a_linear_map():
    labels = np.linspace(0, 3, 20)
    np.testing.assert_allclose(cm.Calibration.fit(5 - 2 * labels, labels)(5 - 2 * labels), labels)
    assert cm.correlation(labels, -labels) == pytest.approx(-1.0)
    assert cm.correlation(labels, np.ones(20)) == cm.slope(np.ones(20), labels) == 0.0
