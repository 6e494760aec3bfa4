"""Windows of images side by side: a convolution is then one matrix product."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import Count, checked
from core.errors import ConfigError


@checked
def patches(images: Float[Array, "n h w c"], size: Count, stride: Count = 1) -> Float[Array, "n rows columns patch"]:
    """All windows of an image that lie in it, flattened in the order (row, column, channel).

    Args:
      images: padded, where windows shall reach beyond them.
      size: side of the windows.
      stride: between them; equal to ``size`` for windows that do not overlap.

    Raises:
      ConfigError: where no window lies in an image.
    """
    if size > min(images.shape[1:3]):
        raise ConfigError(f"patches: windows of side {size} do not lie in images of {list(images.shape[1:3])}")
    rows, columns = ((side - size) // stride + 1 for side in images.shape[1:3])
    parts = [
        images[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(parts, axis=-1)


@checked
def unpatched(x: Float[Array, "n rows columns patch"], size: Count) -> Float[Array, "n h w c"]:
    """The inverse of :func:`patches` where windows do not overlap.

    Raises:
      ConfigError: for patches that are no squares of this side.
    """
    if x.shape[-1] % size**2:
        raise ConfigError(f"unpatched: {x.shape[-1]} numbers of a patch are no square of side {size} with channels")
    n, rows, columns, features = x.shape
    x = x.reshape(n, rows, columns, size, size, features // size**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, rows * size, columns * size, -1)
