import jax
import numpy as np
import optax

from latent import scan_eeg as eeg


def test_a_folds_codes_are_those_of_a_model_of_its_own_rows():
    x = np.random.default_rng(0).normal(size=(10, 2, 16)).astype(np.float32)
    kept, vae, tx = [np.arange(6), np.arange(4, 9)], eeg.BetaVae(2, 16, 2, (2, 2), 4), optax.sgd(1e-2)
    found = eeg.codes_by_fold(jax.random.key(0), vae, x, kept, 2.0, tx, 3, 4)
    assert found.shape == (2, 10, 2)
    assert np.abs(found[0] - found[1]).max() > 1e-6
    changed = x.copy()
    changed[9] += 5.0  # in no training
    again = eeg.codes_by_fold(jax.random.key(0), vae, changed, kept, 2.0, tx, 3, 4)
    np.testing.assert_array_equal(again[:, :9], found[:, :9])
    changed[8] += 5.0  # in the second alone
    again = eeg.codes_by_fold(jax.random.key(0), vae, changed, kept, 2.0, tx, 3, 4)
    np.testing.assert_array_equal(again[0, :8], found[0, :8])
    assert np.abs(again[1, :8] - found[1, :8]).max() > 1e-6


def test_every_person_counts_once():
    assert eeg.means_by_person(np.array([1.0, 0.0, 4.0]), np.array([7, 7, 3])) == {3: 4.0, 7: 0.5}


def test_people_and_conditions_have_equally_many_trials():
    subject, condition = np.array([0, 0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 0, 1, 0, 0])
    x = np.arange(7.0)[:, None, None] * np.ones((1, 2, 3))
    found, groups = eeg.by_person_and_condition(x, subject, condition)
    np.testing.assert_array_equal(groups, [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(found[:, 0, 0, 0], [0, 2, 3, 4])
    assert found.shape == (4, 1, 2, 3)
