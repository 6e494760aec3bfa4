"""What curvature needs of any function of parameters: per layer, its inputs and the gradients of its outputs.

``capture`` reads the jaxpr of an unmodified function (a linen or nnx module's apply, or anything pure), finds where it
multiplies by its parameters, and returns a :class:`Capture`, which evaluates the function on one example together with
the inputs and output gradients of every such map. It composes with jit, vmap, grad, scan, pmap and sharding.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from core.checks import checked
from core.errors import ConfigError
from interp.ekfac.analysis import TAG, Findings, find
from interp.ekfac.interpreter import evaluate, plus_zero
from interp.ekfac.sites import Site, View

Kind = Literal["kronecker", "diagonal", "excluded", "unused"]
WIDEST_DIAGONAL = 2**22
"""Largest leaf whose gradient is formed for every example, where no linear map is found."""


class Record(NamedTuple):
    """Of one block: gradient = sum over positions of input_t output_gradient_t^T.

    For a block of stacked maps, ``inputs`` is [stack, positions, in] and ``gradients`` [stack, positions, out]; the
    inputs of a table are the indices [stack, positions] of its rows. A leaf without a linear map is a block of one
    position with input 1. Batches and directions of differentiation add axes after the stack.
    """

    inputs: Array
    gradients: Array


@dataclasses.dataclass(frozen=True)
class Block:
    """Parameters that form one block of the curvature: a matrix, or several of one shape."""

    name: str
    kernel: str
    """Path of the leaf that holds the weights."""
    bias: str | None
    stack: int
    rows: int
    """Inputs, with one more for the bias."""
    columns: int
    """Outputs."""
    spans: tuple[int, ...]
    """How many positions each use of the weights adds, in the order of the records."""
    is_lookup: bool
    """Whether inputs are indices of rows."""
    is_diagonal: bool
    """Whether the leaf is not the matrix of a linear map: only a diagonal curvature has a meaning."""
    to_matrix: Callable[[Mapping[str, Array]], Array]
    """Leaves by path to [stack, rows, columns]; linear."""
    from_matrix: Callable[[Array], dict[str, Array]]
    """Its transpose: a gradient as matrix to gradients of the leaves."""
    sites: tuple[tuple[int, ...], ...] = ()
    flipped: tuple[bool, ...] = ()

    @property
    def positions(self) -> int:
        """Places where the weights are applied, of one example."""
        return sum(self.spans)


class Coverage(NamedTuple):
    """What became of one parameter leaf."""

    leaf: str
    shape: tuple[int, ...]
    kind: Kind
    note: str
    """The block that holds it, or the reason why it is in none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Capture:
    """A function of one example seen as a sum of linear maps; see :func:`capture`."""

    blocks: Mapping[str, Block]
    coverage: tuple[Coverage, ...]
    _leaves: tuple[str, ...]
    _sites: Mapping[tuple[int, ...], Site]
    _jaxpr: Any
    _out_tree: Any

    def run(self, params: PyTree, example: PyTree) -> tuple[Any, Callable[[Any], dict[str, Record]]]:
        """The function's value at one example, and the records for a cotangent of that value.

        Args:
          params: parameters of the structure that was captured.
          example: one example, without a batch axis.

        Returns:
          The outputs, and ``pull(cotangent) -> {block: Record}``, which may be vmapped over cotangents.
        """
        leaves = jax.tree.leaves(params)
        spread = {self._index(block.kernel) for block in self.blocks.values() if block.is_diagonal}
        zeros = (
            {path: jnp.zeros(site.perturbation.shape, site.perturbation.dtype) for path, site in self._sites.items()},
            {index: jnp.zeros_like(leaves[index]) for index in spread},
        )

        def value(perturbations):
            at_sites, at_leaves = perturbations
            moved = [plus_zero(leaf, at_leaves[i]) if i in at_leaves else leaf for i, leaf in enumerate(leaves)]
            args = [*moved, *jax.tree.leaves(example)]
            outs, inputs = evaluate(self._jaxpr.jaxpr, self._jaxpr.consts, args, self._sites, at_sites)
            return jax.tree.unflatten(self._out_tree, outs), inputs

        outputs, transpose, inputs = jax.vjp(value, zeros, has_aux=True)

        def pull(cotangent) -> dict[str, Record]:
            at_sites, at_leaves = transpose(cotangent)[0]
            return {name: self._record(block, inputs, at_sites, at_leaves) for name, block in self.blocks.items()}

        return outputs, pull

    def _index(self, leaf: str) -> int:
        return self._leaves.index(leaf)

    def _record(self, block: Block, inputs, at_sites, at_leaves) -> Record:
        if block.is_diagonal:
            return Record(jnp.ones((1, 1, 1)), at_leaves[self._index(block.kernel)].reshape(1, 1, -1))
        parts = []
        for path, flipped in zip(block.sites, block.flipped, strict=True):
            site = self._sites[path]
            pair = site.fold(inputs[path]), site.fold_output(at_sites[path])
            parts.append(self._oriented(block, site, flipped, *pair))
        return Record(
            jnp.concatenate([inputs for inputs, _ in parts], axis=1),
            jnp.concatenate([gradients for _, gradients in parts], axis=1),
        )

    def _oriented(self, block: Block, site: Site, flipped: bool, inputs, gradients):
        if site.is_lookup and not block.is_lookup:
            inputs = jax.nn.one_hot(inputs, gradient_rows(site, block, flipped), dtype=gradients.dtype)
        if flipped:
            return gradients, inputs
        if block.bias is not None:
            inputs = jnp.concatenate([inputs, jnp.ones_like(inputs[..., :1])], axis=-1)
        return inputs, gradients


def gradient_rows(site: Site, block: Block, flipped: bool) -> int:
    """Rows of a lookup table in a block that sees it as a matrix."""
    return block.columns if flipped else block.rows


@checked
def capture(
    fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    example: PyTree,
    where: Callable[[str], bool] | str | None = None,
) -> Capture:
    """Finds the linear maps of a function of parameters and one example.

    Args:
      fn: ``(params, example) -> outputs``, e.g. ``lambda p, x: module.apply({"params": p}, x)``.
      params: the parameters, or their shapes.
      example: one example, or its shapes.
      where: which leaves to cover, by path ("layers/0/kernel"): a predicate or a regular expression to be found in the
        path; all without it.

    Raises:
      ConfigError: where a parameter can be covered in no way, or a tagged map was not found; names leaf and reason.
    """
    with_paths, tree = jax.tree_util.tree_flatten_with_path(params)
    names = tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in with_paths)
    shapes = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for _, leaf in with_paths]
    abstract = jax.tree.unflatten(tree, shapes)
    jaxpr, out_shape = jax.make_jaxpr(fn, return_shape=True)(abstract, jax.eval_shape(lambda x: x, example))
    findings = find(jaxpr, len(names))
    lost = [tag for tag, found in findings.tags.items() if not found]
    if lost:
        raise ConfigError(
            f"the tagged maps {', '.join(lost)} do not multiply by a parameter: pass dense() the parameter itself, "
            "reshaped, transposed or sliced at most"
        )
    wanted = _predicate(where)
    for index in sorted(findings.used):
        if wanted(names[index]) and not jnp.issubdtype(shapes[index].dtype, jnp.floating):
            raise ConfigError(
                f"parameter {names[index]} has type {shapes[index].dtype}: only floating-point leaves have gradients"
            )
    blocks, notes = _blocks(findings, names, shapes, wanted)
    coverage = tuple(
        Coverage(name, shape.shape, *notes.get(name, ("unused", "the outputs do not depend on it")))
        for name, shape in zip(names, shapes, strict=True)
    )
    used = {path for block in blocks.values() for path in block.sites}
    kept = {path: site for path, site in findings.sites.items() if path in used}
    return Capture(blocks, coverage, names, kept, jaxpr, jax.tree.structure(out_shape))


def dense(x: Array, kernel: Array, bias: Array | None = None, *, name: str) -> Array:
    """X @ kernel + bias with a name of its own: ``capture`` calls the block so, and refuses to miss it.

    Args:
      x: [..., in].
      kernel: [in, out].
      bias: [out].
      name: the block's name.
    """

    def linear(x, kernel, *bias):
        return sum(bias, jnp.tensordot(x, kernel, axes=1))

    linear.__name__ = f"{TAG}{name}"
    return jax.jit(linear)(x, kernel, *(() if bias is None else (bias,)))


def _predicate(where: Callable[[str], bool] | str | None) -> Callable[[str], bool]:
    if where is None:
        return lambda leaf: True
    if not isinstance(where, str):
        return where
    try:
        pattern = re.compile(where)
    except re.error as error:
        raise ConfigError(f"where is no regular expression: {where!r} has {error}") from error
    return lambda leaf: pattern.search(leaf) is not None


def _blocks(findings: Findings, names, shapes, wanted) -> tuple[dict[str, Block], dict[str, tuple[Kind, str]]]:
    """The blocks by name, and for every leaf that is used its kind and a note."""
    notes: dict[str, tuple[Kind, str]] = {}
    others = dict(findings.others)
    kernels: dict[int, list[Site]] = {}
    for site in findings.sites.values():
        kernels.setdefault(site.leaf, []).append(site)
    biases = _consistent_biases(findings, kernels, others)
    blocks: dict[str, Block] = {}
    for leaf, group in kernels.items():
        if leaf in others or not wanted(names[leaf]):
            continue
        uses = _uses(group, shapes[leaf])
        if uses is None:
            others[leaf] = "is used in overlapping parts"
            continue
        for part, use in enumerate(uses):
            bias = biases.get(use[0][0].path)
            bias = bias if bias is not None and wanted(names[bias[0]]) else None
            block = _matrix_block(_name(use, names, leaf, part, len(uses)), use, bias, names, shapes)
            blocks[block.name] = block
            notes[names[leaf]] = (
                "kronecker",
                ", ".join(filter(None, (notes.get(names[leaf], ("", ""))[1], block.name))),
            )
            if bias is not None:
                notes[names[bias[0]]] = ("kronecker", f"{block.name} (bias)")
    for leaf in sorted(findings.used):
        if names[leaf] in notes:
            continue
        if not wanted(names[leaf]):
            notes[names[leaf]] = ("excluded", "by the filter")
            continue
        reason = others.get(leaf, "is added to the result of another map")
        blocks[names[leaf]] = _diagonal_block(names[leaf], shapes[leaf], reason)
        notes[names[leaf]] = ("diagonal", reason)
    return blocks, notes


def _consistent_biases(findings: Findings, kernels, others) -> dict[tuple[int, ...], tuple[int, View]]:
    """By path, the biases that may join their kernel's matrix: one and the same at all of the kernel's sites."""
    found: dict[tuple[int, ...], tuple[int, View]] = {}
    owners: dict[int, set[int]] = {}
    for site in findings.sites.values():
        if site.bias is not None:
            owners.setdefault(site.bias[0], set()).add(site.leaf)
    for leaf, group in kernels.items():
        leaves = {site.bias[0] if site.bias else None for site in group}
        bias = group[0].bias
        if len(leaves) == 1 and bias and bias[0] not in others and len(owners[bias[0]]) == 1 and leaf not in others:
            found.update({site.path: bias for site in group})
    return found


def _uses(group: list[Site], shape) -> list[list[tuple[Site, bool]]] | None:
    """A leaf's sites by the part that they use, each with whether it uses the transpose; None if parts overlap."""
    if len(group) == 1:
        return [[(group[0], False)]]
    entries = jnp.arange(math.prod(shape.shape)).reshape(shape.shape)
    parts: list[tuple[np.ndarray, list[tuple[Site, bool]]]] = []
    for site in sorted(group, key=lambda site: not site.is_lookup):
        mine = np.asarray(site.kernel(entries))
        for theirs, members in parts:
            if np.array_equal(theirs, mine):
                members.append((site, False))
                break
            if np.array_equal(theirs, np.swapaxes(mine, 1, 2)):
                members.append((site, True))
                break
            if np.intersect1d(theirs, mine).size:
                return None
        else:
            parts.append((mine, [(site, False)]))
    return [members for _, members in parts]


def _name(use, names, leaf: int, part: int, parts: int) -> str:
    tag = next((site.tag for site, _ in use if site.tag), None)
    if tag is not None:
        return tag
    return names[leaf] if parts == 1 else f"{names[leaf]}[{part}]"


def _matrix_block(name: str, use, bias, names, shapes) -> Block:
    site: Site = use[0][0]
    flipped = tuple(flip for _, flip in use)
    leaf = shapes[site.leaf]
    if any(flipped):
        bias = None
    weights = jax.eval_shape(site.kernel, leaf)
    stack, rows, columns = weights.shape
    spans = tuple(
        math.prod(frame.length for frame in s.frames if not frame.stacked) * jax.eval_shape(s.output, s.result).shape[1]
        for s, _ in use
    )
    to_matrix, from_matrix = _views(names, shapes, (site.leaf, site.kernel), bias)
    return Block(
        name,
        names[site.leaf],
        names[bias[0]] if bias else None,
        stack,
        rows + (bias is not None),
        columns,
        spans,
        is_lookup=all(s.is_lookup and not flip for s, flip in use),
        is_diagonal=False,
        to_matrix=to_matrix,
        from_matrix=from_matrix,
        sites=tuple(s.path for s, _ in use),
        flipped=flipped,
    )


def _views(names, shapes, kernel: tuple[int, View], bias: tuple[int, View] | None):
    """Leaves to matrix, with the bias as last row, and its transpose."""

    def to_matrix(leaves):
        weights = kernel[1](leaves[names[kernel[0]]])
        if bias is None:
            return weights
        return jnp.concatenate([weights, bias[1](leaves[names[bias[0]]])[:, None]], axis=1)

    taken = {names[index]: shapes[index] for index, _ in (kernel, *((bias,) if bias else ()))}

    def from_matrix(matrix):
        of_type = {name: jax.ShapeDtypeStruct(shape.shape, matrix.dtype) for name, shape in taken.items()}
        return jax.linear_transpose(to_matrix, of_type)(matrix)[0]

    return to_matrix, from_matrix


def _diagonal_block(name: str, shape, reason: str) -> Block:
    size = math.prod(shape.shape)
    if size > WIDEST_DIAGONAL:
        raise ConfigError(
            f"parameter {name} {shape.shape} {reason}, and is too large to form its gradient for every example: "
            "exclude it with where=..., or compute it as x @ kernel (see dense())"
        )
    to_matrix = functools.partial(lambda leaves: leaves[name].reshape(1, 1, -1))
    return Block(
        name, name, None, 1, 1, size, (1,), is_lookup=False, is_diagonal=True,
        to_matrix=to_matrix, from_matrix=lambda matrix: {name: matrix.reshape(shape.shape)},
    )  # fmt: skip
