"""Actions as instruments of codes: two-stage least squares, and whether more actions than codes agree on one effect."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.stats import chi2
from jaxtyping import Array, Float

from causal.rep4ex.control import Outcome, Points, Stage, polynomial
from causal.rep4ex.moments import Actions
from core.checks import Count, checked
from core.errors import ConfigError


@checked
def two_stage(stage: Stage, w: Points, a: Actions, y: Float[Array, " n"], degree: Count = 1) -> Outcome:
    """Two-stage least squares of Y on polynomials of the codes, with those of the actions as instruments."""
    if a.shape[1] < w.shape[1]:
        raise ConfigError(f"{a.shape[1]} actions cannot be instruments of {w.shape[1]} codes")
    basis, z, v = polynomial(degree), stage.codes(w), stage.noise()
    regressors, instruments = basis.features(z), basis.features(a / a.std(axis=0))
    mean = regressors.mean(axis=0)
    instruments = instruments - instruments.mean(axis=0)
    fitted = instruments @ jnp.linalg.lstsq(instruments, regressors - mean)[0]
    coef = jnp.linalg.lstsq(fitted, y - y.mean())[0]
    average = basis.shifted(v)
    return Outcome(
        lambda x: (basis.features(x) - mean) @ coef,
        lambda x: jnp.zeros(len(x), x.dtype),
        lambda t: (average(t) - mean) @ coef,
        y.mean(),
    )


class Overidentification(NamedTuple):
    """Hansen's J: chi-squared with this many degrees of freedom where all instruments are valid."""

    statistic: Float[Array, ""]
    degrees: Any
    p: Float[Array, ""]


@checked
def overidentification(
    stage: Stage, w: Points, a: Actions, y: Float[Array, " n"], degree: Count = 1
) -> Overidentification:
    """Tests whether Y - l(W) has the same mean given any action, l a polynomial, with more actions than codes.

    J = n g' S^-1 g with g = n^-1 sum_i z_i e_i at its minimum over the coefficients of l, z the polynomials of the
    actions and S = n^-1 sum_i e_i^2 z_i z_i' from two-stage least squares (Hansen, Econometrica 1982). A direct effect
    of an action on Y makes it large, and so does an l that is no such polynomial. An effect along directions that move
    the codes cannot be seen. Linear maps of codes or actions change nothing. Give float64.

    Raises:
      ConfigError: where there are no more actions than codes.
    """
    if a.shape[1] <= w.shape[1]:
        raise ConfigError(
            f"{a.shape[1]} actions and {w.shape[1]} codes leave nothing to test; it takes more actions than codes"
        )
    basis, one = polynomial(degree), jnp.ones((len(y), 1), y.dtype)
    X = jnp.concatenate([one, basis.features(stage.codes(w))], axis=1)
    Z = jnp.linalg.qr(jnp.concatenate([one, basis.features(a / a.std(axis=0))], axis=1))[0] * jnp.sqrt(len(y))
    n, C, c = len(y), Z.T @ X / len(y), Z.T @ y / len(y)
    e = y - X @ jnp.linalg.lstsq(C, c)[0]
    root = jnp.linalg.cholesky((Z * e[:, None] ** 2).T @ Z / n)
    C, c = (solve_triangular(root, part, lower=True) for part in (C, c))
    J = n * jnp.sum((c - C @ jnp.linalg.lstsq(C, c)[0]) ** 2)
    degrees = Z.shape[1] - X.shape[1]
    return Overidentification(J, degrees, chi2.sf(J, degrees))
