"""Estimates with errors clustered by group: sandwich variances, half-samples and the bootstrap of whole groups."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int, Key, PyTree, Real

from core.checks import FINITE, Count, Natural, OpenFraction, checked
from core.errors import ConfigError
from core.kinds import is_traced, shown
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
        """Groups by label, a number or a text for each unit.

        Raises:
          ConfigError: where there is not one label for each unit along a single axis.
        """
        if is_traced(label):
            values, index = jnp.unique(label, return_inverse=True)
            return cls(index, len(values))
        found = np.asarray(label)
        if found.ndim != 1 or found.dtype == object:
            raise ConfigError(f"Clusters.of: label must be one number or text for each unit, not {shown(label)}")
        values, index = np.unique(found, return_inverse=True)
        return cls(jnp.asarray(index), len(values))

    @classmethod
    def single(cls, n: int) -> "Clusters":
        """Every unit a group of its own."""
        return cls(jnp.arange(n), n)

    def total(self, values: Float[Array, "n ..."]) -> Float[Array, "count ..."]:
        """Sums within groups."""
        return jax.ops.segment_sum(values, self.index, self.count)


Column = Annotated[Real[Array, " n"], FINITE]
"""A finite number for each unit."""


class Regression(NamedTuple):
    """Least squares."""

    coefficients: Float[Array, " k"]
    covariance: Float[Array, "k k"]

    @checked
    def estimate(self, index: int) -> Estimate:
        """One coefficient."""
        return Estimate(self.coefficients[index], jnp.sqrt(self.covariance[index, index]))


@checked
def least_squares(X: Annotated[Real[Array, "n k"], FINITE], y: Column, clusters: Clusters) -> Regression:
    """Least squares with the clustered sandwich covariance CR1.

    (X'X)^-1 (sum_c s_c s_c') (X'X)^-1 C/(C-1) (n-1)/(n-k), s_c the sum of X_i r_i over cluster c.

    Raises:
      ConfigError: where there is a single cluster, or no more rows than coefficients: there is no error to estimate.
    """
    n, k = X.shape
    if clusters.count < 2 or n <= k:
        raise ConfigError(
            f"least_squares: {clusters.count} cluster(s) and {n} rows for {k} coefficients; a clustered error needs at "
            "least 2 clusters and more rows than coefficients"
        )
    bread = jnp.linalg.inv(X.T @ X)
    coefficients = bread @ (X.T @ y)
    scores = clusters.total(X * (y - X @ coefficients)[:, None])
    correction = clusters.count / (clusters.count - 1) * (n - 1) / (n - k)
    return Regression(coefficients, correction * bread @ (scores.T @ scores) @ bread)


@checked
def mean(values: Column, clusters: Clusters) -> Estimate:
    """The mean with its clustered standard error."""
    return least_squares(jnp.ones_like(values)[:, None], values, clusters).estimate(0)


@checked
def difference_in_means(t: Column, y: Column, clusters: Clusters) -> Estimate:
    """Treated less control: the average effect in a randomised experiment.

    Raises:
      ConfigError: where an arm has no unit.
    """
    if not is_traced(t) and np.ptp(np.asarray(t)) == 0:
        raise ConfigError(f"difference_in_means: t is {np.asarray(t)[0]:g} for every unit; it needs units of both arms")
    return least_squares(jnp.stack([jnp.ones_like(y), t], axis=1), y, clusters).estimate(1)


@checked
def residuals(X: Annotated[Real[Array, "n k"], FINITE], y: Column) -> Float[Array, " n"]:
    """The outcome less what covariates explain by least squares (with an intercept, without the treatment)."""
    X = jnp.concatenate([jnp.ones((len(X), 1), X.dtype), X], axis=1)
    return y - X @ jnp.linalg.lstsq(X, y)[0]


@checked
def half_samples(key: Key[Array, ""], clusters: Clusters, draws: Count) -> Float[Array, "draws n"]:
    """Weights of one for the units of a random half of the clusters, zero for the others.

    The spread of a statistic over them is its standard error on all of the data: half as many units double the
    variance, and that of the difference from the whole is the other half.
    """

    def draw(key):
        u = jax.random.uniform(key, (clusters.count,))
        chosen = u < jnp.sort(u)[clusters.count // 2]
        return chosen[clusters.index].astype(jnp.float32)

    return jax.vmap(draw)(jax.random.split(key, draws))


@checked
def resamples(key: Key[Array, ""], clusters: Clusters, draws: Natural) -> Float[Array, "draws n"]:
    """How often every unit's cluster is drawn when as many clusters as there are are drawn with replacement."""

    def draw(key):
        chosen = jax.random.randint(key, (clusters.count,), 0, clusters.count)
        return jnp.zeros(clusters.count).at[chosen].add(1.0)[clusters.index]

    return jax.vmap(draw)(jax.random.split(key, draws))


@checked
def bootstrapped(statistic: Callable[[Array], PyTree], weights: Float[Array, "draws n"]) -> PyTree:
    """An :class:`Estimate` for every leaf of ``statistic(weights)``: its value at weights of one, and its spread.

    Raises:
      ConfigError: where there are fewer than two draws, which have no spread.
    """
    if len(weights) < 2:
        raise ConfigError(
            f"bootstrapped: draws is {len(weights)}; a spread needs at least 2, and 50 or more are better"
        )
    value = statistic(jnp.ones_like(weights[0]))
    spread = jax.vmap(statistic)(weights)
    return jax.tree.map(lambda v, s: Estimate(v, jnp.std(s, axis=0, ddof=1)), value, spread)
