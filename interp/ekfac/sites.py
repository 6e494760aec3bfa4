"""Where a function multiplies by its parameters: a linear map found in a jaxpr, in canonical form.

A *site* is one equation z = x W. Whatever the axes of that equation, its inputs are brought to [stack, positions, in],
the gradients of its outputs to [stack, positions, out], and its weights to [stack, in, out]: ``stack`` are independent
maps (layers of a scan, experts, groups of a convolution), ``positions`` the places where one map is applied (time,
pixels, steps of a recurrence), so that the gradient of the weights is sum_t input_t output_gradient_t^T.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.conv import Window

View = Callable[[Any], Any]
"""A linear rearrangement of a parameter leaf: reshapes, transposes and slices."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A scan around a site: how long, and whether the weights are sliced by it (a stack) or reused (positions)."""

    length: int
    stacked: bool


@dataclasses.dataclass(frozen=True)
class Site:
    """One linear map. ``inputs`` and ``output`` act on the arrays of one iteration of the scans around it."""

    path: tuple[int, ...]
    """Indices of equations from the outermost jaxpr inwards: where the site is."""
    leaf: int
    kernel: View
    """Leaf to weights [stack, in, out]."""
    inputs: Callable[..., Any]
    """The equation's operands to inputs [stack, positions, in], or to the indices of rows [positions] of a table."""
    output: View
    """The equation's result to [stack, positions, out]."""
    result: jax.ShapeDtypeStruct
    frames: tuple[Frame, ...] = ()
    is_lookup: bool = False
    bias: tuple[int, View] | None = None
    """The leaf added to the result and its view as [stack, out]."""
    tag: str | None = None

    @property
    def perturbation(self) -> jax.ShapeDtypeStruct:
        """Shape of the zeros added to the result over all iterations of the scans around it."""
        lengths = tuple(frame.length for frame in self.frames)
        return jax.ShapeDtypeStruct((*lengths, *self.result.shape), self.result.dtype)

    def fold(self, values: Any) -> Any:
        """[scans..., stack, positions, ...] to [stack, positions, ...]: sliced scans join the stack, others positions.

        For lookups, [scans..., positions] to [1, positions].
        """
        depth = len(self.frames)
        if self.is_lookup and values.ndim == depth + 1:
            values = jnp.expand_dims(values, depth)
        stacked = [i for i, frame in enumerate(self.frames) if frame.stacked]
        shared = [i for i, frame in enumerate(self.frames) if not frame.stacked]
        values = jnp.transpose(values, (*stacked, depth, *shared, *range(depth + 1, values.ndim)))
        stack = math.prod(values.shape[: len(stacked) + 1])
        positions = math.prod(values.shape[len(stacked) + 1 : depth + 2])
        return values.reshape(stack, positions, *values.shape[depth + 2 :])

    def fold_output(self, gradient: Any) -> Any:
        """The gradient of the perturbation to [stack, positions, out]."""
        return self.fold(lift(self.output, len(self.frames))(gradient))


def lift(fn: Callable, levels: int) -> Callable:
    """The function mapped over that many leading axes."""
    for _ in range(levels):
        fn = jax.vmap(fn)
    return fn


def dense(eqn: Any, side: int) -> tuple[View, Callable[..., Any], View]:
    """Canonical forms of ``dot_general`` whose operand number ``side`` is the weights: (kernel, inputs, output)."""
    contracted, batched = eqn.params["dimension_numbers"]
    data = 1 - side
    ranks = [len(operand.aval.shape) for operand in eqn.invars]

    def free(operand: int) -> list[int]:
        taken = {*contracted[operand], *batched[operand]}
        return [axis for axis in range(ranks[operand]) if axis not in taken]

    def arranged(operand: int, *groups: Sequence[int]) -> View:
        def view(array):
            sizes = [math.prod(array.shape[axis] for axis in group) for group in groups]
            return jnp.transpose(array, [axis for group in groups for axis in group]).reshape(sizes)

        return view

    kernel = arranged(side, batched[side], contracted[side], free(side))
    inputs = arranged(data, batched[data], free(data), contracted[data])
    stack = list(range(len(batched[0])))
    left = list(range(len(stack), len(stack) + len(free(0))))
    right = list(range(len(stack) + len(left), len(stack) + len(left) + len(free(1))))
    positions, out = (left, right) if side == 1 else (right, left)
    return kernel, lambda *operands: inputs(operands[data]), arranged(-1, stack, positions, out)


def lookup(eqn: Any) -> tuple[View, Callable[..., Any], View] | None:
    """Canonical forms of a ``gather`` that takes whole rows of a table; None for other gathers."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    table = eqn.invars[0].aval.shape
    rows_only = (
        numbers.collapsed_slice_dims == (0,)
        and numbers.start_index_map == (0,)
        and not numbers.operand_batching_dims
        and tuple(sizes) == (1, *table[1:])
    )
    if not rows_only:
        return None
    rank = len(eqn.outvars[0].aval.shape)
    kept = [axis for axis in range(rank) if axis not in numbers.offset_dims]

    def output(array):
        moved = jnp.transpose(array, (*kept, *numbers.offset_dims))
        return moved.reshape(1, -1, math.prod(table[1:]))

    return (
        lambda leaf: leaf.reshape(1, table[0], -1),
        lambda operand, indices: indices[..., 0].ravel(),
        output,
    )


def convolution(eqn: Any) -> tuple[View, Callable[..., Any], View] | None:
    """Canonical forms of a convolution with filters as weights; None where examples are convolved in groups."""
    p = eqn.params
    if p["batch_group_count"] != 1:
        return None
    numbers, groups = p["dimension_numbers"], p["feature_group_count"]
    filters = eqn.invars[1].aval.shape
    spatial = tuple(filters[axis] for axis in numbers.rhs_spec[2:])
    extent = [d * (k - 1) + 1 for k, d in zip(spatial, p["rhs_dilation"], strict=True)]

    def kernel(leaf):
        moved = jnp.transpose(leaf, numbers.rhs_spec)
        per_group = moved.reshape(groups, filters[numbers.rhs_spec[0]] // groups, -1)
        return jnp.swapaxes(per_group, 1, 2)

    def inputs(image, _):
        image = jnp.transpose(image, numbers.lhs_spec)
        padding = [(low, high, d - 1) for (low, high), d in zip(p["padding"], p["lhs_dilation"], strict=True)]
        image = jax.lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), (0, 0, 0), *padding])
        places = [
            (size - width) // stride + 1
            for size, width, stride in zip(image.shape[2:], extent, p["window_strides"], strict=True)
        ]
        patches = []
        for offset in np.ndindex(*spatial):
            start = [o * d for o, d in zip(offset, p["rhs_dilation"], strict=True)]
            stop = [s + (n - 1) * w + 1 for s, n, w in zip(start, places, p["window_strides"], strict=True)]
            strides = (1, 1, *p["window_strides"])
            patches.append(jax.lax.slice(image, (0, 0, *start), (*image.shape[:2], *stop), strides))
        stacked = jnp.stack(patches, axis=2)  # [batch, channels, offsets, places...]
        batch, channels, offsets = stacked.shape[:3]
        flat = stacked.reshape(batch, groups, (channels // groups) * offsets, -1)
        return jnp.transpose(flat, (1, 0, 3, 2)).reshape(groups, -1, flat.shape[2])

    def output(array):
        moved = jnp.transpose(array, numbers.out_spec)
        flat = moved.reshape(moved.shape[0], groups, moved.shape[1] // groups, -1)
        return jnp.transpose(flat, (1, 0, 3, 2)).reshape(groups, -1, flat.shape[2])

    return kernel, inputs, output


def stacked_convolution(eqn: Any) -> tuple[View, Callable[..., Any], View]:
    """Canonical forms of :func:`core.conv.conv` with its kernels as weights; a stack where it was vmapped."""
    window: Window = eqn.params["window"]
    kernels, *_, channels, features = eqn.invars[1].aval.shape

    def inputs(images, _):
        seen = jnp.concatenate(window.views(images), axis=-1)
        return seen.reshape(kernels, -1, math.prod(window.size) * channels)

    return (
        lambda leaf: leaf.reshape(kernels, -1, features),
        inputs,
        lambda array: array.reshape(kernels, -1, features),
    )
