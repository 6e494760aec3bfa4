"""The convolution and all its derivatives are those of lax, however they are transformed and wherever they run."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.sharding import PartitionSpec as P

from core.conv import Conv, conv
from core.parallel import data_mesh

NAMES = ("NHWC", "HWIO", "NHWC")


def of_lax(x, kernel, stride=1, padding="SAME", *, transposed=False):
    if transposed:
        return jax.lax.conv_transpose(x, kernel, (stride,) * 2, padding, dimension_numbers=NAMES)
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=NAMES)


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(ours, theirs, rtol=2e-4):
    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max(initial=1)))

    jax.tree.map(compare, ours, theirs)


def derivatives(convolution, x, kernel):
    """The value, gradients, a product with the Hessian, and gradients of a function of gradients."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(convolution(x, kernel)))

    def of_gradients(x, kernel):
        return sum(jnp.sum(jnp.cos(g)) for g in jax.grad(loss, (0, 1))(x, kernel))

    gradients, product = jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (jnp.cos(x), jnp.cos(kernel)))
    return convolution(x, kernel), gradients, product, jax.grad(of_gradients, (0, 1))(x, kernel)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    space=st.tuples(st.integers(5, 7), st.integers(4, 6)),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID", ((2, 0), (1, 3)), ((0, -1), (-1, 1))]),
    transposed=st.booleans(),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_values_gradients_and_second_derivatives_are_those_of_lax(size, space, stride, padding, transposed, channels):
    options = {"stride": stride, "padding": padding, "transposed": transposed}
    x, kernel = drawn(2, *space, channels[0]), drawn(*size, *channels, seed=1)
    if 0 in jax.eval_shape(lambda: of_lax(x, kernel, **options)).shape:
        return
    ours, theirs = (
        jax.jit(functools.partial(derivatives, functools.partial(fn, **options)))(x, kernel) for fn in (conv, of_lax)
    )
    assert_close(ours, theirs)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, -1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_over_images_kernels_and_both_equals_one_after_another(axes, stride):
    x, kernel = drawn(4, 5, 6, 2), drawn(3, 2, 2, 3, seed=1)
    x = x if axes[0] is None else jnp.stack([x, 2 * x, -x], axes[0])
    kernel = kernel if axes[1] is None else jnp.stack([kernel, kernel + 1, -kernel], axes[1])
    ours = jax.jit(jax.vmap(functools.partial(derivatives, functools.partial(conv, stride=stride)), axes))(x, kernel)
    for i in range(3):
        one = [a if axis is None else jnp.take(a, i, axis) for a, axis in zip((x, kernel), axes, strict=True)]
        theirs = derivatives(functools.partial(of_lax, stride=stride), *one)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], ours), theirs)


def test_vmap_of_vmap_and_gradients_of_vmap_agree():
    x, kernel = drawn(2, 3, 4, 5, 5, 2), drawn(3, 3, 3, 2, 2, seed=1)

    def loss(fn):
        mapped = jax.vmap(jax.vmap(fn), (0, None))  # over pairs, then over images of every pair
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.sin(mapped(x, kernel))), (0, 1)))

    assert_close(loss(conv)(x, kernel), loss(of_lax)(x, kernel))


def test_a_scan_of_training_steps_equals_the_steps():
    x, kernel = drawn(4, 6, 6, 3), 0.1 * drawn(3, 3, 3, 3, seed=1)

    def step(fn, kernel):
        return kernel - 0.01 * jax.grad(lambda kernel: jnp.sum(fn(jnp.sin(fn(x, kernel)), kernel) ** 2))(kernel)

    scanned = jax.jit(lambda kernel: jax.lax.scan(lambda k, _: (step(conv, k), None), kernel, length=3)[0])(kernel)
    expected = kernel
    for _ in range(3):
        expected = jax.jit(functools.partial(step, of_lax))(expected)
    assert_close(scanned, expected)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes_are_convolved_too(axes):
    x, kernel = drawn(2, *(5, 4, 3)[:axes], 2), drawn(*(3, 2, 2)[:axes], 2, 3, seed=1)
    numbers = jax.lax.conv_dimension_numbers(
        x.shape, kernel.shape, (("NWC", "WIO", "NWC") if axes == 1 else ("NDHWC", "DHWIO", "NDHWC"))
    )

    def theirs(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2,) * axes, "SAME", dimension_numbers=numbers)

    ours = functools.partial(conv, stride=2)
    assert_close(
        jax.jit(functools.partial(derivatives, ours))(x, kernel),
        jax.jit(functools.partial(derivatives, theirs))(x, kernel),
    )


def test_leading_axes_are_examples_and_may_be_missing():
    x, kernel = drawn(2, 3, 5, 4, 2), drawn(3, 3, 2, 3, seed=1)
    whole = conv(x, kernel)
    np.testing.assert_allclose(whole[1, 2], conv(x[1, 2], kernel), rtol=1e-5, atol=1e-5)


def test_half_precision_stays_half_and_is_close():
    x, kernel = drawn(2, 6, 6, 4), drawn(3, 3, 4, 4, seed=1)
    all_of = jax.jit(functools.partial(derivatives, conv))
    half = all_of(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half))
    assert_close(jax.tree.map(jnp.float32, half[:2]), all_of(x, kernel)[:2], rtol=0.05)


def test_devices_share_the_examples_of_a_shard_map():
    x, kernel = drawn(8, 5, 5, 2), drawn(3, 3, 2, 3, seed=1)
    mesh = data_mesh()

    def local(x, kernel):
        return jax.grad(lambda kernel: jnp.sum(jnp.sin(conv(x, kernel))))(kernel)

    shared = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P()), out_specs=P()))(x, kernel)
    assert_close(shared, local(x, kernel))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_derivatives_of_mapped_kernels_lower_for_every_platform_without_several_groups_on_the_cpu(platform):
    x, kernel = drawn(3, 2, 5, 5, 2), drawn(3, 3, 3, 2, 3, seed=1)
    lowered = (
        jax.jit(jax.vmap(functools.partial(derivatives, conv))).trace(x, kernel).lower(lowering_platforms=(platform,))
    )
    assert ("group_count = 3" in lowered.as_text()) == (platform != "cpu")


def plain_convolutions(text):
    """The layouts of all convolutions of a program."""
    found = text.split("stablehlo.convolution")[1:]
    return {part.split("dim_numbers = ")[1].split(", window")[0] for part in found}


def test_on_the_cpu_every_derivative_is_written_as_a_forward_pass():
    x, kernel = drawn(2, 5, 5, 2), drawn(3, 3, 2, 3, seed=1)
    text = jax.jit(functools.partial(derivatives, conv)).lower(x, kernel).as_text()
    assert plain_convolutions(text) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (2, 2)])
def test_forms_of_convolution_agree(kernel, stride, record_property):
    x, params = drawn(2, 8, 6, 3), {"kernel": drawn(kernel, kernel, 3, 5, seed=1) / kernel, "bias": drawn(5, seed=2)}
    layer, pad = Conv(5, kernel, stride), (kernel - 1) // 2

    def written_by_lax(params, x):
        return of_lax(x, params["kernel"], stride, [(pad, pad)] * 2) + params["bias"]

    def value_and_gradients(fn):
        return jax.jit(jax.value_and_grad(lambda *operands: jnp.mean(jnp.sin(fn(*operands))), (0, 1)))(params, x)

    ours = value_and_gradients(lambda params, x: layer.apply({"params": params}, x))
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ours, value_and_gradients(written_by_lax))
    record_property("value", f"largest difference {max(jax.tree.leaves(gaps)):.1e}")
    assert max(jax.tree.leaves(gaps)) < 1e-5


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (4, 2)])
def test_a_transposed_layer_undoes_what_a_layer_does_to_shapes(kernel, stride):
    x, down, up = drawn(2, 8, 6, 3), Conv(5, kernel, stride), Conv(3, kernel, stride, padding="SAME", transposed=True)
    halved = jax.eval_shape(down.init_with_output, jax.random.key(0), x)[0]
    assert halved.shape == (2, 4, 3, 5)
    assert jax.eval_shape(up.init_with_output, jax.random.key(0), halved)[0].shape == x.shape


def test_operands_that_do_not_fit_are_refused_with_their_shapes():
    for x, kernel in itertools.product([drawn(2, 5, 5, 3)], [drawn(3, 3, 2, 4), drawn(3, 4), drawn(3, 3, 3, 3, 3, 4)]):
        with pytest.raises(ValueError, match=r"an image \(2, 5, 5, 3\) and a kernel .* do not fit"):
            conv(x, kernel)
