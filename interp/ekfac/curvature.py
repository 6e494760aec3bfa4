r"""From sums to a curvature that can be inverted: Kronecker factors, eigenbases, eigenvalues, damping.

Of one layer with inputs a (and 1 for the bias) and output gradients g, with positions t and examples n:

  A = E_t[a a^T],  S = E_t[g g^T],  A = Q_A L_A Q_A^T,  S = Q_S L_S Q_S^T            (K-FAC)
  Lambda_ij = E_n[(Q_A^T G_n Q_S)_ij^2],  G_n = sum_t a_t g_t^T                      (eigenvalue correction, EK-FAC)
  (G + lambda)^{-1} V = Q_A [(Q_A^T V Q_S) / (Lambda + lambda)] Q_S^T

Every curvature here is a pair of orthogonal bases and a matrix of eigenvalues; identity, diagonal, K-FAC and EK-FAC
differ in what these are. Very wide sides are split into groups, with block-diagonal factors.

Sources: Martens & Grosse 2015 (arXiv 1503.05671), George et al. 2018 (arXiv 1806.03884), Grosse et al. 2023
(arXiv 2308.03296).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from core.checks import Count, NonNegative, checked
from core.errors import ConfigError
from core.learner import Learner, Stream, keys_at, stream
from core.linalg import of_each_matrix
from interp.ekfac import contractions
from interp.ekfac.capture import Block, Capture, Record
from interp.ekfac.fisher import Fisher
from interp.ekfac.stages import Examples, Sums, records, stage
from interp.likelihoods import Task

NARROW = 256
"""Products of so few columns are computed in one piece."""
FACTORS, EIGENVALUES = 0, 1
"""Passes that draw targets: EK-FAC's eigenvalues are unbiased only in a basis that these draws have not made."""
Mask = Callable[[Any], Array]
"""Of one example, 1 for the positions that count and 0 for padding."""


Scale = Literal["per_example", "per_position"]


class Factors(NamedTuple):
    """One layer's sums of outer products, [stack, groups, width, width]; [stack, width] where only the diagonal is."""

    rows: Array
    columns: Array


class Eigen(NamedTuple):
    """One layer's eigenvectors [stack, groups, width, width], None for the standard basis, with K-FAC's eigenvalues."""

    rows: Array | None
    columns: Array | None
    values: Float[Array, "stack rows columns"]


Curvature = Mapping[str, Eigen]
"""By block, bases and eigenvalues; damped ones have lambda added."""


@checked
def covariance(
    capture: Capture, task: Task, fisher: Fisher, *, mask: Mask | None = None, widest: Count | None = None
) -> Learner:
    """The stage that sums a a^T and g g^T over positions.

    Args:
      capture: of ``task.outputs``.
      task: the network and its likelihood.
      fisher: which output gradients.
      mask: positions that count, where weights are applied as many times as it has positions; all without it.
      widest: sides wider than this are split into groups with a factor each.
    """

    def zeros() -> dict[str, Factors]:
        return {name: Factors(*_zeros(block, widest)) for name, block in capture.blocks.items()}

    def statistic(key, batch: Examples):
        found = _weighted(capture, task, fisher, mask, stream(key, Stream.TARGETS, FACTORS), batch)
        sums = {name: _outer_products(capture.blocks[name], record, widest) for name, (record, _) in found.items()}
        return sums, {name: positions for name, (_, positions) in found.items()}

    return stage(zeros, statistic)


@checked
def eigenbasis(capture: Capture, sums: Sums, scale: Scale = "per_example") -> Curvature:
    """K-FAC's curvature: bases and products of eigenvalues of the averaged factors, computed in float64.

    Args:
      capture: what the sums are of.
      sums: state of :func:`covariance`.
      scale: "per_example" multiplies by the mean number of positions per example, which makes the curvature that of
        whole sequences with independent positions; "per_position" leaves it out.

    Raises:
      ConfigError: where the sums are of another model, of no examples, or not finite.
    """
    _require_sums(capture, sums.sums, sums.examples)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), sums._replace(key=None, step=0))
    types = {name: factors.columns.dtype for name, factors in sums.sums.items()}
    return {
        name: jax.tree.map(lambda x, t=types[name]: jnp.asarray(x, t), eigen)
        for name, eigen in kfac(capture, wide, scale, np).items()
    }


@checked
def kfac(capture: Capture, sums: Sums, scale: Scale = "per_example", xp: Any = jnp) -> Curvature:
    """The same in the precision of the sums and without checks: with ``xp=jax.numpy`` for use inside jit.

    On the host it is NumPy that decomposes, in float64; inside jit see :func:`core.linalg.of_each_matrix`.
    """
    curvature = {}
    for name, factors in sums.sums.items():
        block, positions = capture.blocks[name], sums.positions[name]
        rows, row_values = _decomposed(factors.rows / positions, block.rows, xp)
        columns, column_values = _decomposed(factors.columns / positions, block.columns, xp)
        values = row_values[:, :, None] * column_values[:, None, :]
        curvature[name] = Eigen(rows, columns, values * (positions / sums.examples if scale == "per_example" else 1))
    return curvature


def standard_basis(capture: Capture) -> Curvature:
    """The identity: no rotation, all eigenvalues 1."""
    return {
        name: Eigen(None, None, jnp.ones((block.stack, block.rows, block.columns)))
        for name, block in capture.blocks.items()
    }


@checked
def eigenvalue_correction(
    capture: Capture, task: Task, fisher: Fisher, *, mask: Mask | None = None, order: contractions.Order = "auto"
) -> Learner:
    """The stage that sums squared gradients in the bases of a curvature, which travels beside the parameters.

    Its batches have ``params=(params, curvature)``. In the standard basis it gives the diagonal of the Fisher matrix.
    """

    def zeros():
        return {name: jnp.zeros((b.stack, b.rows, b.columns)) for name, b in capture.blocks.items()}

    def statistic(key, batch: Examples):
        params, curvature = batch.params
        key = stream(key, Stream.TARGETS, EIGENVALUES)
        found = _weighted(capture, task, fisher, mask, key, batch._replace(params=params))
        sums = {}
        for name, (record, _) in found.items():
            inputs, out = rotate_record(record, curvature[name])
            sums[name] = _second_moments(inputs, out, capture.blocks[name].rows, order)
        return sums, {name: positions for name, (_, positions) in found.items()}

    return stage(zeros, statistic)


def corrected(capture: Capture, curvature: Curvature, sums: Sums) -> Curvature:
    """EK-FAC's curvature: the bases of one with the eigenvalues that were summed in them.

    Raises:
      ConfigError: where the sums are of another model, of no examples, or not finite.
    """
    _require_sums(capture, sums.sums, sums.examples)
    return with_measured_eigenvalues(curvature, sums)


def with_measured_eigenvalues(curvature: Curvature, sums: Sums) -> Curvature:
    """The same without checks, for use inside jit."""
    return {
        name: curvature[name]._replace(values=values / sums.examples.astype(values.dtype))
        for name, values in sums.sums.items()
    }


Damping = Callable[[Float[Array, "stack rows columns"]], Float[Array, "..."]]
"""Eigenvalues to lambda, which broadcasts with them."""


@checked
def heuristic(fraction: NonNegative = 0.1) -> Damping:
    """Lambda = fraction of the layer's mean eigenvalue."""
    return lambda values: fraction * jnp.mean(values, axis=(1, 2), keepdims=True)


@checked
def absolute(damping: NonNegative) -> Damping:
    """The same lambda for all layers."""
    return lambda values: jnp.full((1, 1, 1), damping, values.dtype)


@checked
def damp(curvature: Curvature, damping: Damping) -> Curvature:
    """Adds lambda to the eigenvalues.

    Raises:
      ConfigError: where an eigenvalue is still zero or negative, so that the curvature cannot be inverted.
    """
    damped = plus_damping(curvature, damping)
    singular = [
        name for name, eigen in damped.items() if not bool(jnp.all(eigen.values > _rounding(curvature[name], eigen)))
    ]
    if singular:
        raise ConfigError(
            f"the curvature of {', '.join(singular[:5])} has eigenvalues that are not positive even with damping: "
            "use a larger absolute(...), or leave these layers out with where=..."
        )
    return damped


def plus_damping(curvature: Curvature, damping: Damping) -> Curvature:
    """The same without checks, for use inside jit."""
    return {name: eigen._replace(values=eigen.values + damping(eigen.values)) for name, eigen in curvature.items()}


def _rounding(before: Eigen, damped: Eigen) -> Array:
    """What an eigenvalue must exceed: 0 where something was added, else the error of its computation."""
    least = jnp.finfo(before.values.dtype).eps * jnp.max(before.values, axis=(1, 2), keepdims=True)
    return jnp.where(damped.values > before.values, 0.0, least)


@checked
def precondition(curvature: Curvature, matrices: Mapping[str, Array], power: float = -1.0) -> dict[str, Array]:
    """(G + lambda)^power times gradients given as matrices [..., stack, rows, columns] by block."""
    return {name: _apply(curvature[name], matrix, power) for name, matrix in matrices.items()}


@checked
def precondition_tree(capture: Capture, curvature: Curvature, gradient: PyTree, power: float = -1.0) -> PyTree:
    """The same on a tree of the parameters' structure; leaves that no block holds become zero."""
    with_paths, tree = jax.tree_util.tree_flatten_with_path(gradient)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in with_paths}
    moved = precondition(curvature, to_matrices(capture, leaves), power)
    out = {name: jnp.zeros_like(leaf) for name, leaf in leaves.items()}
    for name, matrix in moved.items():
        for leaf, part in capture.blocks[name].from_matrix(matrix).items():
            out[leaf] = out[leaf] + part
    return jax.tree.unflatten(tree, out.values())


def to_matrices(capture: Capture, leaves: Mapping[str, Array]) -> dict[str, Array]:
    """Leaves by path as the blocks' matrices."""
    return {name: block.to_matrix(leaves) for name, block in capture.blocks.items()}


@checked
def posterior_sample(
    key: Key[Array, ""], capture: Capture, damped: Curvature, params: PyTree, examples: Count
) -> PyTree:
    """A draw from the Laplace approximation N(params, (N (G + lambda))^{-1}), N the number of training examples."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    keys = jax.random.split(key, len(leaves))
    noise = jax.tree.unflatten(
        jax.tree.structure(params),
        [jax.random.normal(k, leaf.shape, leaf.dtype) for k, (_, leaf) in zip(keys, leaves, strict=True)],
    )
    moved = precondition_tree(capture, damped, noise, power=-0.5)
    return jax.tree.map(lambda p, d: p + d / examples**0.5, params, moved)


def rotate(x: Float[Array, "stack ... width"], basis: Array | None, *, back: bool = False) -> Array:
    """X Q along the last axis, group by group; x Q^T with ``back``. The first axis is the stack."""
    if basis is None:
        return x
    if back:
        basis = jnp.swapaxes(basis, -1, -2)
    stack, groups, width, _ = basis.shape
    flat = x.reshape(stack, -1, x.shape[-1])
    if groups == 1:
        return (flat[0] @ basis[0, 0]).reshape(x.shape) if stack == 1 else (flat @ basis[:, 0]).reshape(x.shape)
    padded = jnp.pad(flat, ((0, 0), (0, 0), (0, groups * width - x.shape[-1])))
    turned = jnp.einsum("sncw,scwv->sncv", padded.reshape(stack, -1, groups, width), basis)
    return turned.reshape(stack, -1, groups * width)[..., : x.shape[-1]].reshape(x.shape)


def rotate_record(record: Record, eigen: Eigen) -> Record:
    """Inputs and output gradients in the eigenbases."""
    inputs = record.inputs if contractions.is_lookup(record.inputs) else rotate(record.inputs, eigen.rows)
    return Record(inputs, rotate(record.gradients, eigen.columns))


def rotate_matrices(matrices: Float[Array, "... stack rows columns"], eigen: Eigen, *, back: bool = False) -> Array:
    """Q_A^T V Q_S, or with ``back`` Q_A V Q_S^T."""
    lead = matrices.shape[:-3]
    flat = jnp.moveaxis(matrices.reshape(-1, *matrices.shape[-3:]), 1, 0)
    turned = rotate(flat, eigen.columns, back=back)
    turned = jnp.swapaxes(rotate(jnp.swapaxes(turned, -1, -2), eigen.rows, back=back), -1, -2)
    return jnp.moveaxis(turned, 0, 1).reshape(*lead, *matrices.shape[-3:])


def _apply(eigen: Eigen, matrix: Array, power: float) -> Array:
    scaled = rotate_matrices(matrix, eigen) * eigen.values**power
    return rotate_matrices(scaled, eigen, back=True)


def _weighted(capture: Capture, task: Task, fisher: Fisher, mask: Mask | None, key, batch: Examples):
    """By block, the batch's record with what does not count set to zero, and the number of positions that do."""
    found = records(capture, task, fisher, batch.params, batch.examples, keys_at(key, batch.index))
    counts = None if mask is None else jax.vmap(lambda e: mask(e).ravel())(batch.examples)
    weighted = {}
    for name, record in found.items():
        spans = [
            counts if counts is not None and counts.shape[1] == span else jnp.ones((batch.weight.shape[0], span))
            for span in capture.blocks[name].spans
        ]
        weight = batch.weight[:, None] * jnp.concatenate(spans, axis=1)
        weighted[name] = _without(record, weight, capture.blocks[name].rows), jnp.sum(weight)
    return weighted


def _without(record: Record, weight: Float[Array, "n t"], rows: int) -> Record:
    """Inputs and output gradients with those of weight 0 erased; the row index past the end stands for no row."""
    inputs, out = record
    weight = weight[None, :, None, :].astype(out.dtype)
    erased = jnp.where(weight > 0, inputs, rows) if contractions.is_lookup(inputs) else inputs * weight[..., None]
    return Record(erased, out * weight[..., None])


def _groups(width: int, widest: int | None) -> int:
    return 1 if widest is None else -(-width // widest)


def _zeros(block: Block, widest: int | None):
    def side(width, diagonal):
        if diagonal:
            return jnp.zeros((block.stack, width))
        groups = _groups(width, widest)
        return jnp.zeros((block.stack, groups, -(-width // groups), -(-width // groups)))

    return side(block.rows, block.is_lookup or block.is_diagonal), side(block.columns, block.is_diagonal)


def _outer_products(block: Block, record: Record, widest: int | None) -> Factors:
    """Sums over examples and positions, averaged over directions of differentiation."""
    inputs, out = record
    if block.is_diagonal:
        return Factors(jnp.sum(inputs**2, axis=(1, 2, 3)), jnp.sum(jnp.mean(out**2, axis=2), axis=(1, 2)))
    rows = _frequencies(inputs, block) if block.is_lookup else _gram(inputs, widest)
    return Factors(rows, _gram(out, widest))


def _frequencies(indices: Array, block: Block) -> Array:
    counts = jnp.zeros((block.stack, block.rows))
    stack = jnp.broadcast_to(jnp.arange(block.stack)[:, None, None, None], indices.shape)
    return counts.at[stack, indices].add(1.0, mode="drop") / indices.shape[2]


def _gram(x: Float[Array, "stack n k t width"], widest: int | None) -> Array:
    stack, width, groups = x.shape[0], x.shape[-1], _groups(x.shape[-1], widest)
    flat = x.reshape(stack, -1, width)
    size = -(-width // groups)
    split = jnp.pad(flat, ((0, 0), (0, 0), (0, groups * size - width))).reshape(stack, -1, groups, size)
    return _symmetric_product(split) / x.shape[2]


def _symmetric_product(x: Float[Array, "stack n groups width"]) -> Float[Array, "stack groups width width"]:
    """X^T X; of wide ones the part below the diagonal is not computed but copied."""
    half = x.shape[-1] // 2
    if half < NARROW:
        return jnp.einsum("sncw,sncv->scwv", x, x)
    left, right = x[..., :half], x[..., half:]
    across = jnp.einsum("sncw,sncv->scwv", left, right)
    below = jnp.swapaxes(across, -1, -2)
    above = jnp.concatenate([_symmetric_product(left), across], axis=-1)
    return jnp.concatenate([above, jnp.concatenate([below, _symmetric_product(right)], axis=-1)], axis=-2)


def _second_moments(inputs: Array, out: Array, rows: int, order: contractions.Order) -> Array:
    stack, examples, directions = out.shape[:3]
    if out.shape[3] == 1 and inputs.shape[2] == 1 and not contractions.is_lookup(inputs):
        return jnp.einsum("sni,sno->sio", inputs[:, :, 0, 0] ** 2, jnp.mean(out[:, :, :, 0] ** 2, axis=2))
    inputs = jnp.broadcast_to(inputs, (stack, examples, directions, *inputs.shape[3:]))
    flat_inputs, flat_out = (x.reshape(stack, examples * directions, *x.shape[3:]) for x in (inputs, out))
    return contractions.second_moments(flat_inputs, flat_out, rows, order) / directions


def _decomposed(factor: Array, width: int, xp: Any) -> tuple[Any, Any]:
    """Eigenvectors and eigenvalues [stack, width] of an averaged factor, as arrays of ``xp``.

    A diagonal factor has the standard basis: no eigenvectors are returned.
    """
    if factor.ndim == 2:
        return None, factor
    stack, groups, size, _ = factor.shape
    # Padding gets an eigenvalue above all others: it comes last, to be cut off, and mixes with no null space.
    padding = (xp.arange(groups * size) >= width).reshape(groups, size)
    above = 1 + 2 * xp.trace(factor, axis1=-2, axis2=-1)
    symmetric = (factor + xp.swapaxes(factor, -1, -2)) / 2 + above[..., None, None] * padding[..., None] * xp.eye(size)
    values, vectors = np.linalg.eigh(symmetric) if xp is np else of_each_matrix(_eigh, symmetric)
    return vectors, xp.maximum(values, 0.0).reshape(stack, -1)[:, :width]


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


def _require_sums(capture: Capture, sums: Mapping[str, Any], examples: Array) -> None:
    expected, found = set(capture.blocks), set(sums)
    if expected != found:
        raise ConfigError(
            f"these factors belong to another model: they hold {sorted(found - expected)[:5]} and lack "
            f"{sorted(expected - found)[:5]}; fit them again for this one"
        )
    if not float(examples) > 0:
        raise ConfigError("these factors are sums over no examples: fit them to at least one batch")
    bad = [name for name, value in sums.items() if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(value))]
    if bad:
        raise ConfigError(f"gradients at {', '.join(bad[:5])} are not finite: look for NaN in parameters and examples")
