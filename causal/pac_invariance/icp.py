r"""Invariant causal prediction from moments: every subset of the predictors tested in one batch.

Peters, Bühlmann, Meinshausen, Causal inference by using invariant prediction, JRSS B 2016, method II: regress the
target on a set with the pooled data, then test in every environment whether the residuals have the mean (Welch) and
the variance (F) of those of all others; p is the least of these values times 2 (E - 1), the correction of the authors'
R package. Sets with p > alpha are accepted; what is common to them are causes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from jaxtyping import Array, Bool, Float
from sklearn.linear_model import lars_path_gram

from causal.linear_sems import Moments
from causal.pac_invariance.invariance import on_subset
from core.checks import Count, OpenFraction, checked, require_indices
from core.errors import ConfigError
from core.stats import critical_value


class Tests(NamedTuple):
    """The test of every subset."""

    p: Float[Array, " subsets"]
    coefficients: Float[Array, "subsets d"]
    variance: Float[Array, " subsets"]
    """Of the residuals, pooled."""

    @checked
    def accepted(self, alpha: OpenFraction = 0.05) -> Bool[Array, " subsets"]:
        """Sets whose invariance is not rejected."""
        return self.p > alpha

    @checked
    def causes(self, masks: Bool[Array, "subsets d"], alpha: OpenFraction = 0.05) -> Bool[Array, " d"]:
        """What all accepted sets have in common; nothing where every set is rejected, and then the model is wrong."""
        good = self.accepted(alpha)
        return jnp.all(masks | ~good[:, None], axis=0) & good.any()

    def p_of_causes(self, masks: Bool[Array, "subsets d"]) -> Float[Array, " d"]:
        """For each variable the largest p of a set without it: small where no set can do without."""
        return jnp.max(jnp.where(masks, 0.0, self.p[:, None]), axis=0)


@checked
def every_subset(d: Count, target: int, features: Bool[Array, " d"] | None = None) -> Bool[Array, "subsets d"]:
    """All subsets of the features, the empty one first; of some features only where a screening chose them."""
    require_indices("target", target, d, "variables")
    chosen = [i for i in range(d) if i != target and (features is None or bool(features[i]))]
    codes = np.arange(2 ** len(chosen))
    masks = np.zeros((len(codes), d), bool)
    masks[:, chosen] = (codes[:, None] >> np.arange(len(chosen))) & 1
    return jnp.asarray(masks)


@checked
def icp(environments: Moments, target: int, masks: Bool[Array, "subsets d"], chunk: Count | None = None) -> Tests:
    """Tests every subset.

    Args:
      environments: moments of the data of each, stacked.
      target: the target's index.
      masks: the subsets, see :func:`every_subset`.
      chunk: subsets tested at once; all if None.
    """
    n = environments.n
    require_indices("target", target, environments.mean.shape[-1], "variables")
    if n.shape[0] < 2:
        raise ConfigError(
            f"icp: invariance is judged between environments, and there is {n.shape[0]}; give two or more"
        )
    mean, covariance = _pooled(environments)

    def test(mask):
        quadratic = on_subset(covariance, target, mask)
        b = quadratic.best()
        direction = -b + (jnp.arange(b.shape[0]) == target)
        centre = (environments.mean - mean) @ direction
        variance = jnp.einsum("i,eij,j->e", direction, environments.covariance, direction)
        p = jnp.min(_tests_of_residuals(n, centre, variance)) * 2 * (n.shape[0] - 1)
        unbiased = quadratic.error(b) * n.sum() / (n.sum() - mask.sum() - 1)
        return Tests(jnp.minimum(1.0, p), b, unbiased)

    return jax.lax.map(test, masks, batch_size=chunk or len(masks))


def _pooled(environments: Moments) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    share = environments.n / environments.n.sum()
    mean = share @ environments.mean
    return mean, jnp.einsum("e,eij->ij", share, environments.second) - jnp.outer(mean, mean)


@checked
def intervals(
    environments: Moments, tests: Tests, masks: Bool[Array, "subsets d"], alpha: OpenFraction = 0.05
) -> Float[Array, "2 d"]:
    """For each variable the union of its intervals over accepted sets, 0 in sets without it; NaN if none is."""
    covariance = _pooled(environments)[1]

    def error(mask, variance):
        inside = mask[:, None] & mask
        inverse = jnp.linalg.inv(jnp.where(inside, covariance, jnp.diag(jnp.where(mask, 0.0, 1.0))))
        return jnp.where(mask, jnp.sqrt(variance / environments.n.sum() * jnp.diagonal(inverse)), 0.0)

    good = tests.accepted(alpha)[:, None]
    width = critical_value(1 - alpha / 2) * jax.lax.map(lambda at: error(*at), (masks, tests.variance))
    low = jnp.min(jnp.where(good, tests.coefficients - width, jnp.inf), axis=0)
    high = jnp.max(jnp.where(good, tests.coefficients + width, -jnp.inf), axis=0)
    return jnp.where(good.any(), jnp.stack([low, high]), jnp.nan)


def _tests_of_residuals(n, mean, variance) -> Float[Array, "2 env"]:
    """The p values of each environment against the others together, for means and variances of residuals."""
    rest = n.sum() - n
    energy = n * (variance + mean**2)
    rest_mean = (n @ mean - n * mean) / rest
    rest_variance = (energy.sum() - energy) / rest - rest_mean**2
    v, r = variance * n / (n - 1), rest_variance * rest / (rest - 1)
    return jnp.stack([welch(mean, v, n, rest_mean, r, rest), f_test(v, n, r, rest)])


def welch(mean_a, var_a, n_a, mean_b, var_b, n_b):
    """Two-sided p of equal means at unequal variances (Welch 1947)."""
    a, b = var_a / n_a, var_b / n_b
    freedom = (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))
    return betainc(freedom / 2, 0.5, freedom / (freedom + (mean_a - mean_b) ** 2 / (a + b)))


def f_test(var_a, n_a, var_b, n_b):
    """Two-sided p of equal variances of normal samples."""
    a, b = n_a - 1, n_b - 1
    below = betainc(a / 2, b / 2, a * var_a / (a * var_a + b * var_b))
    return 2 * jnp.minimum(below, 1 - below)


@checked
def screen(environments: Moments, target: int, size: Count) -> Bool[np.ndarray, " d"]:
    """The first ``size`` features on the lasso path of the pooled, standardised data: for many variables, before ICP.

    Not part of the guarantee of ICP unless the true causes pass it.
    """
    covariance = np.asarray(_pooled(environments)[1])
    require_indices("target", target, len(covariance), "variables")
    sd = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(sd, sd)
    others = np.delete(np.arange(len(sd)), target)
    n = int(environments.n.sum())
    _, _, path = lars_path_gram(
        correlation[others, target] * n, correlation[np.ix_(others, others)] * n, n_samples=n, method="lasso"
    )
    entered = np.where((path != 0).any(axis=1), (path != 0).argmax(axis=1), path.shape[1])
    chosen = np.zeros(len(sd), bool)
    chosen[others[np.argsort(entered, kind="stable")[:size]]] = True
    return chosen
