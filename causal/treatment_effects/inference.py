"""Estimates with errors clustered by group: sandwich variances, half-samples and the bootstrap of whole groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, PyTree

from core.checks import OpenFraction, checked
from core.stats import from_error


class Estimate(NamedTuple):
    """A number and its standard error; arrays of equal shape where there are several."""

    value: Float[Array, "*shape"]
    se: Float[Array, "*shape"]

    @checked
    def interval(self, level: OpenFraction = 0.95) -> tuple[Array, Array]:
        """Normal limits.

        Raises:
          ConfigError: where ``level`` is no number between 0 and 1, such as 95.
        """
        low, high = from_error(self.value, self.se, level)
        return low, high

    @property
    def p_value(self) -> Float[Array, "*shape"]:
        """Two-sided, of no effect."""
        return 2 * norm.sf(jnp.abs(self.value / self.se))


class Clusters(NamedTuple):
    """Which group every unit belongs to."""

    index: Int[Array, " n"]
    """0 to ``count - 1``."""
    count: int

    @classmethod
    def of(cls, label: Any) -> "Clusters":
        """Groups by label, a whole number for each unit."""
        values, index = jnp.unique(jnp.asarray(label), return_inverse=True)
        return cls(index, len(values))

    @classmethod
    def single(cls, n: int) -> "Clusters":
        """Every unit a group of its own."""
        return cls(jnp.arange(n), n)

    def total(self, values: Float[Array, "n ..."]) -> Float[Array, "count ..."]:
        """Sums within groups."""
        return jax.ops.segment_sum(values, self.index, self.count)


class Regression(NamedTuple):
    """Least squares."""

    coefficients: Float[Array, " k"]
    covariance: Float[Array, "k k"]

    def estimate(self, index: int) -> Estimate:
        """One coefficient."""
        return Estimate(self.coefficients[index], jnp.sqrt(self.covariance[index, index]))


def least_squares(X: Float[Array, "n k"], y: Float[Array, " n"], clusters: Clusters) -> Regression:
    """Least squares with the clustered sandwich covariance CR1.

    (X'X)^-1 (sum_c s_c s_c') (X'X)^-1 C/(C-1) (n-1)/(n-k), s_c the sum of X_i r_i over cluster c.
    """
    n, k = X.shape
    bread = jnp.linalg.inv(X.T @ X)
    coefficients = bread @ (X.T @ y)
    scores = clusters.total(X * (y - X @ coefficients)[:, None])
    correction = clusters.count / (clusters.count - 1) * (n - 1) / (n - k)
    return Regression(coefficients, correction * bread @ (scores.T @ scores) @ bread)


def mean(values: Float[Array, " n"], clusters: Clusters) -> Estimate:
    """The mean with its clustered standard error."""
    return least_squares(jnp.ones_like(values)[:, None], values, clusters).estimate(0)


def difference_in_means(t: Float[Array, " n"], y: Float[Array, " n"], clusters: Clusters) -> Estimate:
    """Treated less control: the average effect in a randomised experiment."""
    return least_squares(jnp.stack([jnp.ones_like(y), t], axis=1), y, clusters).estimate(1)


def residuals(X: Float[Array, "n k"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    """The outcome less what covariates explain by least squares (with an intercept, without the treatment)."""
    X = jnp.concatenate([jnp.ones((len(X), 1), X.dtype), X], axis=1)
    return y - X @ jnp.linalg.lstsq(X, y)[0]


def half_samples(key: Any, clusters: Clusters, draws: int) -> Float[Array, "draws n"]:
    """Weights of one for the units of a random half of the clusters, zero for the others.

    The spread of a statistic over them is its standard error on all of the data: half as many units double the
    variance, and that of the difference from the whole is the other half.
    """

    def draw(key):
        u = jax.random.uniform(key, (clusters.count,))
        chosen = u < jnp.sort(u)[clusters.count // 2]
        return chosen[clusters.index].astype(jnp.float32)

    return jax.vmap(draw)(jax.random.split(key, draws))


def resamples(key: Any, clusters: Clusters, draws: int) -> Float[Array, "draws n"]:
    """How often every unit's cluster is drawn when as many clusters as there are are drawn with replacement."""

    def draw(key):
        chosen = jax.random.randint(key, (clusters.count,), 0, clusters.count)
        return jnp.zeros(clusters.count).at[chosen].add(1.0)[clusters.index]

    return jax.vmap(draw)(jax.random.split(key, draws))


def bootstrapped(statistic: Callable[[Array], PyTree], weights: Float[Array, "draws n"]) -> PyTree:
    """An :class:`Estimate` for every leaf of ``statistic(weights)``: its value at weights of one, and its spread."""
    value = statistic(jnp.ones_like(weights[0]))
    spread = jax.vmap(statistic)(weights)
    return jax.tree.map(lambda v, s: Estimate(v, jnp.std(s, axis=0, ddof=1)), value, spread)
