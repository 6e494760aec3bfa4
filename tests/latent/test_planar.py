import jax
import numpy as np
import pytest
import scipy.stats

from core.errors import ConfigError
from latent.planar import ring, sliced_wasserstein


def test_the_ring_has_eight_modes():
    x = np.asarray(ring(jax.random.key(0), 4000))
    np.testing.assert_allclose(np.hypot(*x.T).mean(), 1.5, atol=0.02)
    counts = np.bincount(np.round(np.arctan2(x[:, 1], x[:, 0]) / (np.pi / 4)).astype(int) % 8)
    assert len(counts) == 8
    assert counts.min() > 400


def test_the_sliced_distance_is_scipys_along_every_direction():
    rng = np.random.default_rng(0)
    a, b, directions = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 0.5, rng.normal(size=(3, 7))
    each = [scipy.stats.wasserstein_distance(a @ u, b @ u) for u in directions.T]
    assert sliced_wasserstein(a, b, directions) == pytest.approx(np.mean(each))
    with pytest.raises(ConfigError, match="50 rows and b 49"):
        sliced_wasserstein(a, b[1:], directions)
