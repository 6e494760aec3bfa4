"""Whether a prediction may be believed: the constraint's test, strength of the first stage, support, intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from causal.rep4ex.control import Stage
from causal.rep4ex.moments import Actions, Codes, fourier_features, gaussian_kernel, median_bandwidth, regress
from causal.treatment_effects import Estimate
from core.checks import Count, Fraction, checked

WEAK = 10.0
"""The F statistic below which instruments are called weak (Staiger and Stock 1997)."""


class ConstraintTest(NamedTuple):
    """n Q_V of whitened residuals and its wild-bootstrap p-value; Q_U differs by the same constant in all draws."""

    statistic: Float[Array, ""]
    p: Float[Array, ""]


Energy = Callable[[Codes], Float[Array, ""]]
"""Of residuals: n^-1 sum_ij <r_i, r_j> K_ij."""


def kernel_energy(a: Actions, bandwidth: Any) -> Energy:
    """By the kernel itself."""
    K = gaussian_kernel(a, a, bandwidth)
    return lambda r: (r * (K @ r)).sum() / len(r)


def fourier_energy(psi: Float[Array, "n features"]) -> Energy:
    """By features whose products stand for the kernel, where n^2 numbers are too many."""
    return lambda r: ((psi.T @ r) ** 2).sum() / len(r)


@checked
def constraint_test(key: Any, w: Codes, a: Actions, energy: Energy, draws: Count = 199) -> ConstraintTest:
    """Tests E[V_phi | A] = 0 by multiplying residuals with random signs.

    The residuals of every draw are regressed on (1, A) again, which is what makes the size right: the regression is
    estimated. Signs leave the diagonal terms as they are, so that V- and U-statistic give the same p.
    """
    r = regress(w, a).V
    r = solve_triangular(jnp.linalg.cholesky(r.T @ r / len(r)), r.T, lower=True).T
    signs = jax.random.rademacher(key, (draws, len(r)), r.dtype)
    found = energy(r)
    drawn = jax.lax.map(lambda sign: energy(regress(sign[:, None] * r, a).V), signs)
    return ConstraintTest(found, (1 + (drawn >= found).sum()) / (1 + draws))


def constraint_p(w: Float[np.ndarray, "n d"], a: Float[np.ndarray, "n k"]) -> float:
    """The p-value of :func:`constraint_test` on codes as they are, by 128 random features of the kernel."""
    w, a = ((part - part.mean(axis=0)).astype(np.float32) for part in (w, a))
    return float(_constraint_p(jax.random.key(0), jnp.asarray(w), jnp.asarray(a), median_bandwidth(a)))


@jax.jit
def _constraint_p(key, w, a, bandwidth):
    frequencies = jax.random.normal(jax.random.key(64), (a.shape[1], 64))
    return constraint_test(key, w, a, fourier_energy(fourier_features(frequencies, a, bandwidth))).p


class Strength(NamedTuple):
    """How strongly actions move the code, relative to its noise; singular values descending."""

    relative: Float[Array, " r"]
    """Of Cov(V_phi)^(-1/2) M Cov(A)^(1/2): effect of an action of one standard deviation, in noise deviations."""
    noise: Float[Array, " d"]
    """Of Cov(V_phi)."""
    effect: Float[Array, " r"]
    """Of M_phi."""
    least_f: Float[Array, ""]
    """F statistic of the direction that actions move least (Cragg and Donald 1993)."""

    @property
    def weak(self) -> Any:
        """Whether some direction of the code is hardly moved: extrapolation along it is not to be believed."""
        return self.least_f < WEAK


def strength(stage: Stage, a: Actions) -> Strength:
    """The first stage's report; an encoder with a coordinate too many shows as a relative singular value near 0."""
    M, V = stage.regression.M, stage.regression.V
    n, k = a.shape
    root = jnp.linalg.cholesky(jnp.cov(a.T, bias=True).reshape(k, k))
    relative = jnp.linalg.svd(stage.white((M @ root).T).T, compute_uv=False)
    noise = jnp.linalg.svd(V.T @ V / n, compute_uv=False)
    least = relative[-1] if M.shape[0] <= k else jnp.zeros(())
    return Strength(relative, noise, jnp.linalg.svd(M, compute_uv=False), least**2 * (n - k - 1) / k)


@checked
def outside_support(
    stage: Stage, w: Codes, actions: Float[Array, "j k"], quantile: Fraction = 0.99, most: Count = 1000
) -> Float[Array, " j"]:
    """The share of M a + q + v_i that lies farther from its nearest training code than codes do among themselves.

    Distances are whitened; "farther" means beyond the given quantile of the codes' own nearest-neighbour distances.
    All on the first ``most`` rows. Near 0.01 inside of the support, 1 far away.
    """
    z, v = stage.codes(w)[:most], stage.noise()[:most]

    def nearest(x, own: bool):
        squares = ((x[:, None] - z) ** 2).sum(-1)
        return (squares + jnp.where(jnp.eye(len(z), dtype=bool), jnp.inf, 0.0) if own else squares).min(axis=1)

    limit = jnp.quantile(nearest(z, own=True), quantile)
    return jax.lax.map(lambda t: (nearest(t + v, own=False) > limit).mean(), stage.shifts(actions))


@checked
def bootstrap(
    key: Any, statistic: Callable[..., Float[Array, " j"]], rows: tuple[Array, ...], draws: Count
) -> Estimate:
    """``statistic(*rows)``, with its spread over rows drawn with replacement.

    Draws follow one another in one program: each holds n x p numbers, and LAPACK calls stay single.
    """
    n = len(rows[0])

    def one(key):
        chosen = jax.random.randint(key, (n,), 0, n)
        return statistic(*(part[chosen] for part in rows))

    drawn = jax.lax.map(one, jax.random.split(key, draws))
    return Estimate(statistic(*rows), drawn.std(axis=0, ddof=1))
