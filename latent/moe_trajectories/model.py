"""Mixtures of experts of growth curves: what a class says of a person, and the likelihood of all.

For person i with outcomes y_i at times t_i, class k of K, expert covariates xe and gating covariates xg::

    pi_k(xg)      = softmax_k(b_k0 + b_k' xg),  b_1 = 0                   gating network
    eta | k, xe   ~ N(alpha_k + B_k xe, Psi_k)                            expert network
    y | eta, k    ~ N(Lambda(t; gamma_k) eta + beta_k x(t), theta_k I)    growth curve
    xe | k        ~ N(mux_k, Phi_k),  x(t_j) | k ~ N(tau_kj, omega_kj)    only where covariates are modelled jointly
    L             = sum_i log sum_k pi_k(xg_i) f_k(y_i, xe_i)

Liu & Perera, Extending Mixture of Experts Model to Investigate Heterogeneity of Trajectories, Psychological Methods
2022, arXiv 2007.02432. Without xg, without xe and without both it is the paper's expert-network mixture,
gating-network mixture and finite mixture.
"""

import dataclasses
import functools
import math
import typing
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from core.checks import Count, check_arguments, checked, require_finite
from core.errors import ConfigError
from core.kinds import is_traced
from latent.moe_trajectories import ldl
from latent.moe_trajectories.curves import BILINEAR, Curve, Occasions

LOG_2PI = math.log(2 * math.pi)
LOST = 0.01
"""A square of residuals below 0 by this share of the residual variance is no rounding to look over."""


@checked
@dataclasses.dataclass(frozen=True)
class Mixture:
    """What is fitted.

    Raises:
      ConfigError: for another way to treat covariates, or missing ones that are not modelled.
    """

    classes: Count = 1
    curve: Curve = BILINEAR
    covariates: Literal["joint", "conditional"] = "joint"
    """Whether the distribution of expert and time-varying covariates is part of each class, as OpenMx and Mplus have
    it, or classes are conditional on them, as in a textbook mixture of experts."""
    missing_covariates: bool = False
    """Whether some expert covariates are missing; needs "joint"."""

    def __post_init__(self) -> None:
        if self.missing_covariates and self.covariates != "joint":
            raise ConfigError('missing covariates have a distribution only where covariates are modelled: use "joint"')


class GrowthData(NamedTuple):
    """Persons with repeated measurements at times of their own; missing values are 0 and marked."""

    t: Float[Array | np.ndarray, "n J"]
    y: Float[Array | np.ndarray, "n J"]
    observed: Float[Array | np.ndarray, "n J"]
    """1 where y was measured."""
    xe: Float[Array | np.ndarray, "n ce"]
    """Expert covariates: they explain growth factors within classes."""
    xe_observed: Float[Array | np.ndarray, "n ce"]
    xg: Float[Array | np.ndarray, "n cg"]
    """Gating covariates: they predict the class."""
    tvc: Float[Array | np.ndarray, "n occasions"]
    """A covariate that varies with time, or no columns."""

    @property
    def persons(self) -> int:
        """N."""
        return self.y.shape[-2]

    @checked
    def without(self, *networks: Literal["expert", "gating"]) -> "GrowthData":
        """The data for a reduced mixture."""
        data = self
        if "expert" in networks:
            data = data._replace(xe=data.xe[..., :0], xe_observed=data.xe_observed[..., :0])
        return data._replace(xg=data.xg[..., :0]) if "gating" in networks else data


class Experts(NamedTuple):
    """Unconstrained parameters per class, growth factors in the estimated coordinates."""

    alpha: Float[Array, "K p"]
    """Means of the growth factors where the covariates are 0."""
    gamma: Float[Array, "K s"]
    """Shape of the curve: the knot."""
    psi: Float[Array, "K entries"]
    """Covariance of the growth factors that covariates leave: its Cholesky factor with log-diagonal."""
    log_theta: Float[Array, " K"]
    """Of the residual variance."""
    B: Float[Array, "K p ce"]
    """Effects of expert covariates."""
    mux: Float[Array, "K ce"]
    phi: Float[Array, "K pairs"]
    """Covariance of the expert covariates, as ``psi``; no columns where classes are conditional on them."""
    beta: Float[Array, "K v"]
    """Effect of the covariate that varies with time (v = 1), if there is one."""
    tau: Float[Array, "K occasions"]
    log_omega: Float[Array, "K occasions"]
    """Mean and log-variance of that covariate at every occasion."""


class Params(NamedTuple):
    """Unconstrained parameters of a mixture."""

    gating: Float[Array, "classes-1 1+cg"]
    """(b_k0, b_k) of all classes but the first."""
    experts: Experts

    def without(self, *networks: Literal["expert", "gating"]) -> "Params":
        """The parameters of a reduced mixture, see :meth:`GrowthData.without`."""
        e = self.experts
        if "expert" in networks:
            e = e._replace(B=e.B[..., :0], mux=e.mux[..., :0], phi=e.phi[..., :0])
        return Params(self.gating[:, :1] if "gating" in networks else self.gating, e)


class Arranged(NamedTuple):
    """The data as the likelihood reads them, persons last; made once per data set by :func:`arrange`."""

    occasions: Occasions
    squares: tuple[Any, ...]
    """Sums of y y, and of x y and x x where a covariate varies with time."""
    xe: Float[Array, "ce n"]
    xe_observed: Float[Array, "ce n"]
    xg: Float[Array, "cg n"]

    @property
    def persons(self) -> int:
        """N."""
        return self.xe.shape[-1]


def require_sound(data: GrowthData) -> None:
    """Arrays of one number of persons and occasions, without NaN, and outcomes that differ.

    Raises:
      ConfigError: names the array.
    """
    check_arguments("GrowthData", typing.get_type_hints(GrowthData, include_extras=True), data._asdict())
    require_finite("data", data, "mark missing values by observed = 0, with a 0 in their place")
    if is_traced(data.y):
        return
    y, seen = np.asarray(data.y), np.asarray(data.observed) > 0
    if not seen.any() or np.ptp(y[seen]) == 0:
        raise ConfigError("outcomes are the same wherever they were measured: there is no growth to describe")
    if data.tvc.shape[1] not in (0, data.y.shape[1]):
        raise ConfigError(f"tvc has {data.tvc.shape[1]} occasions, the outcome {data.y.shape[1]}")


def arrange(data: GrowthData) -> Arranged:
    """Sums over occasions that no parameter changes, and everything with persons last."""
    t, y, observed, xe, xe_observed, xg, tvc = (jnp.asarray(leaf).T for leaf in data)
    channels = [y * observed] + ([tvc * observed] if len(tvc) else [])
    t = t * observed
    powers = (observed.sum(0), t.sum(0), (t * t).sum(0))
    totals = tuple((c.sum(0), (t * c).sum(0)) for c in channels)
    pairs = [(a, b) for i, a in enumerate(channels) for b in channels[: i + 1]]
    squares = tuple((a * b).sum(0) for a, b in pairs)
    occasions = Occasions(t, observed, tuple(channels), powers, totals)
    return Arranged(occasions, squares, xe, xe_observed, xg)


class Person(NamedTuple):
    """What a class makes of every person, entries of [n]; what EM's expectations are made of."""

    log_density: Float[Array, " n"]
    mean: list[Any]
    """E[eta | xe], p of them."""
    factors: tuple[list[list[Any]], list[Any]]
    """L D L' of Psi^{-1} + Lambda' Lambda / theta, the precision of eta given everything."""
    score: list[Any]
    """Lambda' (y - Lambda E[eta | xe]) / theta."""


def expert(mixture: Mixture, experts: Experts, arranged: Arranged) -> Person:
    """The density of every person under one class (leaves of ``experts`` without their leading axis).

    The J x J covariance Lambda Psi Lambda' + theta I is never formed. With r = y - Lambda E[eta | xe]::

        M = Psi^{-1} + Lambda' Lambda / theta,  u = Lambda' r / theta,  b = M^{-1} u
        quad = |r - Lambda b|^2 / theta + b' Psi^{-1} b,  log det = J log theta + log |Psi| + log |M|

    The shorter r'r/theta - u'b is the same where b is exact, but sinks without bound where Psi is so ill conditioned
    that it is not; b minimises this form, whose value an error of b can only raise, and b' Psi^{-1} b is a sum of
    squares as it is computed. Where rounding eats even this one (a square below 0, a pivot that is not positive, a
    covariance of smaller determinant than its noise alone), the density is NaN, which optimisers step back from, and
    not a maximum that is none.
    """
    mean, psi, precision, of_covariates = _factors_given_covariates(mixture, experts, arranged)
    moments = mixture.curve.moments(experts.gamma, arranged.occasions)
    cross, squares, of_varying = _adjusted(mixture, experts, arranged, moments.cross)
    size, inverse_theta = len(mean), jnp.exp(-experts.log_theta)
    gram = moments.gram
    residual = [cross[a] - sum(gram[a][b] * mean[b] for b in range(size)) for a in range(size)]
    r_r = squares - sum(m * (h + e) for m, h, e in zip(mean, cross, residual, strict=True))
    score = [e * inverse_theta for e in residual]
    factors = ldl.ldl([[precision[a][b] + gram[a][b] * inverse_theta for b in range(a + 1)] for a in range(size)])
    b = ldl.solve(factors, score)
    fitted = [sum(gram[a][c] * b[c] for c in range(size)) for a in range(size)]
    squared = r_r + sum(x * (g - 2 * e) for x, g, e in zip(b, fitted, residual, strict=True))
    penalty = sum(w * w * (1 / d) for w, d in zip(ldl.forward(psi[0], b), psi[1], strict=True))
    quad = jnp.maximum(squared, 0.0) * inverse_theta + penalty
    of_noise = arranged.occasions.powers[0] * (experts.log_theta + LOG_2PI)
    log_ratio = jnp.log(math.prod(psi[1])) + jnp.log(math.prod(factors[1]))
    log_density = -0.5 * (quad + of_noise + log_ratio)
    sound = functools.reduce(jnp.logical_and, [d > 0 for d in factors[1]], squared * inverse_theta > -LOST)
    sound &= log_ratio > -LOST
    log_density = jnp.where(sound, log_density, jnp.nan)
    return Person(log_density + of_covariates + of_varying, mean, factors, score)


def _factors_given_covariates(mixture: Mixture, experts: Experts, arranged: Arranged):
    """E[eta | xe], the factors and the inverse of Var[eta | xe], log f(xe); missing xe are integrated over."""
    covariates, size = list(arranged.xe), experts.alpha.shape[0]
    of_covariates: Any = 0.0
    psi = _factors_of_square(ldl.triangle(experts.psi))
    if covariates and mixture.covariates == "joint":
        phi = ldl.from_triangle(experts.phi)
        known = list(arranged.xe_observed) if mixture.missing_covariates else [1.0] * len(covariates)
        off = [(x - experts.mux[c]) * known[c] for c, x in enumerate(covariates)]
        of_covariates, factors = _gaussian(phi, off, known)
        if mixture.missing_covariates:
            covariates, spread = _filled_in(experts.mux, phi, off, known, factors)
            psi = ldl.ldl(_widened(ldl.from_triangle(experts.psi), experts.B, spread))
    mean = [experts.alpha[a] + sum(experts.B[a, c] * x for c, x in enumerate(covariates)) for a in range(size)]
    return mean, psi, ldl.inverse(psi), of_covariates


def _factors_of_square(root):
    """L D L' of C C', from a lower triangle C with its diagonal."""
    diagonal = [row[-1] for row in root]
    return [[x / diagonal[j] for j, x in enumerate(row[:-1])] for row in root], [d * d for d in diagonal]


def _widened(psi, B, spread):
    """Psi + B Var[xe | what is known] B'."""
    size, ce = B.shape
    through = [[sum(B[a, c] * spread[c][d] for c in range(ce)) for d in range(ce)] for a in range(size)]
    return [[psi[a, b] + sum(through[a][d] * B[b, d] for d in range(ce)) for b in range(size)] for a in range(size)]


def _gaussian(phi, off, known):
    """Log density of what is known of N(0, Phi), and the factors of Phi with unknown rows replaced by unit ones."""
    size = len(off)
    masked = [[phi[c, d] * known[c] * known[d] + (c == d) * (1 - known[c]) for d in range(c + 1)] for c in range(size)]
    factors = ldl.ldl(masked)
    whitened = ldl.forward(factors[0], off)
    quad = sum(w * w / d for w, d in zip(whitened, factors[1], strict=True))
    return -0.5 * (quad + sum(known) * LOG_2PI + jnp.log(math.prod(factors[1]))), factors


def _filled_in(mux, phi, off, known, factors):
    """Mean and covariance of all covariates given the known ones."""
    size = len(off)
    weights = ldl.solve(factors, off)
    means = [mux[c] + sum(phi[c, d] * known[d] * weights[d] for d in range(size)) for c in range(size)]
    columns = [ldl.solve(factors, [phi[c, d] * known[d] for d in range(size)]) for c in range(size)]
    spread = [[phi[c, d] - sum(phi[c, e] * known[e] * columns[d][e] for e in range(size)) for d in range(size)]
              for c in range(size)]  # fmt: skip
    return means, spread


def _adjusted(mixture: Mixture, experts: Experts, arranged: Arranged, cross):
    """Lambda' (y - beta x), (y - beta x)' (y - beta x), and the log density of x where it is modelled."""
    if len(cross) == 1:
        return cross[0], arranged.squares[0], 0.0
    beta = experts.beta[0]
    y_y, x_y, x_x = arranged.squares
    adjusted = [h - beta * k for h, k in zip(*cross, strict=True)]
    of_varying: Any = 0.0
    if mixture.covariates == "joint":
        x, known = arranged.occasions.channels[1], arranged.occasions.observed
        off = (x - experts.tau[:, None]) ** 2 * jnp.exp(-experts.log_omega)[:, None]
        of_varying = -0.5 * (known * (off + experts.log_omega[:, None] + LOG_2PI)).sum(0)
    return adjusted, y_y - 2 * beta * x_y + beta**2 * x_x, of_varying


def log_gates(params: Params, xg: Float[Array, "cg n"]) -> Float[Array, "K n"]:
    """Log pi_k(xg_i)."""
    b = params.gating
    logits = b[:, :1] + sum((b[:, c + 1, None] * x for c, x in enumerate(xg)), jnp.zeros((1, xg.shape[-1]), b.dtype))
    return jax.nn.log_softmax(jnp.concatenate([jnp.zeros((1, xg.shape[-1]), b.dtype), logits]), axis=0)


def log_joint(mixture: Mixture, params: Params, arranged: Arranged) -> Float[Array, "K n"]:
    """Log pi_k(xg_i) + log f_k(i)."""
    densities = jax.vmap(lambda experts: expert(mixture, experts, arranged).log_density)(params.experts)
    return log_gates(params, arranged.xg) + densities


def person_log_likelihoods(mixture: Mixture, params: Params, arranged: Arranged) -> Float[Array, " n"]:
    """Log sum_k pi_k(xg_i) f_k(i)."""
    return jax.nn.logsumexp(log_joint(mixture, params, arranged), axis=0)


def log_likelihood(mixture: Mixture, params: Params, arranged: Arranged, weights: Any = None) -> Float[Array, ""]:
    """L, with a weight per person if given."""
    each = person_log_likelihoods(mixture, params, arranged)
    return each.sum() if weights is None else (weights * each).sum()


def posterior(mixture: Mixture, params: Params, arranged: Arranged) -> Float[Array, "K n"]:
    """Probability of each class given all that is known of a person."""
    return jax.nn.softmax(log_joint(mixture, params, arranged), axis=0)
