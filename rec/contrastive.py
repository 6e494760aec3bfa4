r"""InfoNCE between two views of the distinct nodes of a batch, in blocks of rows.

With S the distinct nodes, rows a_s and b_s of the two views scaled to unit length and temperature tau::

    NCE(A, B) = 1/|S| sum_{s in S} -log( exp(<a_s, b_s> / tau) / sum_{t in S} exp(<a_s, b_t> / tau) )

Shapes are static: a view has one row per example of the batch, and a mask tells the first occurrence of every node.
The |S|^2 scores exist only ``block`` rows at a time, with or without differentiation.

Where the data axis is bound, masks and losses are those of the global batch: each replica keeps the rows of its own
examples, compares them with the rows of all, and the mean over replicas is the loss of the whole batch.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from core.checks import Count, Positive, checked
from core.learner import axis_is_bound, gather_over_devices, local_share

Method = Literal["exact", "taylor2"]


@checked
def first_occurrence(ids: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Marks one example per distinct id, the first; under a bound data axis, the first in the global batch."""
    everyone = gather_over_devices(ids)
    order = jnp.argsort(everyone, stable=True)
    ascending = everyone[order]
    new = jnp.concatenate([jnp.ones(1, bool), ascending[1:] != ascending[:-1]])
    mask = jnp.zeros(new.shape, bool).at[order].set(new)
    return local_share(mask) if axis_is_bound() else mask


@checked
def unit_rows(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """X / max(|x|, 1e-12), row by row; zero rows stay zero, and have the derivative of this formula."""
    return x / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


@checked
def nce(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    mask: Bool[Array, " n"],
    tau: Positive,
    *,
    method: Method = "exact",
    block: Count = 512,
    eps_compat: bool = False,
) -> Float[Array, ""]:
    """NCE(A, B) over the masked rows.

    Args:
      a: the view whose rows are anchors.
      b: the view whose rows are positives and negatives.
      mask: one row per distinct node, see :func:`first_occurrence`.
      tau: temperature.
      method: "taylor2" expands the exponentials of the denominator to second order in the scores, in O(n d^2) time
        instead of O(n^2 d); meant for tau = 1, where scores are at most 1.
      block: rows of scores held at a time; memory is O(n block).
      eps_compat: the arithmetic of HKUDS/DCCF, which adds 1e-8 to the denominator and to the fraction; it lowers the
        loss by about 1e-8 |S|.

    Returns:
      The loss; under a bound data axis, this replica's part of it, to be averaged over replicas.
    """
    partition = {"exact": log_partition, "taylor2": log_partition_taylor2}[method]
    term = compatible_term if eps_compat else log_ratio

    def total(rows: Rows, columns: Columns) -> Float[Array, ""]:
        positive = jnp.sum(rows.a * rows.b, axis=1)
        return jnp.sum(rows.weight * term(positive, partition(rows.a, columns)))

    rows = Rows(unit_rows(a) / tau, unit_rows(b), mask.astype(a.dtype))
    columns = Columns(gather_over_devices(rows.b).T, gather_over_devices(rows.weight))
    replicas = columns.weight.shape[0] // rows.weight.shape[0]
    return _in_blocks(total, block)(rows, columns) * (replicas / jnp.sum(columns.weight))


class Rows(NamedTuple):
    """Anchors and their positives."""

    a: Float[Array, "n d"]
    """Unit rows over tau."""
    b: Float[Array, "n d"]
    """Unit rows."""
    weight: Float[Array, " n"]
    """1 for the rows that count, 0 for the others."""


class Columns(NamedTuple):
    """What every anchor is compared with."""

    b: Float[Array, "d m"]
    """Unit columns: with rows, the gradient would be a product that XLA's CPU backend runs five times slower."""
    weight: Float[Array, " m"]


def log_partition(a: Float[Array, "n d"], columns: Columns) -> Float[Array, " n"]:
    """Log sum_t exp(<a_s, b_t>)."""
    return jax.nn.logsumexp(jnp.where(columns.weight > 0, a @ columns.b, -jnp.inf), axis=1)


def log_partition_taylor2(a: Float[Array, "n d"], columns: Columns) -> Float[Array, " n"]:
    """log(|S| + <a_s, m> + 1/2 a_s^T M a_s) with m = sum_t b_t and M = sum_t b_t b_t^T."""
    b = columns.b * columns.weight
    quadratic = jnp.sum((a @ (b @ b.T)) * a, axis=1)
    return jnp.log(jnp.sum(columns.weight) + a @ jnp.sum(b, axis=1) + quadratic / 2)


def log_ratio(positive: Float[Array, " n"], partition: Float[Array, " n"]) -> Float[Array, " n"]:
    """-log(exp(positive) / exp(partition))."""
    return partition - positive


def compatible_term(positive: Float[Array, " n"], partition: Float[Array, " n"]) -> Float[Array, " n"]:
    """:func:`log_ratio` with 1e-8 added to the denominator and to the fraction."""
    return -jnp.log(jnp.exp(positive) / (jnp.exp(partition) + 1e-8) + 1e-8)


def _in_blocks(total: Callable[[Rows, Columns], Float[Array, ""]], block: int):
    """The same sum over rows, taken over blocks of them.

    Differentiation takes each block's gradient along with its value: no block's scores outlive the block, and none
    are computed twice.
    """

    @jax.custom_vjp
    def blocked(rows: Rows, columns: Columns):
        return jnp.sum(jax.lax.map(lambda part: total(part, columns), _split(rows, block)))

    def value_and_grads(rows: Rows, columns: Columns):
        def step(sums, part):
            value, (d_part, d_columns) = jax.value_and_grad(total, (0, 1))(part, columns)
            return jax.tree.map(jnp.add, sums, (value, d_columns)), d_part

        zeros = jnp.zeros((), rows.a.dtype), jax.tree.map(jnp.zeros_like, columns)
        (value, d_columns), d_parts = jax.lax.scan(step, zeros, _split(rows, block))
        return value, (jax.tree.map(lambda d, leaf: _merge(d, leaf.shape[0]), d_parts, rows), d_columns)

    blocked.defvjp(value_and_grads, lambda grads, g: jax.tree.map(lambda leaf: g * leaf, grads))
    return blocked


def _split(rows: Rows, block: int) -> Rows:
    """[n, ...] as [blocks, n / blocks, ...], padded with rows of weight 0.

    A block takes every k-th row, so that on a mesh all devices share the work of each block.
    """
    n = rows.weight.shape[0]
    blocks = -(-n // block)

    def split(leaf):
        leaf = jnp.pad(leaf, ((0, -n % blocks), *((0, 0),) * (leaf.ndim - 1)))
        return jnp.swapaxes(leaf.reshape(-1, blocks, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(split, rows)


def _merge(parts: Float[Array, "blocks size ..."], n: int) -> Float[Array, "n ..."]:
    """The inverse of :func:`_split`."""
    return jnp.swapaxes(parts, 0, 1).reshape(-1, *parts.shape[2:])[:n]
