r"""The exact dynamics of a feature in deep linear self-distillation, and the time at which it is learned.

Where covariances commute and layers start aligned and balanced, every eigen-direction evolves alone. With lambda the
covariance of a feature between the two views, rho its regression coefficient (covariance over variance), w the entry
of the encoder product of depth L, and a = w^(1/L) that of one layer, gradient flow with unit rate gives::

    JEPA:  dw/dt = L (lambda w^(3 - 1/L) - (lambda / rho) w^3)      da/dt = lambda a^(2L) (1 - a / rho)
    MAE:   dw/dt = L (lambda w^(2 - 1/L) - (lambda / rho) w^3)      da/dt = lambda a^L (1 - a^(L+1) / rho)

Littwin et al., How JEPA Avoids Noisy Features, NeurIPS 2024, arXiv 2407.03475 (time there absorbs the factor L).
Everything here is NumPy in float64.
"""

from typing import Any, Literal, get_args

import numpy as np
import scipy.integrate
from jaxtyping import Float

from core.checks import Count, OpenFraction, Positive, checked

Objective = Literal["JEPA", "MAE"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@checked
def rate(objective: Objective, depth: Count, lam: Any, rho: Any, w: Any) -> Any:
    """dw/dt, for numbers or arrays of any library.

    Raises:
      ConfigError: for another objective than "JEPA" and "MAE", or a depth below 1.
    """
    return _rate(objective, depth, lam, rho, w)


def _rate(objective: Objective, depth: int, lam: Any, rho: Any, w: Any) -> Any:
    power = (3.0 if objective == "JEPA" else 2.0) - 1.0 / depth
    return depth * (lam * w**power - lam / rho * w**3)


@checked
def fixed_point(objective: Objective, depth: Count, rho: Any) -> Any:
    """Where w ends: rho^L for JEPA, rho^(L / (L + 1)) for MAE."""
    return rho**depth if objective == "JEPA" else rho ** (depth / (depth + 1))


def _exponents(objective: Objective, depth: int) -> tuple[int, int]:
    """(k, m) of da/dt = lambda a^k (1 - a^m / rho)."""
    return (2 * depth, 1) if objective == "JEPA" else (depth, depth + 1)


@checked
def critical_time(
    objective: Objective, depth: Count, lam: Positive, rho: Positive, eps: Positive, p: OpenFraction = 0.5
) -> float:
    """When w, started at ``eps``, reaches the share ``p`` of its fixed point, by quadrature over log a.

    Args:
      objective: "JEPA" or "MAE".
      depth: layers of the encoder.
      lam: covariance of the feature between the views.
      rho: its regression coefficient.
      eps: where w starts.
      p: the share of the fixed point at which the feature counts as learned.

    Returns:
      The time in gradient flow with unit rate; infinite where the share of the fixed point lies below the start: such a
      feature has no critical time.

    Raises:
      ConfigError: for another objective, or a number out of its range.
    """
    k, m = _exponents(objective, depth)
    start, end = eps ** (1 / depth), (p * fixed_point(objective, depth, rho)) ** (1 / depth)
    if end <= start:
        return float("inf")

    def integrand(log_a: float) -> float:
        a = np.exp(log_a)
        return a ** (1 - k) / (lam * (1 - a**m / rho))

    value, _ = scipy.integrate.quad(integrand, np.log(start), np.log(end), epsabs=0, epsrel=1e-11, limit=500)
    return value


@checked
def critical_time_series(objective: Objective, depth: Count, lam: Positive, rho: Positive, eps: Positive) -> float:
    """The diverging part of :func:`critical_time` as eps goes to 0 (the theorem on critical times, in our unit).

    JEPA: (1 / lambda) sum_{n=1}^{2L-1} 1 / (n rho^(2L-n-1) eps^(n/L)), up to a multiple of log eps.
    MAE: (1 / lambda) eps^(-(L-1)/L) / (L - 1), up to a constant; (1 / lambda) log(1 / eps) for L = 1.
    """
    if objective == "JEPA":
        n = np.arange(1, 2 * depth)
        return float(np.sum(1 / (n * rho ** (2 * depth - n - 1) * eps ** (n / depth))) / lam)
    return (np.log(1 / eps) if depth == 1 else eps ** (-(depth - 1) / depth) / (depth - 1)) / lam


@checked
def trajectory(
    objective: Objective, depth: Count, lam: Positive, rho: Positive, eps: Positive, times: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """W at the given ascending times, from w(0) = eps; solved in log w, in which the early growth is not stiff.

    Raises:
      ConfigError: for another objective, or a number out of its range.
    """
    solution = scipy.integrate.solve_ivp(
        lambda t, u: _rate(objective, depth, lam, rho, np.exp(u)) / np.exp(u),
        (0.0, float(times[-1])),
        [np.log(eps)],
        method="LSODA",
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    return np.exp(solution.y[0])


@checked
def learned_at(
    values: Float[np.ndarray, "T features"],
    times: Float[np.ndarray, " T"],
    targets: Float[np.ndarray, " features"],
    p: OpenFraction = 0.5,
) -> Float[np.ndarray, " features"]:
    """When each measured curve first reaches the share ``p`` of its target, interpolated; infinite for those never.

    A plateau is no fixed point: a feature whose target lies below its own start, or which ends below the share, counts
    as never learned.
    """
    reached = values >= p * targets
    never = ~reached.any(axis=0) | reached[0]
    after = np.maximum(reached.argmax(axis=0), 1)
    column = np.arange(values.shape[1])
    low, high = values[after - 1, column], values[after, column]
    share = np.clip((p * targets - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    return np.where(never, np.inf, times[after - 1] + share * (times[after] - times[after - 1]))
