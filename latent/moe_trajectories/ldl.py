"""L D L' of small matrices, written out: entries are arrays of any shape, one matrix per element.

XLA's CPU backend runs batched LAPACK calls one after the other (and second derivatives through them were seen to
hang); six scalars per person fuse into the loop over persons instead.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

Entries = list[list[Any]]
"""Rows of entries; of a lower triangle, row i has i + 1 of them."""


def ldl(a: Sequence[Sequence[Any]]) -> tuple[Entries, list[Any]]:
    """Unit lower triangle L (row i holds its i entries left of the diagonal) and D with A = L D L'.

    Args:
      a: at least the lower triangle of a positive definite matrix.
    """
    lower: Entries = []
    d: list[Any] = []
    for i in range(len(a)):
        row: list[Any] = []
        for j in range(i):
            row.append((a[i][j] - sum(row[k] * lower[j][k] * d[k] for k in range(j))) / d[j])
        d.append(a[i][i] - sum(row[k] * row[k] * d[k] for k in range(i)))
        lower.append(row)
    return lower, d


def forward(lower: Entries, b: Sequence[Any]) -> list[Any]:
    """L^{-1} b."""
    x: list[Any] = []
    for i, row in enumerate(lower):
        x.append(b[i] - sum(row[k] * x[k] for k in range(i)))
    return x


def solve(factors: tuple[Entries, list[Any]], b: Sequence[Any]) -> list[Any]:
    """A^{-1} b from the factors of A."""
    lower, d = factors
    x = [w / v for w, v in zip(forward(lower, b), d, strict=True)]
    for i in reversed(range(len(x))):
        x[i] = x[i] - sum(lower[k][i] * x[k] for k in range(i + 1, len(x)))
    return x


def inverse(factors: tuple[Entries, list[Any]]) -> Entries:
    """A^{-1}, row by row."""
    size = len(factors[1])
    one = jnp.ones_like(factors[1][0])
    return [solve(factors, [one if i == j else 0 * one for i in range(size)]) for j in range(size)]


def solve_matrix(a: Float[Array, "*k p p"], b: Float[Array, "*k p q"]) -> Float[Array, "*k p q"]:
    """A^{-1} B of many small positive definite matrices."""
    size = a.shape[-1]
    factors = ldl([[a[..., i, j] for j in range(size)] for i in range(size)])
    columns = [jnp.stack(solve(factors, [b[..., i, q] for i in range(size)]), -1) for q in range(b.shape[-1])]
    return jnp.stack(columns, -1) if columns else jnp.zeros_like(b)


def size_of(entries: int) -> int:
    """The order of a symmetric matrix with so many entries in its lower triangle."""
    return round(((8 * entries + 1) ** 0.5 - 1) / 2)


def triangle(flat: Float[Array, "*k entries"]) -> Entries:
    """Rows of the lower triangle from its entries 00, 10, 11, 20, ..., the diagonal given by its logarithm."""
    size, place, rows = size_of(flat.shape[-1]), 0, []
    for i in range(size):
        rows.append([flat[..., place + j] for j in range(i)] + [jnp.exp(flat[..., place + i])])
        place += i + 1
    return rows


def from_triangle(flat: Float[Array, "*k entries"]) -> Float[Array, "*k p p"]:
    """C C' with C of :func:`triangle`."""
    rows = triangle(flat)
    if not rows:
        return jnp.zeros((*flat.shape[:-1], 0, 0), flat.dtype)
    full = [row + [jnp.zeros_like(row[0])] * (len(rows) - len(row)) for row in rows]
    c = jnp.stack([jnp.stack(row, -1) for row in full], -2)
    return jnp.einsum("...ij,...kj->...ik", c, c)


def moved_triangle(flat: Float[Array, "*k entries"], a: Float[Array, "*k p p"]) -> Float[Array, "*k entries"]:
    """The triangle of A C C' A' from that of C C', by the QR decomposition of C' A': nothing is squared."""
    rows = triangle(flat)
    c = jnp.stack([jnp.stack(row + [jnp.zeros_like(row[0])] * (len(rows) - len(row)), -1) for row in rows], -2)
    r = jnp.linalg.qr(jnp.swapaxes(a @ c, -1, -2), mode="r")
    entries = []
    for i in range(len(rows)):
        sign = jnp.sign(jnp.stack([r[..., j, j] for j in range(i + 1)], -1))
        entries += [*jnp.moveaxis(sign[..., :i] * r[..., :i, i], -1, 0), jnp.log(jnp.abs(r[..., i, i]))]
    return jnp.stack(entries, -1)


def to_triangle(matrix: Float[Array, "*k p p"]) -> Float[Array, "*k entries"]:
    """The inverse of :func:`from_triangle`."""
    size = matrix.shape[-1]
    if not size:
        return jnp.zeros((*matrix.shape[:-2], 0), matrix.dtype)
    lower, d = ldl([[matrix[..., i, j] for j in range(size)] for i in range(size)])
    roots = [jnp.sqrt(x) for x in d]
    entries = []
    for i in range(size):
        entries += [lower[i][j] * roots[j] for j in range(i)] + [jnp.log(roots[i])]
    return jnp.stack(entries, -1)
