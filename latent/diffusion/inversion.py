"""From data to the noise which a deterministic sampler decodes to it.

An inverse needs no sampler of its own: a plan made from :func:`grids.reverse` runs the other way. That is the
``explicit`` mode (DDIM, first order even with a perfect model) and the ``heun`` mode (second order). The third solves
each decoding step for its noisier end and is exact in the limit of its iterations.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from core.checks import Natural, checked
from core.errors import ConfigError
from latent.diffusion import samplers
from latent.diffusion.grids import Grid, reverse
from latent.diffusion.prediction import Denoiser, Level, Query

InversionMode = Literal["explicit", "fixed_point", "heun"]


class Inverse(NamedTuple):
    """A run of the implicit inverse as a table: x' = x_coef x + eps_coef eps(x'), solved by iteration."""

    here: Level
    there: Level
    x: Any
    eps: Any


@checked
def invert(
    grid: Grid,
    denoise: Denoiser,
    operands: Any,
    x: Float[Array, "batch ..."],
    mode: InversionMode = "fixed_point",
    *,
    iterations: Natural = 5,
) -> Float[Array, "batch ..."]:
    """The sample at the grid's first (noisiest) level whose decoding by :func:`samplers.ddim` gives back ``x``.

    Args:
      grid: the grid that will decode: falling noise.
      denoise: the same denoiser as in decoding, without clipping (clipping destroys what is to be found again).
      operands: passed on to it.
      x: samples at the grid's last level.
      mode: "explicit" (one network call per step), "fixed_point" (``iterations + 1``) or "heun" (two; decode with
        :func:`samplers.heun` for the round trip of second order).
      iterations: of the fixed point, from the explicit guess.

    Raises:
      ConfigError: for an unknown mode, or a grid that starts from pure noise.
    """
    if mode == "explicit":
        return samplers.sample(samplers.ddim(reverse(grid)), denoise, operands, x)
    if mode == "heun":
        return samplers.sample(samplers.heun(reverse(grid)), denoise, operands, x)

    def body(x, row):
        return _solve(row, denoise, iterations, operands, x), None

    return jax.lax.scan(body, x, inverse(grid))[0]


def inverse(grid: Grid) -> Inverse:
    """The table of the implicit inverse of DDIM on a grid."""
    if (grid.a <= 0).any():
        raise ConfigError("pure noise (SNR exactly 0) cannot be reached by inversion: start at a finite log SNR")
    up = reverse(grid)
    here, there = (Level(*(column[cut] for column in up)) for cut in (slice(None, -1), slice(1, None)))
    x = there.a / here.a
    cast = jax.tree.map(lambda c: jnp.asarray(np.asarray(c), dtype=float), (here, there, x, there.s - x * here.s))
    return Inverse(*cast)


def _solve(row: Inverse, denoise: Denoiser, iterations: int, operands: Any, x: Array) -> Array:
    def at(level: Level, guess: Array) -> Array:
        eps = denoise(operands, Query(guess, level, jnp.zeros_like(x))).eps
        return (row.x * x + row.eps * eps).astype(x.dtype)

    guess = at(Level(*row.here), x)
    for _ in range(iterations):
        guess = at(Level(*row.there), guess)
    return guess
