r"""Sums over examples and positions of products of inputs and output gradients, each in the cheapest order.

Per block, ``inputs`` a is [stack, N, T, i] (or row indices [stack, N, T] of a table) and ``gradients`` g is
[stack, N, T, o]: N examples with T positions. The gradient of example n is G_n = sum_t a_nt g_nt^T. Multiply-adds per
example: forming G_n costs T i o; q scores from it another q i o; q scores without it T q i o; in rank r T q r (i + o).
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Order = Literal["auto", "gradient", "inputs", "gram", "outer"]
RESIDENT = 2**25
"""At most so many entries of per-example gradients exist at a time."""


def is_lookup(inputs: Array) -> bool:
    """Whether inputs are indices of rows."""
    return jnp.issubdtype(inputs.dtype, jnp.integer)


def gradients(inputs: Array, out: Float[Array, "s n t o"], rows: int) -> Float[Array, "n s i o"]:
    """Gradients of all examples."""
    if is_lookup(inputs):
        stack = jnp.arange(inputs.shape[0])[:, None, None]
        example = jnp.arange(inputs.shape[1])[None, :, None]
        table = jnp.zeros((out.shape[1], out.shape[0], rows, out.shape[3]), out.dtype)
        return table.at[example, stack, inputs].add(out)
    return jnp.einsum("snti,snto->nsio", inputs, out)


def second_moments(
    inputs: Array, out: Float[Array, "s n t o"], rows: int, order: Order = "auto"
) -> Float[Array, "s i o"]:
    """Sum over examples of the squared entries of their gradients.

    Args:
      inputs: a.
      out: g.
      rows: number of rows of the matrix.
      order: "outer" for one position, (a^2)^T g^2; "gram", pairs of positions; "gradient", gradients one by one.
    """
    if is_lookup(inputs):
        return _lookup_second_moments(inputs, out, rows)
    positions = out.shape[2]
    if order == "auto":
        order = "outer" if positions == 1 else "gram" if positions == 2 else "gradient"
    if order == "outer":
        return jnp.einsum("sni,sno->sio", inputs[:, :, 0] ** 2, out[:, :, 0] ** 2)
    if order == "gram":
        pairs = jnp.einsum("snti,snui->sntui", inputs, inputs), jnp.einsum("snto,snuo->sntuo", out, out)
        return jnp.einsum("sntui,sntuo->sio", *pairs)

    def add(total, pair):
        return total + jnp.einsum("sti,sto->sio", *pair) ** 2, None

    zeros = jnp.zeros((out.shape[0], rows, out.shape[3]), out.dtype)
    return jax.lax.scan(add, zeros, (jnp.swapaxes(inputs, 0, 1), jnp.swapaxes(out, 0, 1)))[0]


def _lookup_second_moments(inputs: Array, out: Array, rows: int) -> Array:
    # (sum over positions with this row of g)^2 = sum over those positions of g_t times the sum over all of them.
    same = (inputs[..., :, None] == inputs[..., None, :]).astype(out.dtype)
    products = out * jnp.einsum("sntu,snuo->snto", same, out)
    stack = jnp.broadcast_to(jnp.arange(inputs.shape[0])[:, None, None], inputs.shape)
    return jnp.zeros((out.shape[0], rows, out.shape[3]), out.dtype).at[stack, inputs].add(products)


def quadratic(inputs: Array, out: Array, weights: Float[Array, "s i o"]) -> Float[Array, " n"]:
    """Of every example, sum_ij weights_ij G_ij^2."""
    if is_lookup(inputs):
        same = (inputs[..., :, None] == inputs[..., None, :]).astype(out.dtype)
        products = out * jnp.einsum("sntu,snuo->snto", same, out)
        stack = jnp.arange(inputs.shape[0])[:, None, None]
        return jnp.einsum("snto,snto->n", products, weights[stack, inputs])
    if out.shape[2] == 1:
        squares = inputs[:, :, 0] ** 2, out[:, :, 0] ** 2
        return jnp.einsum("sno,sno->n", jnp.einsum("sni,sio->sno", squares[0], weights), squares[1])

    def one(pair):
        return jnp.sum(weights * jnp.einsum("sti,sto->sio", *pair) ** 2)

    return jax.lax.map(one, (jnp.swapaxes(inputs, 0, 1), jnp.swapaxes(out, 0, 1)))


def scores(inputs: Array, out: Array, matrices: Float[Array, "q s i o"], order: Order = "auto") -> Float[Array, "q n"]:
    """Inner products of every query's matrix with every example's gradient.

    Args:
      inputs: a.
      out: g.
      matrices: one per query.
      order: "inputs" contracts a with the matrices first, "gradient" forms gradients, a few at a time.
    """
    queries, positions = matrices.shape[0], out.shape[2]
    if order == "auto":
        order = "inputs" if is_lookup(inputs) or queries * positions <= queries + positions else "gradient"
    if order == "inputs":
        return token_scores(inputs, out, matrices).sum(axis=-1)
    rows, size = matrices.shape[2], math.prod(matrices.shape[2:])

    def of_layer(total, layer):
        inputs, out, matrices = layer
        flat = matrices.reshape(queries, size)

        def block(pair):
            inputs, out = (side[None] for side in pair)
            return gradients(inputs, out, rows).reshape(-1, size) @ flat.T

        return total + in_parts(block, (inputs, out), size), None

    zeros = jnp.zeros((out.shape[1], queries), out.dtype)
    return jax.lax.scan(of_layer, zeros, (inputs, out, jnp.swapaxes(matrices, 0, 1)))[0].T


def token_scores(inputs: Array, out: Array, matrices: Float[Array, "q s i o"]) -> Float[Array, "q n t"]:
    """The same inner products by position of the output gradient; their sum over positions is the score."""
    if is_lookup(inputs):
        stack = jnp.arange(inputs.shape[0])[:, None, None]
        return jnp.einsum("qsnto,snto->qnt", matrices[:, stack, inputs], out)
    return jnp.einsum("qsnto,snto->qnt", jnp.einsum("snti,qsio->qsnto", inputs, matrices), out)


def low_rank_scores(
    inputs: Array, out: Array, left: Float[Array, "q s i r"], right: Float[Array, "q s r o"]
) -> Float[Array, "q n"]:
    """Scores for matrices left @ right, in rank r throughout."""
    if is_lookup(inputs):
        stack = jnp.arange(inputs.shape[0])[:, None, None]
        projected = left[:, stack, inputs]
    else:
        projected = jnp.einsum("snti,qsir->qsntr", inputs, left)
    return jnp.einsum("qsntr,qsntr->qn", projected, jnp.einsum("snto,qsro->qsntr", out, right))


def in_parts(fn: Callable, arrays, entries: int) -> Array:
    """``fn`` of as many leading rows at a time as keep ``entries`` per row under the limit; results joined."""
    rows = jax.tree.leaves(arrays)[0].shape[0]
    size = max(1, min(rows, RESIDENT // max(entries, 1)))
    if size == rows:
        return fn(arrays)
    parts = -(-rows // size)
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, parts * size - rows)] + [(0, 0)] * (x.ndim - 1)), arrays)
    split = jax.tree.map(lambda x: x.reshape(parts, size, *x.shape[1:]), padded)
    joined = jax.lax.map(fn, split)
    return joined.reshape(-1, *joined.shape[2:])[:rows]
