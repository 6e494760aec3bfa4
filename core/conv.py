"""Convolutions that cost the same inside and outside of loops, under ``vmap`` and in derivatives of any order.

    convolve:          y[t]  = sum_u  x[s t + u - p] W[u]       u over the offsets of a kernel
    kernel_gradient:   dW[u] = sum_t  x[s t + u - p]^T g[t]

Both are bilinear, and together they are closed under differentiation, forward and reverse: the derivative of
``convolve`` by its input is ``convolve`` with the kernel flipped, by its kernel ``kernel_gradient``; those of
``kernel_gradient`` are ``convolve`` again. With a leading axis of kernels they are closed under ``vmap`` as well. So
they are primitives of JAX with these rules.

How they are computed is decided where a program is lowered for a platform. On accelerators they are XLA's convolutions.
XLA's CPU backend is fast only at what a forward pass with one kernel writes: as JAX writes it, the gradient of a kernel
takes a hundred times longer inside a loop than outside, and kernels under ``vmap`` become a grouped convolution, six
times slower than one after another. There every gradient is written as a forward pass, and kernels are taken in turn.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Num

from core.checks import Count, checked
from core.errors import ConfigError

Sizes = tuple[int, ...]
Padding = Literal["SAME", "VALID"] | int | Sequence[tuple[int, int]]
"""By name, the same number at every end, or (before, after) of every axis."""


class Window(NamedTuple):
    """How a kernel meets an image; an entry per axis of space."""

    size: Sizes
    """Of the kernel."""
    stride: Sizes
    """Between outputs, in places of the spread and padded image."""
    spread: Sizes
    """Between pixels of the image: one less is the number of zeros put between neighbours."""
    padding: tuple[tuple[int, int], ...]
    """Zeros before and after the spread image; negative numbers crop."""

    def outputs(self, inputs: Sequence[int]) -> Sizes:
        """The result's shape in space."""
        return tuple(
            ((n - 1) * spread + 1 + low + high - size) // stride + 1
            for n, size, stride, spread, (low, high) in zip(inputs, *self, strict=True)
        )

    def transposed(self, inputs: Sequence[int]) -> "Window":
        """The window by which the flipped kernel takes cotangents of the result back to the image [inputs]."""
        padding = []
        for n, m, size, stride, spread, (low, _) in zip(inputs, self.outputs(inputs), *self, strict=True):
            padding.append((size - 1 - low, (n - 1) * spread - (m - 1) * stride + low))
        return Window(self.size, self.spread, self.stride, tuple(padding))

    def views(self, x: Float[Array, "kernels batch ... channels"]) -> list[Float[Array, "kernels batch ... channels"]]:
        """What each offset of the kernel is multiplied by, at all outputs; offsets in the order of memory."""
        edges = [(low, high, gap - 1) for (low, high), gap in zip(self.padding, self.spread, strict=True)]
        outputs = self.outputs(x.shape[2:-1])
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *edges, (0, 0, 0)])
        spans = [(count - 1) * step + 1 for count, step in zip(outputs, self.stride, strict=True)]

        def view(offset: Sizes):
            places = zip(offset, spans, self.stride, strict=True)
            return x[:, :, *(slice(start, start + span, step) for start, span, step in places)]

        return [view(offset) for offset in itertools.product(*map(range, self.size))]


@checked
def conv(
    x: Num[Array, "... channels"],
    kernel: Float[Array, "... inputs features"],
    stride: Count | Sequence[Count] = 1,
    padding: Padding = "SAME",
    *,
    transposed: bool = False,
) -> Float[Array, "... features"]:
    """The convolution of neural networks (a cross-correlation) over as many axes as the kernel has.

    Args:
      x: images, signals or volumes, channels last, with any number of leading axes.
      kernel: a matrix per offset, of any odd or even size; as many inputs as channels.
      stride: of the window; where ``transposed``, the factor by which the image grows.
      padding: zeros around the image. "SAME" gives ceil(length / stride) outputs, or length times stride where
        ``transposed``; "VALID" only windows that lie in the image, or all outputs that a pixel reaches.
      transposed: the image is spread by the stride and the window moves by one, as in :func:`jax.lax.conv_transpose`.

    Raises:
      ConfigError: where axes or channels do not fit, or the window lies nowhere in the padded image.
    """
    axes = kernel.ndim - 2
    if not 1 <= axes <= 3 or x.ndim <= axes or x.shape[-1] != kernel.shape[-2]:
        raise ConfigError(
            f"an image {x.shape} and a kernel {kernel.shape} do not fit: expected [..., *space, channels] and "
            "[*size, channels, features] with as many axes of space as of size, one to three, and equal channels"
        )
    batch, image = x.shape[: x.ndim - axes - 1], x.shape[x.ndim - axes - 1 :]
    steps = (stride,) * axes if isinstance(stride, (int, np.integer)) else tuple(stride)
    pads = _pads(padding, image[:-1], kernel.shape[:-2], steps, transposed)
    still = (1,) * axes
    window = Window(kernel.shape[:-2], *((still, steps) if transposed else (steps, still)), pads)
    if min(window.outputs(image[:-1])) < 1:
        raise ConfigError(
            f"conv: a window of {kernel.shape[:-2]} lies nowhere in an image of {image[:-1]} padded by {pads}"
        )
    x, kernel = _varying_alike(*promote_dtype(x, kernel))
    y = convolve_p.bind(x.reshape(1, math.prod(batch), *image), kernel[None], window=window)
    return y.reshape(*batch, *y.shape[2:])


@checked
class Conv(nn.Module):
    """A layer: the convolved image plus a bias; see :func:`conv`."""

    features: Count
    kernel: Count | Sequence[Count] = 3
    """Its size, along both axes of an image if one number."""
    stride: Count = 1
    padding: Padding | None = None
    """(size - 1) // 2 zeros at both ends of an axis if None, as networks published with PyTorch have it."""
    transposed: bool = False
    zero: bool = False
    """Whether the kernel starts at zero."""
    dtype: Any = None
    """Type of the computation; that of parameters and image if None."""

    @nn.compact
    def __call__(self, x: Float[Array, "... channels"]) -> Float[Array, "... features"]:
        """The convolved image."""
        size = (self.kernel,) * 2 if isinstance(self.kernel, (int, np.integer)) else tuple(self.kernel)
        padding = [((k - 1) // 2, (k - 1) // 2) for k in size] if self.padding is None else self.padding
        start = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", start, (*size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv(x, kernel, self.stride, padding, transposed=self.transposed) + bias


def _pads(padding: Padding, space: Sizes, size: Sizes, stride: Sizes, transposed: bool) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, (int, np.integer)):
        return ((padding, padding),) * len(size)
    if not isinstance(padding, str):
        return tuple((low, high) for low, high in padding)
    if not transposed:
        return tuple(jax.lax.padtype_to_pads(space, size, stride, padding))
    # All that a pixel reaches is size - 1 zeros at both ends, and the last window may end beyond the last pixel.
    whole = [size + step - 2 + max(size - step, 0) for size, step in zip(size, stride, strict=True)]
    if padding == "VALID":
        return tuple((size - 1, total - size + 1) for size, total in zip(size, whole, strict=True))
    pads = []
    for width, step in zip(size, stride, strict=True):
        before = width - 1 if step >= width else math.ceil((width + step - 2) / 2)
        pads.append((before, width + step - 2 - before))
    return tuple(pads)


def _varying_alike(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Both marked as different on every device of a ``shard_map`` where one of them is."""
    axes = jax.typeof(x).mat.varying | jax.typeof(kernel).mat.varying

    def marked(array):
        missing = tuple(axes - jax.typeof(array).mat.varying)
        return jax.lax.pcast(array, missing, to="varying") if missing else array

    return marked(x), marked(kernel)


# Primitives: images [kernels, batch, *space, channels], kernels [kernels, *size, channels, features].

convolve_p = Primitive("convolve")
kernel_gradient_p = Primitive("kernel_gradient")


@convolve_p.def_abstract_eval
def _convolve_shape(x: Any, kernel: Any, *, window: Window):
    shape = (*x.shape[:2], *window.outputs(x.shape[2:-1]), kernel.shape[-1])
    return x.update(shape=shape, weak_type=False)


@kernel_gradient_p.def_abstract_eval
def _kernel_gradient_shape(x: Any, g: Any, *, window: Window):
    return x.update(shape=(x.shape[0], *window.size, x.shape[-1], g.shape[-1]), weak_type=False)


def _flipped(kernel: Array) -> Array:
    """Every kernel reversed in space, from features to channels."""
    return jnp.swapaxes(jnp.flip(kernel, range(1, kernel.ndim - 2)), -1, -2)


def _image_cotangent(g: Array, x: Any, kernel: Array, *, window: Window) -> Array:
    return convolve_p.bind(g, _flipped(kernel), window=window.transposed(x.aval.shape[2:-1]))


def _kernel_cotangent(g: Array, x: Array, kernel: Any, *, window: Window) -> Array:
    return kernel_gradient_p.bind(x, g, window=window)


def _gradient_image_cotangent(u: Array, x: Any, g: Array, *, window: Window) -> Array:
    return convolve_p.bind(g, _flipped(u), window=window.transposed(x.aval.shape[2:-1]))


def _gradient_output_cotangent(u: Array, x: Array, g: Any, *, window: Window) -> Array:
    return convolve_p.bind(x, u, window=window)


ad.defbilinear(convolve_p, _image_cotangent, _kernel_cotangent)
ad.defbilinear(kernel_gradient_p, _gradient_image_cotangent, _gradient_output_cotangent)


def _mapped_convolve(operands: Sequence[Array], axes: Sequence[int | None], *, window: Window):
    (x, kernel), (over_x, over_kernel) = operands, axes
    if over_kernel is None:  # more examples
        mapped, split = _into(x, over_x, 1)
        return split(convolve_p.bind(mapped, kernel, window=window), 1)
    if over_x is None:  # more features
        mapped, split = _into(kernel, over_kernel, -1)
        return split(convolve_p.bind(x, mapped, window=window), -1)
    x, split = _into(x, over_x, 0)
    return split(convolve_p.bind(x, _into(kernel, over_kernel, 0)[0], window=window), 0)


def _mapped_kernel_gradient(operands: Sequence[Array], axes: Sequence[int | None], *, window: Window):
    (x, g), (over_x, over_g) = operands, axes
    if over_g is None:  # more channels
        mapped, split = _into(x, over_x, -1)
        return split(kernel_gradient_p.bind(mapped, g, window=window), -2)
    if over_x is None:  # more features
        mapped, split = _into(g, over_g, -1)
        return split(kernel_gradient_p.bind(x, mapped, window=window), -1)
    x, split = _into(x, over_x, 0)
    return split(kernel_gradient_p.bind(x, _into(g, over_g, 0)[0], window=window), 0)


def _into(array: Array, mapped: Any, axis: int) -> tuple[Array, Callable[[Array, int], tuple[Array, int]]]:
    """The array with its mapped axis joined to another one, and how to split an axis of a result again."""
    rank, size = array.ndim - 1, array.shape[mapped]
    axis %= rank
    moved = jnp.moveaxis(array, mapped, axis)
    joined = moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])

    def split(result: Array, axis: int) -> tuple[Array, int]:
        axis %= result.ndim
        return result.reshape(*result.shape[:axis], size, -1, *result.shape[axis + 1 :]), axis

    return joined, split


batching.primitive_batchers[convolve_p] = _mapped_convolve
batching.primitive_batchers[kernel_gradient_p] = _mapped_kernel_gradient


# How they are computed.


def _convolve(x: Array, kernel: Array, window: Window, dilation: Sizes | None = None) -> Array:
    """XLA's convolution with one kernel, whose entries lie ``dilation`` apart."""
    space = "DHW"[3 - len(window.size) :]
    return jax.lax.conv_general_dilated(
        x, kernel, window.stride, window.padding, window.spread, dilation, (f"N{space}C", f"{space}IO", f"N{space}C")
    )


def _kernel_gradient(x: Array, g: Array, window: Window) -> Array:
    """XLA's derivative of its convolution."""
    kernel = jax.ShapeDtypeStruct((*window.size, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _convolve(x, kernel, window), kernel)(g)[0]


def _kernel_gradient_as_convolution(x: Array, g: Array, window: Window) -> Array:
    """The gradient of one kernel, written as a forward pass: examples are the channels, cotangents the kernel."""
    axes = len(window.size)
    padding = []
    for n, m, size, stride, spread, (low, _) in zip(x.shape[1:-1], g.shape[1:-1], *window, strict=True):
        padding.append((low, size - 1 + (m - 1) * stride - (n - 1) * spread - low))
    found = Window(g.shape[1:-1], (1,) * axes, window.spread, tuple(padding))
    return jnp.moveaxis(_convolve(jnp.swapaxes(x, 0, -1), jnp.moveaxis(g, 0, -2), found, window.stride), 0, -2)


def _over_kernels(one: Callable[..., Array], several: Callable[..., Callable]) -> Callable[..., Array]:
    """A function of operands with a leading axis of kernels."""

    def compute(a: Array, b: Array, *, window: Window) -> Array:
        of_one = functools.partial(one, window=window)
        return of_one(a[0], b[0])[None] if a.shape[0] == 1 else several(of_one)(a, b)

    return compute


def _in_turn(fn: Callable[..., Array]) -> Callable[..., Array]:
    return lambda a, b: jax.lax.map(lambda pair: fn(*pair), (a, b))


def _define(primitive: Primitive, anywhere: Callable[..., Array], on_cpu: Callable[..., Array]) -> None:
    everywhere = mlir.lower_fun(_over_kernels(anywhere, jax.vmap), multiple_results=False)
    mlir.register_lowering(primitive, everywhere)
    cpu = mlir.lower_fun(_over_kernels(on_cpu, _in_turn), multiple_results=False)
    mlir.register_lowering(primitive, cpu, platform="cpu")

    @functools.cache
    def compiled(window: Window) -> Callable[..., Array]:
        return jax.jit(lambda a, b: primitive.bind(a, b, window=window))

    primitive.def_impl(lambda a, b, *, window: compiled(window)(a, b))


_define(convolve_p, _convolve, _convolve)
_define(kernel_gradient_p, _kernel_gradient, _kernel_gradient_as_convolution)
