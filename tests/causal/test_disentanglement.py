import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings

from causal.disentanglement import completeness, dci, disentanglement


def test_one_hot_importances_score_one_and_uniform_ones_zero(record_property):
    one_hot, uniform = np.eye(4)[[0, 1, 2, 3, 1]][:4], np.ones((6, 3))
    assert disentanglement(one_hot) == completeness(one_hot) == 1.0
    assert disentanglement(uniform) == pytest.approx(0.0, abs=1e-15)
    assert completeness(uniform) == pytest.approx(0.0, abs=1e-15)
    record_property("value", "1 and 1 for one-hot, 0 and 0 for uniform importances")


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(float, (5, 3), elements=st.floats(0, 10)))
def check_against_scipy(importance):
    assume((importance.sum(1) > 1e-6).all() and (importance.sum(0) > 1e-6).all())
    total = importance.sum()
    rows = sum(r.sum() / total * (1 - scipy.stats.entropy(r, base=3)) for r in importance)
    columns = sum(c.sum() / total * (1 - scipy.stats.entropy(c, base=5)) for c in importance.T)
    assert disentanglement(importance) == pytest.approx(rows, abs=1e-12)
    assert completeness(importance) == pytest.approx(columns, abs=1e-12)
    assert -1e-12 <= disentanglement(importance) <= 1 + 1e-12


def test_scores_agree_with_the_entropies_of_scipy(record_property):
    check_against_scipy()
    record_property("value", "within 1e-12 on random matrices")


def test_a_code_that_is_the_labels_is_disentangled_and_a_rotated_one_is_not():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(400, 2))
    angle = np.pi / 4
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    own, rotated = dci(labels, labels), dci(labels @ rotation, labels)
    assert min(own.disentanglement, own.completeness, own.informativeness) > 0.95
    assert max(rotated.disentanglement, rotated.completeness) < 0.3
    assert rotated.informativeness > 0.8


def test_dead_codes_and_codes_without_rows_are_told():
    labels = np.random.default_rng(0).normal(size=(60, 1))
    assert dci(np.zeros((60, 2)), labels).disentanglement == 0.0
    with pytest.raises(ValueError, match="factor 0 does not vary"):
        dci(labels, np.ones((60, 1)))
    with pytest.raises(ValueError, match="n is 60 here and 5 in codes"):
        dci(labels[:5], labels)
    with pytest.raises(ValueError, match="finite"):
        dci(np.full((60, 1), np.nan), labels)
    with pytest.raises(ValueError, match="not negative"):
        disentanglement(np.array([[-1.0, 2.0]]))
