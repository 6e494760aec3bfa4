"""Log-likelihood by the probability-flow ODE (Song et al. 2021)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
from jaxtyping import Array, Float, Key

from core.checks import checked
from core.errors import ConfigError
from core.learner import example_keys
from latent.diffusion.grids import Grid, reverse
from latent.diffusion.prediction import Denoiser, Level, Query

EXACT_UP_TO = 64


class Flow(NamedTuple):
    """An integration of the flow as a table: one row per level."""

    level: Level
    sigma: Any
    next_level: Level
    next_sigma: Any


@checked
def log_likelihood(
    grid: Grid,
    denoise: Denoiser,
    operands: Any,
    x: Float[Array, "batch ..."],
    key: Key[Array, ""] | None = None,
    *,
    log_prior: Callable[[Array], Array] | None = None,
) -> Float[Array, " batch"]:
    """Nats per example: log p(x) at the grid's last level, by Heun's rule in y = x / a, dy / dsigma = eps.

    Args:
      grid: falling noise, both ends finite.
      denoise: the denoiser.
      operands: passed on to it.
      x: samples at the grid's last level.
      key: for Hutchinson's trace estimate, one Rademacher probe per example for the whole path; None takes the exact
        trace by forward differentiation, for at most 64 dimensions.
      log_prior: log density [batch] of samples at the grid's first level; N(0, (a^2 + s^2) I) for a process that
        preserves variance, N(0, s^2 I) for one that explodes it, if None.

    Raises:
      ConfigError: where an exact trace is asked of too many dimensions, or the grid has an infinite level.
    """
    if not np.isfinite(grid.logsnr).all():
        raise ConfigError("the likelihood needs a grid whose log SNR is finite at both ends")
    size = int(np.prod(x.shape[1:]))
    if key is None and size > EXACT_UP_TO:
        raise ConfigError(f"an exact trace of {size} dimensions is too costly (at most {EXACT_UP_TO}): give a key")
    up = reverse(grid)
    ends = [Level(*(column[cut] for column in up)) for cut in (slice(None, -1), slice(1, None))]
    table = jax.tree.map(
        lambda c: jnp.asarray(np.asarray(c), dtype=float), Flow(ends[0], up.sigma[:-1], ends[1], up.sigma[1:])
    )
    probe = None
    if key is not None:
        probe = jax.vmap(lambda k: jax.random.rademacher(k, x.shape[1:], x.dtype))(example_keys(key, x.shape[0]))

    def slope(y: Array, level: Level) -> tuple[Array, Array]:
        def eps(y):
            return denoise(operands, Query((level.a * y).astype(x.dtype), level)).eps

        return eps(y), _trace(eps, y, probe)

    def body(carry, row: Flow):
        y, gained = carry
        h = row.next_sigma - row.sigma
        d, trace = slope(y, Level(*row.level))
        d_next, trace_next = slope(y + h * d, Level(*row.next_level))
        return (y + h / 2 * (d + d_next), gained + h / 2 * (trace + trace_next)), None

    start = x / up.a[0], jnp.zeros(x.shape[0], x.dtype)
    (y, gained), _ = jax.lax.scan(body, start, table)
    noisy = up.a[-1] * y
    exploding = np.allclose(grid.a, 1.0)
    std = float(grid.s[0]) if exploding else float(np.hypot(grid.a[0], grid.s[0]))
    prior = log_prior or (lambda z: jnp.sum(jss.norm.logpdf(z.reshape(z.shape[0], -1), 0.0, std), axis=1))
    return prior(noisy) + gained + size * float(np.log(up.a[-1]) - np.log(up.a[0]))


def _trace(fn: Callable[[Array], Array], y: Array, probe: Array | None) -> Array:
    """Per example, of the Jacobian of a function that treats examples apart."""

    def along(direction):
        return jnp.sum((direction * jax.jvp(fn, (y,), (direction,))[1]).reshape(y.shape[0], -1), axis=1)

    if probe is not None:
        return along(probe)
    size = int(np.prod(y.shape[1:]))
    basis = jnp.eye(size, dtype=y.dtype).reshape(size, 1, *y.shape[1:])
    return jnp.sum(jax.vmap(lambda e: along(jnp.broadcast_to(e, y.shape)))(basis), axis=0)
