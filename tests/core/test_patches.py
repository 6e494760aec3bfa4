import jax.numpy as jnp
import numpy as np
import pytest

from core.patches import patches, unpatched


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_patches_are_the_windows_of_numpy(stride):
    images = np.random.default_rng(0).normal(size=(2, 8, 9, 3)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    expected = np.moveaxis(windows, 3, -1).reshape(*windows.shape[:3], -1)
    np.testing.assert_array_equal(patches(jnp.asarray(images), 3, stride), expected)


def test_windows_that_do_not_overlap_give_the_image_back():
    images = jnp.arange(2.0 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    np.testing.assert_array_equal(unpatched(patches(images, 4, 4), 4), images)
