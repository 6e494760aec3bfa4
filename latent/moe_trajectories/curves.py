"""Curves of growth: loadings of the growth factors at individual times, and what the likelihood needs of them.

A person's outcome at time t is a sum of growth factors times loadings, y(t) = sum_a eta_a lambda_a(t; shape) + noise.
The bilinear spline with a knot gamma is estimated in the coordinates that make its loadings one expression (Liu &
Perera 2022)::

    eta0s = eta0 + gamma eta1,  eta1s = (eta1 + eta2)/2,  eta2s = (eta2 - eta1)/2
    lambda = [1, t - gamma, |t - gamma|]
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from core.checks import NonNegative, checked

Shape = Float[Array, " s"]
"""Shape parameters of a class: the knot, a rate, or none."""


class Occasions(NamedTuple):
    """Measurements with persons last, so that sums over occasions run along persons."""

    t: Float[Array, "J n"]
    observed: Float[Array, "J n"]
    """1 where the outcome was measured."""
    channels: tuple[Float[Array, "J n"], ...]
    """The outcome and, if there is one, the covariate that varies with time; 0 where not observed."""
    powers: tuple[Float[Array, " n"], ...]
    """Numbers of measurements, sums of t and of t^2."""
    totals: tuple[tuple[Float[Array, " n"], Float[Array, " n"]], ...]
    """Sums of each channel and of t times it."""


class Moments(NamedTuple):
    """All that the likelihood needs of a person's measurements under a curve."""

    gram: list[list[Any]]
    """[p][p] of [n]: Lambda' Lambda."""
    cross: list[list[Any]]
    """[channels][p] of [n]: Lambda' y for each channel."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A family of growth curves."""

    name: str
    factors: tuple[str, ...]
    """The growth factors' names on the original scale."""
    shapes: tuple[str, ...]
    """The shape parameters' names."""
    loadings: Callable[[Any, Shape], list[Any]]
    """``(t, shape) -> [lambda_a(t)]`` for t of any shape."""
    candidates: Callable[[Float[Array, " m"]], Float[Array, "g s"]]
    """Shapes to start from, given quantiles of the times from 0 to 1 at equal steps."""
    original: Callable[[Shape], Float[Array, "p p"]] | None = None
    """F(shape) with eta = F eta_s; None where the estimated coordinates are the original ones."""
    closed_moments: Callable[[Shape, Occasions], Moments] | None = None
    """Moments without forming the loadings, where the curve allows it."""
    moved: Callable[[Shape, Any, Any], tuple[Shape, Float[Array, "p p"]]] | None = None
    """``(shape, origin, unit)``: the shape for the times origin + unit t of that for the times t, and the matrix that
    makes growth factors for those times of the factors for these. Its first loading must be 1. Where a curve has none,
    fits are not independent of where times begin."""

    def moments(self, shape: Shape, occasions: Occasions) -> Moments:
        """Lambda' Lambda and Lambda' y of every person."""
        if self.closed_moments:
            return self.closed_moments(shape, occasions)
        return summed_moments(self, shape, occasions)

    def to_original(self, shape: Shape) -> Float[Array, "p p"]:
        """F(shape), the identity where nothing was reparameterised."""
        return self.original(shape) if self.original else jnp.eye(len(self.factors))


def summed_moments(curve: Curve, shape: Shape, occasions: Occasions) -> Moments:
    """Moments as sums of products of the loadings, for any curve."""
    loadings = [x * occasions.observed for x in curve.loadings(occasions.t, shape)]
    size = len(loadings)
    upper = {(a, b): (loadings[a] * loadings[b]).sum(0) for a in range(size) for b in range(a, size)}
    gram = [[upper[min(a, b), max(a, b)] for b in range(size)] for a in range(size)]
    return Moments(gram, [[(x * y).sum(0) for x in loadings] for y in occasions.channels])


def spline_to_original(shape: Shape) -> Float[Array, "3 3"]:
    """F(gamma): intercept and the slopes before and after the knot from the estimated coordinates."""
    one, zero, g = jnp.ones_like(shape[0]), jnp.zeros_like(shape[0]), shape[0]
    return jnp.stack([jnp.stack(row) for row in ((one, -g, g), (zero, one, -one), (zero, one, one))])


def spline_from_original(shape: Shape) -> Float[Array, "3 3"]:
    """G(gamma), the inverse of F(gamma)."""
    one, zero, g = jnp.ones_like(shape[0]), jnp.zeros_like(shape[0]), shape[0]
    half = one / 2
    return jnp.stack([jnp.stack(row) for row in ((one, g, zero), (zero, half, half), (zero, -half, half))])


def _spline_moments(shape: Shape, occasions: Occasions) -> Moments:
    """With s = sign(t - gamma), every sum over |t - gamma| is a polynomial in gamma with sums of s t^k and s t^k y.

    Signs are constant almost everywhere, so derivatives never visit the occasions.
    """
    g, t = shape[0], occasions.t
    signs = jnp.sign(t - g) * occasions.observed

    def signed(values):
        return (signs * values).sum(0)

    a0, a1, a2 = signs.sum(0), signed(t), signed(t * t)
    c0, c1, c2 = occasions.powers
    absolute = a1 - g * a0
    squares = c2 - 2 * g * c1 + g * g * c0
    straight = c1 - g * c0
    signed_squares = a2 - 2 * g * a1 + g * g * a0
    cross = []
    for y, (e0, e1) in zip(occasions.channels, occasions.totals, strict=True):
        cross.append([e0, e1 - g * e0, signed(t * y) - g * signed(y)])
    gram = [[c0, straight, absolute], [straight, squares, signed_squares], [absolute, signed_squares, squares]]
    return Moments(gram, cross)


def _moved_spline(shape: Shape, origin: Any, unit: Any) -> tuple[Shape, Array]:
    one = jnp.ones_like(shape[0])
    return origin + unit * shape, jnp.diag(jnp.stack([one, one / unit, one / unit]))


def _moved_quadratic(shape: Shape, origin: Any, unit: Any) -> tuple[Shape, Array]:
    o, u = jnp.asarray(origin) / unit, 1 / jnp.asarray(unit)
    one, zero = jnp.ones_like(u), jnp.zeros_like(u)
    rows = ((one, -o, o * o), (zero, u, -2 * o * u), (zero, zero, u * u))
    return shape, jnp.stack([jnp.stack(row) for row in rows])


def _moved_exponential(shape: Shape, origin: Any, unit: Any) -> tuple[Shape, Array]:
    rate = shape / unit
    one, zero, growth = jnp.ones_like(rate[0]), jnp.zeros_like(rate[0]), rate[0] * origin
    return rate, jnp.stack([jnp.stack([one, -jnp.expm1(growth)]), jnp.stack([zero, jnp.exp(growth)])])


def _moved_jenss_bayley(shape: Shape, origin: Any, unit: Any) -> tuple[Shape, Array]:
    rate = shape / unit
    one, zero, growth = jnp.ones_like(rate[0]), jnp.zeros_like(rate[0]), -rate[0] * origin
    rows = ((one, -origin / unit * one, jnp.expm1(growth)), (zero, one / unit, zero), (zero, zero, jnp.exp(growth)))
    return rate, jnp.stack([jnp.stack(row) for row in rows])


def _middle(quantiles: Float[Array, " m"]) -> Float[Array, "13 1"]:
    """Thirteen points over the middle 60 % of the range of times."""
    low, high = quantiles[0], quantiles[-1]
    return (low + (high - low) * jnp.linspace(0.2, 0.8, 13))[:, None]


def _rates(quantiles: Float[Array, " m"], sign: float) -> Float[Array, "13 1"]:
    """Rates at which a curve levels off between a tenth of and the whole range of times."""
    return sign * (jnp.geomspace(1.0, 12.0, 13) / (quantiles[-1] - quantiles[0]))[:, None]


def _absolute(smoothing: float) -> Callable[[Any], Any]:
    return (lambda x: jnp.sqrt(x * x + smoothing)) if smoothing else (lambda x: x * jnp.sign(x))


@checked
def bilinear(smoothing: NonNegative = 0.0) -> Curve:
    """Two straight lines that meet at a knot; ``smoothing`` rounds |x| to sqrt(x^2 + smoothing)."""
    magnitude = _absolute(smoothing)
    return Curve(
        "bilinear",
        ("intercept", "slope 1", "slope 2"),
        ("knot",),
        lambda t, shape: [jnp.ones_like(t), t - shape[0], magnitude(t - shape[0])],
        _middle,
        spline_to_original,
        None if smoothing else _spline_moments,
        None if smoothing else _moved_spline,
    )


BILINEAR = bilinear()
QUADRATIC = Curve(
    "quadratic",
    ("intercept", "linear", "quadratic"),
    (),
    lambda t, shape: [jnp.ones_like(t), t, t * t],
    lambda quantiles: jnp.zeros((1, 0)),
    moved=_moved_quadratic,
)
EXPONENTIAL = Curve(
    "negative exponential",
    ("intercept", "change"),
    ("rate",),
    lambda t, shape: [jnp.ones_like(t), -jnp.expm1(-shape[0] * t)],
    lambda quantiles: _rates(quantiles, 1.0),
    moved=_moved_exponential,
)
JENSS_BAYLEY = Curve(
    "Jenss-Bayley",
    ("intercept", "linear", "exponential"),
    ("rate",),
    lambda t, shape: [jnp.ones_like(t), t, jnp.expm1(shape[0] * t)],
    lambda quantiles: _rates(quantiles, -1.0),
    moved=_moved_jenss_bayley,
)
CURVES = {"bilinear": BILINEAR, "quadratic": QUADRATIC, "exponential": EXPONENTIAL, "jenss_bayley": JENSS_BAYLEY}
