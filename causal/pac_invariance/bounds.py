r"""How many environments and samples suffice: bounds derived for this project, with constants of our own.

They have the dependence that the paper's abstract states; the paper's theorems and constants could not be read, so
nothing here is to be attributed to it. Environments are independent draws from a law P over interventions, and
V(h) = P(gauge of h > eps) is the violation probability of a hypothesis h = (Phi, w).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from core.checks import Count, Natural, NonNegative, OpenFraction, Positive, checked


@checked
def finite_class(hypotheses: Count, m: Count, z: OpenFraction) -> float:
    """P(some h of a finite list passes all m environments and V(h) > z) <= |H| (1 - z)^m.

    Proof: one with V(h) > z passes a fresh environment with probability below 1 - z, m of them with (1 - z)^m; add up
    over the list. The list, w included, must be fixed before the m environments are drawn: take w from a reference
    environment. The mean of the m environments' own coefficients is not covered.
    """
    return hypotheses * (1 - z) ** m


@checked
def environments_finite(hypotheses: Count, z: OpenFraction, delta: OpenFraction) -> int:
    """The m = (ln|H| + ln(1/delta)) / z that makes :func:`finite_class` at most delta, by 1 - z <= e^(-z)."""
    return math.ceil((math.log(hypotheses) + math.log(1 / delta)) / z)


@checked
def vc_soft(in_degrees: Sequence[Count]) -> int:
    """VC dimension of interventions by soft multipliers at sites of given in-degrees, whatever d and k are.

    Proof: a directed path enters a site at most once, so every entry of A is, per site, of degree <= 1 in its p_i
    multipliers; entries of M = A W A^T are of degree <= 2, and ||grad||^2 - eps^2 of degree <= 4 per site. For every
    (Phi, w) it is in one vector space of functions, of dimension prod_i C(p_i + 4, 4); positivity sets of such a space
    have VC dimension at most its dimension.
    """
    return math.prod(math.comb(p + 4, 4) for p in in_degrees)


@checked
def vc_hard(sites: Natural) -> int:
    """VC dimension of hard interventions: M is quadratic in the s values, ||grad||^2 of degree 4: C(s + 4, 4)."""
    return math.comb(sites + 4, 4)


@checked
def vc_any(k: Count, p: Count) -> float:
    """VC dimension over (Phi, w) whatever the interventions are: 2 n log2(8 e 6) with n = k p + k.

    Proof: ||grad||^2 is a polynomial of degree 6 in the n parameters of (Phi, w); Goldberg and Jerrum (1995) for one
    polynomial predicate.
    """
    return 2 * (k * p + k) * math.log2(8 * math.e * 6)


@checked
def environments_vc(vc: Positive, z: OpenFraction, delta: OpenFraction) -> int:
    """An m such that, with probability 1 - delta, every h that passes all m has V(h) <= z.

    m >= max((4/z) log2(2/delta), (8 vc/z) log2(13/z)): Blumer, Ehrenfeucht, Haussler, Warmuth (1989).
    """
    return math.ceil(max(4 / z * math.log2(2 / delta), 8 * vc / z * math.log2(13 / z)))


@checked
def expected_error(residual_variance: NonNegative, H: Float[np.ndarray, "k k"], n: Count) -> float:
    """E||b - w||^2 = sigma^2 tr(H^(-1)) / (n - k - 1), exactly, for least squares on zero-mean Gaussian regressors.

    Proof: given the regressors X the error has covariance sigma^2 (X^T X)^(-1), and X^T X is Wishart, whose inverse has
    the mean H^(-1) / (n - k - 1).
    """
    return residual_variance * float(np.trace(np.linalg.inv(H))) / (n - H.shape[0] - 1)


@checked
def sample_radius(
    residual_variance: NonNegative, H: Float[np.ndarray, "k k"], n: Count, delta: OpenFraction, comparisons: Count = 1
) -> float:
    """A xi such that ||b - w|| <= xi in all comparisons with probability 1 - delta, for large n.

    sqrt(n) (b - w) is asymptotically N(0, sigma^2 H^(-1)), so ||b - w||^2 <= sigma^2 / (n lambda_min) times the
    quantile of chi-square with k degrees of freedom at 1 - delta / comparisons (Bonferroni).
    """
    least = float(np.linalg.eigvalsh(H)[0])
    return math.sqrt(residual_variance * _quantile(H.shape[0], delta, comparisons) / (n * least))


@checked
def required_samples(
    residual_variance: NonNegative,
    H: Float[np.ndarray, "k k"],
    xi: Positive,
    delta: OpenFraction,
    comparisons: Count = 1,
) -> int:
    """The n at which :func:`sample_radius` is xi: O(sigma^2 (k + ln(comparisons/delta)) / (lambda_min xi^2))."""
    least = float(np.linalg.eigvalsh(H)[0])
    return math.ceil(residual_variance * _quantile(H.shape[0], delta, comparisons) / (xi**2 * least))


def _quantile(k: int, delta: float, comparisons: int) -> float:
    return float(stats.chi2.isf(delta / comparisons, k))


class Plan(NamedTuple):
    """What to collect for a promise on new environments."""

    environments: int
    samples: int
    """Per environment."""
    tolerance: float
    """What passes in sample within eps violates this with probability at most z in a new environment."""


@checked
def end_to_end(
    hypotheses: Count,
    residual_variance: NonNegative,
    H: Float[np.ndarray, "k k"],
    *,
    eps: NonNegative,
    xi: Positive,
    z: OpenFraction,
    delta: OpenFraction,
    vc: Positive = math.inf,
) -> Plan:
    """Environments and samples such that what passes in sample at eps is approximately invariant at eps + 2 xi.

    Proof: with probability 1 - delta/2 all coefficients, of the reference and of m environments, are within xi of
    those of their populations, so that a distance of eps in sample is one of at most eps + 2 xi; then the bound on
    environments, the better of finite class and VC dimension, at that tolerance with delta/2.

    Args:
      hypotheses: subsets tried.
      residual_variance: an upper bound for that of any of them.
      H: second moments of the regressors, worst over environments and subsets.
      eps: tolerance in sample, for the distance of coefficients.
      xi: radius of the estimates.
      z: largest violation probability accepted.
      delta: probability that the promise fails.
      vc: VC dimension of the family, see :func:`vc_soft`, :func:`vc_hard`, :func:`vc_any`.
    """
    m = environments_finite(hypotheses, z, delta / 2)
    if math.isfinite(vc):
        m = min(m, environments_vc(vc, z, delta / 2))
    n = required_samples(residual_variance, H, xi, delta / 2, hypotheses * (m + 1))
    return Plan(m, n, eps + 2 * xi)
