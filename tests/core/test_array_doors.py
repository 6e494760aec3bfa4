"""Convolutions, windows and small matrices refuse what does not fit, by name, also while tracing."""

import jax
import jax.numpy as jnp
import pytest

from core.conv import Conv, conv
from core.errors import ConfigError
from core.linalg import minimum_norm, of_each_matrix, small_inverse
from core.patches import patches, unpatched

IMAGE, KERNEL = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
REFUSED = {
    "conv: stride": lambda: conv(IMAGE, KERNEL, 0),
    "conv: padding must be one of 'SAME', 'VALID', not 'same'": lambda: conv(IMAGE, KERNEL, padding="same"),
    "lies nowhere in an image": lambda: conv(IMAGE, jnp.ones((7, 7, 3, 4)), padding="VALID"),
    "and a kernel (3, 3, 2, 4) do not fit": lambda: conv(IMAGE, KERNEL[..., :2, :]),
    "Conv: features": lambda: Conv(0),
    "Conv: kernel": lambda: Conv(4, 0),
    "patches: size": lambda: patches(IMAGE, 0),
    "patches: windows of side 6 do not lie in images of": lambda: patches(IMAGE, 6),
    "unpatched: 3 numbers of a patch": lambda: unpatched(IMAGE, 2),
    "minimum_norm: rtol": lambda: minimum_norm(jnp.eye(2), jnp.ones(2), rtol=-1.0),
    "minimum_norm: c must have shape": lambda: minimum_norm(jnp.eye(2), jnp.ones(3)),
    "small_inverse: S must have shape": lambda: small_inverse(jnp.ones((2, 3))),
    "of_each_matrix: matrices must have shape": lambda: of_each_matrix(lambda m: m, jnp.ones(3)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_named_also_while_tracing(message):
    for call in (REFUSED[message], lambda: jax.eval_shape(REFUSED[message])):
        with pytest.raises(ConfigError) as caught:
            call()
        assert message in str(caught.value)
