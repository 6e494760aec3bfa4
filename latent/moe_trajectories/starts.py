"""Where fits start: persons' own least-squares curves over a grid of knots, sorted into random classes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from latent.moe_trajectories import ldl
from latent.moe_trajectories.model import Arranged, Experts, Mixture, Params

RIDGE = 1e-6
SHRINK, FLOOR = 0.8, 1e-3
"""Covariances of least-squares factors contain sampling noise: they start at 0.8 of themselves plus 0.001 I."""


def least_squares(mixture: Mixture, shape: Float[Array, " s"], arranged: Arranged):
    """Every person's own growth factors and residual sum of squares under one shape."""
    moments = mixture.curve.moments(shape, arranged.occasions)
    size = len(moments.gram)
    ridge = RIDGE * sum(moments.gram[a][a].mean() for a in range(size)) / size
    gram = [[moments.gram[a][b] + ridge * (a == b) for b in range(size)] for a in range(size)]
    factors = ldl.solve(ldl.ldl(gram), moments.cross[0])
    explained = sum(f * h for f, h in zip(factors, moments.cross[0], strict=True))
    return jnp.stack(factors), jnp.maximum(arranged.squares[0] - explained, 0.0)


def random_start(mixture: Mixture, key: Key[Array, ""], arranged: Arranged) -> Params:
    """Classes are the persons whom one of K knots of the grid suits best, with noise in the choice."""
    shapes = mixture.curve.candidates(_range(arranged))
    grid = jax.vmap(lambda shape: least_squares(mixture, shape, arranged))(shapes)
    key_grid, key_noise = jax.random.split(key)
    if len(shapes) < mixture.classes:
        chosen = jnp.arange(mixture.classes) % len(shapes)
        distances = _to_random_persons(mixture, key_grid, grid[0][0])
    else:
        chosen = jnp.sort(jax.random.permutation(key_grid, len(shapes))[: mixture.classes])
        distances = grid[1][chosen]
    noise = jax.random.normal(key_noise, distances.shape, distances.dtype)
    labels = jnp.argmin(distances * jnp.exp(0.3 * noise), axis=0)
    return start_from(mixture, shapes[chosen], jax.nn.one_hot(labels, mixture.classes, axis=0, dtype=noise.dtype),
                      arranged)  # fmt: skip


def _range(arranged: Arranged) -> Float[Array, "2"]:
    t, seen = arranged.occasions.t, arranged.occasions.observed > 0
    return jnp.stack([jnp.min(t, where=seen, initial=jnp.inf), jnp.max(t, where=seen, initial=-jnp.inf)])


def _to_random_persons(mixture: Mixture, key, factors: Float[Array, "p n"]) -> Float[Array, "K n"]:
    """Squared distances of growth factors, in standard deviations, to those of K persons drawn at random."""
    scaled = (factors - factors.mean(1, keepdims=True)) / factors.std(1, keepdims=True)
    centres = scaled[:, jax.random.permutation(key, factors.shape[1])[: mixture.classes]]
    return ((scaled[:, None] - centres[:, :, None]) ** 2).sum(0)


def start_from(
    mixture: Mixture, shapes: Float[Array, "K s"], shares: Float[Array, "K n"], arranged: Arranged
) -> Params:
    """Parameters by moments, given shapes and each person's share in each class; classes in the order of shapes."""

    def single(shape, share):
        factors, squares = least_squares(mixture, shape, arranged)
        return _experts(mixture, shape, factors, squares, share, arranged)

    gating = jnp.zeros((mixture.classes - 1, 1 + len(arranged.xg)), shares.dtype)
    return Params(gating, jax.vmap(single)(shapes, shares))


def _experts(mixture: Mixture, shape, factors, squares, share, arranged: Arranged) -> Experts:
    size, n = factors.shape
    share = jnp.where(share.sum() > 3 * size, share, 1.0)  # too few persons for moments: those of everybody
    xe, ce = arranged.xe, len(arranged.xe)
    design = jnp.concatenate([jnp.ones((1, n), factors.dtype), xe])
    total = (design * share) @ design.T + RIDGE * jnp.eye(1 + ce, dtype=factors.dtype)
    coefficients = ldl.solve_matrix(total, (design * share) @ factors.T)
    mean = (factors * share).sum(1) / share.sum()
    psi = SHRINK * _covariance(factors, mean, share) + FLOOR * jnp.eye(size, dtype=factors.dtype)
    freedom = arranged.occasions.powers[0] - size
    usable = (share > 0.5) & (freedom > 0)
    theta = jnp.nanmedian(jnp.where(usable, squares / jnp.maximum(freedom, 1.0), jnp.nan))
    theta = jnp.where(jnp.isfinite(theta) & (theta > 0), theta, 1e-3 + squares.mean())
    weights = share * arranged.xe_observed
    mux = (xe * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)
    phi = _covariance((xe - mux[:, None]) * arranged.xe_observed, jnp.zeros_like(mux), share)
    joint = mixture.covariates == "joint" and ce > 0
    return Experts(
        coefficients[0] if ce else mean,
        shape,
        ldl.to_triangle(psi),
        jnp.log(theta),
        coefficients[1:].T,
        mux if joint else mux[:0],
        ldl.to_triangle(phi + FLOOR * jnp.eye(ce, dtype=factors.dtype)) if joint else mux[:0],
        *_varying(mixture, share, arranged),
    )


def _covariance(x: Float[Array, "p n"], mean: Float[Array, " p"], share: Float[Array, " n"]) -> Any:
    off = x - mean[:, None]
    return (off * share) @ off.T / share.sum()


def _varying(mixture: Mixture, share, arranged: Arranged):
    channels = arranged.occasions.channels
    none = jnp.zeros(0, share.dtype)
    if len(channels) == 1:
        return none, none, none
    beta = jnp.zeros(1, share.dtype)
    if mixture.covariates != "joint":
        return beta, none, none
    weight = share * arranged.occasions.observed
    count = jnp.maximum(weight.sum(1), 1.0)
    tau = (channels[1] * weight).sum(1) / count
    variance = ((channels[1] - tau[:, None]) ** 2 * weight).sum(1) / count
    return beta, tau, jnp.log(variance + FLOOR)
