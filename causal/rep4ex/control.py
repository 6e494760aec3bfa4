r"""Step 2: the control function, and what it predicts of interventions outside of the actions' support.

    E[Y | W = w, V_phi = v] = nu(w) + psi(v),    W = phi(X) = M A + q + V_phi
    E[Y | do(A = a)]        = mean_i nu(M a + q + v_i) + mean(y) - mean_i nu(w_i)
    E[Y | X = x, do(A = a)] = nu(phi(x)) + psi(phi(x) - M a - q) + intercept

nu and psi are joint functions of all coordinates, as phi is known up to an affine map only, and take coordinates that
are whitened by Cov(V_phi). Both are centred, since a constant may go to either. Saengkyongam et al., ICLR 2024.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from causal.rep4ex.moments import Regression, gaussian_kernel, regress
from causal.rep4ex.networks import Mlp
from core.checks import Count, NonNegative, Positive, checked
from core.errors import ConfigError
from core.learner import GradientLearner, Params, gradient_learner

Points = Float[Array, "n d"]
Function = Callable[[Points], Float[Array, " n"]]


class Stage(NamedTuple):
    """Codes regressed on actions, and coordinates in which Cov(V_phi) = I."""

    regression: Regression
    centre: Float[Array, " d"]
    root: Float[Array, "d d"]
    """Lower triangular, root root^T = Cov(V_phi)."""

    def white(self, x: Points) -> Points:
        """Differences of codes in whitened coordinates."""
        return solve_triangular(self.root, x.T, lower=True).T

    def codes(self, w: Points) -> Points:
        """Codes in whitened coordinates."""
        return self.white(w - self.centre)

    def shifts(self, a: Float[Array, "n k"]) -> Points:
        """M a + q in whitened coordinates."""
        return self.codes(a @ self.regression.M.T + self.regression.q)

    def noise(self) -> Points:
        """The training residuals in whitened coordinates."""
        return self.white(self.regression.V)


def first_stage(w: Points, a: Float[Array, "n k"]) -> Stage:
    """The regression of all codes on actions; never that of a batch."""
    found = regress(w, a)
    return Stage(found, w.mean(axis=0), jnp.linalg.cholesky(found.V.T @ found.V / len(w)))


class Outcome(NamedTuple):
    """A fitted additive regression of Y, in whitened coordinates."""

    nu: Function
    psi: Function
    mean_nu: Callable[[Float[Array, "j d"]], Float[Array, " j"]]
    """Of shifts t: mean_i nu(t + v_i)."""
    intercept: Float[Array, ""]


def interventional(stage: Stage, outcome: Outcome, actions: Float[Array, "j k"]) -> Float[Array, " j"]:
    """E[Y | do(A = a)] for every action."""
    return outcome.mean_nu(stage.shifts(actions)) + outcome.intercept


def conditional(stage: Stage, outcome: Outcome, w: Points, actions: Float[Array, "n k"]) -> Float[Array, " n"]:
    """E[Y | X = x, do(A = a)] row by row, from codes."""
    z = stage.codes(w)
    return outcome.nu(z) + outcome.psi(z - stage.shifts(actions)) + outcome.intercept


class Basis(NamedTuple):
    """Features of points, and their means over points that are shifted together."""

    features: Callable[[Points], Float[Array, "n p"]]
    shifted: Callable[[Points], Callable[[Float[Array, "j d"]], Float[Array, "j p"]]]
    """Of points v: the function t -> mean_i features(t + v_i)."""


def fourier_basis(frequencies: Float[Array, "d D"], phases: Float[Array, " D"]) -> Basis:
    """Random Fourier features of a Gaussian kernel, and linear terms.

    Means over shifted points are exact and cost O(D) per shift: mean_i cos(f (t + v_i) + b) =
    cos(f t + b) mean_i cos(f v_i) - sin(f t + b) mean_i sin(f v_i).
    """
    size = jnp.sqrt(2 / len(phases))

    def features(z: Points):
        return jnp.concatenate([size * jnp.cos(z @ frequencies + phases), z], axis=1)

    def shifted(v: Points):
        cosine, sine = jnp.cos(v @ frequencies).mean(axis=0), jnp.sin(v @ frequencies).mean(axis=0)

        def means(t: Float[Array, "j d"]):
            phase = t @ frequencies + phases
            return jnp.concatenate(
                [size * (jnp.cos(phase) * cosine - jnp.sin(phase) * sine), t + v.mean(axis=0)], axis=1
            )

        return means

    return Basis(features, shifted)


@checked
def random_fourier(key: Any, d: Count, count: Count, length: Positive) -> Basis:
    """:func:`fourier_basis` of a kernel with this length-scale."""
    drawn, phase = jax.random.split(key)
    frequencies = jax.random.normal(drawn, (d, count)) / length
    return fourier_basis(frequencies, jax.random.uniform(phase, (count,), maxval=2 * jnp.pi))


@checked
def polynomial(degree: Count) -> Basis:
    """All monomials of degree 1 to ``degree`` in all coordinates together."""
    if degree < 1:
        raise ConfigError(f"a polynomial needs a degree of at least 1, not {degree}")

    def features(z: Points):
        rows = [(jnp.ones(len(z), z.dtype), 0)]
        made = []
        for _ in range(degree):  # each monomial once: factors in order of coordinates
            rows = [(row * z[:, j], j) for row, first in rows for j in range(first, z.shape[1])]
            made += [row for row, _ in rows]
        return jnp.stack(made, axis=1)

    return Basis(features, lambda v: lambda t: jax.lax.map(lambda one: features(one + v).mean(axis=0), t))


NOTHING = Basis(lambda z: jnp.zeros((len(z), 0), z.dtype), lambda v: lambda t: jnp.zeros((len(t), 0), t.dtype))
"""For psi: no control function."""


@checked
def additive_ridge(
    stage: Stage, w: Points, y: Float[Array, " n"], nu: Basis, psi: Basis, ridge: NonNegative = 1e-6
) -> Outcome:
    """Least squares of y on features of codes and of residuals, all centred; ``ridge`` in units of n.

    With ridge 0 and full column rank it is the least-squares solution, from normal equations: give float64.
    """
    z, v = stage.codes(w), stage.noise()
    raw = [nu.features(z), psi.features(v)]
    means = [part.mean(axis=0) for part in raw]
    F = jnp.concatenate([part - mean for part, mean in zip(raw, means, strict=True)], axis=1)
    gram = F.T @ F / len(y) + ridge * jnp.eye(F.shape[1], dtype=F.dtype)
    coef = jnp.linalg.solve(gram, F.T @ (y - y.mean()) / len(y))
    first, second = coef[: raw[0].shape[1]], coef[raw[0].shape[1] :]
    average = nu.shifted(v)
    return Outcome(
        lambda z: (nu.features(z) - means[0]) @ first,
        lambda v: (psi.features(v) - means[1]) @ second,
        lambda t: (average(t) - means[0]) @ first,
        y.mean(),
    )


@checked
def kernel_ridge(
    stage: Stage, w: Points, y: Float[Array, " n"], length: Positive = 2.5, ridge: NonNegative = 1e-6
) -> Outcome:
    """Kernel additive ridge, K = K_w + K_v with a Gaussian and a linear part each; cubic in n, for a few thousand."""
    z, v = stage.codes(w), stage.noise()

    def kernel(x, points):
        return gaussian_kernel(x, points, jnp.asarray(length, x.dtype)) + x @ points.T

    gram = kernel(z, z) + kernel(v, v)
    weights = jnp.linalg.solve(gram + len(y) * ridge * jnp.eye(len(y), dtype=gram.dtype), y - y.mean())
    centres = [(kernel(points, points) @ weights).mean() for points in (z, v)]

    def nu(x):
        return kernel(x, z) @ weights - centres[0]

    def mean_nu(t):
        return jax.lax.map(lambda one: nu(one + v).mean(), t)

    return Outcome(nu, lambda x: kernel(x, v) @ weights - centres[1], mean_nu, y.mean())


class Additive(NamedTuple):
    """A batch for two networks, in whitened coordinates."""

    z: Points
    v: Points
    y: Float[Array, " n"]
    """Less its mean."""


@checked
def networks_learner(tx: optax.GradientTransformation, hidden: tuple[Count, ...] = (64, 64)) -> GradientLearner:
    """Trains nu and psi as two networks jointly by least squares."""
    net = Mlp(1, hidden)

    def init(key, batch: Additive):
        keys = jax.random.split(key)
        return {"nu": net.init(keys[0], batch.z[:1]), "psi": net.init(keys[1], batch.v[:1])}

    def loss(params: Params, key, batch: Additive):
        fitted: Any = net.apply(params["nu"], batch.z) + net.apply(params["psi"], batch.v)
        return jnp.mean((batch.y - fitted[:, 0]) ** 2), {}

    return gradient_learner(init, loss, tx, batch_axes=0)


@checked
def network_outcome(
    params: Params, stage: Stage, w: Points, y: Float[Array, " n"], hidden: tuple[Count, ...] = (64, 64)
) -> Outcome:
    """The outcome of trained networks, centred on the training rows."""
    net, z, v = Mlp(1, hidden), stage.codes(w), stage.noise()

    def of(name: str, x: Points) -> Float[Array, " n"]:
        out: Any = net.apply(params[name], x)
        return out[:, 0]

    centre = {"nu": of("nu", z).mean(), "psi": of("psi", v).mean()}
    return Outcome(
        lambda x: of("nu", x) - centre["nu"],
        lambda x: of("psi", x) - centre["psi"],
        lambda t: jax.lax.map(lambda one: of("nu", one + v).mean() - centre["nu"], t),
        y.mean(),
    )


def check_second_stage(w: np.ndarray, a: np.ndarray, y: np.ndarray) -> None:
    """Raises :class:`core.errors.ConfigError` where step 2 cannot be fitted."""
    if not (len(w) == len(a) == len(y)) or np.ndim(y) != 1:
        raise ConfigError(f"codes {np.shape(w)}, actions {np.shape(a)} and outcome {np.shape(y)} must agree in rows")
    if not all(np.isfinite(part).all() for part in (w, a, y)):
        raise ConfigError("codes, actions and outcome must be finite")
    if np.linalg.matrix_rank(np.cov(w.T).reshape(w.shape[1], -1)) < w.shape[1]:
        raise ConfigError(
            f"the {w.shape[1]} coordinates of the code are linearly dependent; lower the code's dimension"
        )
