"""Thickness and intensity of a stroke, measured in its image instead of predicted by a trained network."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

UPSCALE = 4
_FLAT = np.sqrt(0.5)
"""Slope of the distance transform below which a point counts as medial: its nearest edges are over 90 degrees apart."""


def thickness(images: Float[np.ndarray, "n height width 1"]) -> Float[np.ndarray, " n"]:
    """Twice the mean distance to the edge along the medial axis, in pixels, on images upscaled four times.

    As Morpho-MNIST measures it (Castro et al. 2019), but with the medial axis as the ridge of the distance transform:
    the transform rises with slope 1 towards the axis and with the cosine of half the angle between the directions of
    the nearest edges on it. 0 for an image without contrast.
    """
    return np.array([_thickness(image) for image in np.asarray(images, float)[..., 0]])


def _thickness(image: Float[np.ndarray, "height width"]) -> float:
    large = np.asarray(ndimage.zoom(image, UPSCALE, order=1, mode="nearest", grid_mode=True))
    inside = _foreground(large)
    if not inside.any():
        return 0.0
    distance = np.asarray(ndimage.distance_transform_edt(inside))
    slope = np.hypot(*np.gradient(distance))
    axis = inside & (slope < _FLAT)
    return float(2 * (distance[axis].mean() if axis.any() else distance.max()) / UPSCALE)


def intensity(images: Float[np.ndarray, "n height width 1"]) -> Float[np.ndarray, " n"]:
    """The median of the pixels above half range, in grey levels of 0 to 255; 0 for an image without contrast."""
    levels = [image[_foreground(image)] for image in np.asarray(images, float)[..., 0]]
    return np.array([255 * np.median(level) if level.size else 0.0 for level in levels])


def _foreground(image: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    return image > (image.min() + image.max()) / 2
