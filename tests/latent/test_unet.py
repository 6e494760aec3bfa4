"""The U-Net: sizes known from improved-diffusion, forms of convolution, precision and what a block may see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent.unet import Conv, TimeEmbedding, UNet, parameter_count, sinusoids

SMALL = UNet(1, channels=(8, 16), blocks=1, groups=4, heads=2, attention=(1,))


class Network(nn.Module):
    """A U-Net with its embedding and, as in improved-diffusion, an embedding of classes."""

    unet: UNet
    classes: int = 0

    @nn.compact
    def __call__(self, x, time, label):
        emb = TimeEmbedding()(time)
        if self.classes:
            emb += nn.Embed(self.classes, emb.shape[-1])(label)
        return self.unet(x, emb)


def shapes(unet, size, channels, classes=0):
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    time = jax.ShapeDtypeStruct((1,), jnp.float32)
    return jax.eval_shape(Network(unet, classes).init, jax.random.key(0), image, time, label)


@pytest.mark.parametrize(
    ("size", "channels", "widths", "attention", "classes", "expected"),
    [
        (28, 1, (1, 2, 2), (0,), 10, 35_142_401),
        (96, 4, (1, 2, 3, 4), (), 0, 109_556_356),
        (128, 3, (1, 1, 2, 2, 4, 4), (3, 4), 0, 158_790_147),
    ],
)
def test_parameter_counts_of_three_published_networks(
    size, channels, widths, attention, classes, expected, record_property
):
    unet = UNet(channels, channels=[128 * m for m in widths], attention=attention)
    count = parameter_count(shapes(unet, size, channels, classes))
    record_property("value", f"{count:,}")
    assert count == expected


@pytest.fixture(scope="module")
def small():
    x, emb = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), jax.random.normal(jax.random.key(1), (4, 6))
    params = jax.jit(SMALL.init)(jax.random.key(2), x, emb)
    return jax.tree.map(lambda p: p + 0.05 * jnp.cos(jnp.arange(p.size).reshape(p.shape)), params), x, emb


def test_zero_output_at_the_start():
    x, emb = jnp.ones((2, 8, 8, 1)), jnp.ones((2, 6))
    out = jax.jit(lambda key: SMALL.apply(SMALL.init(key, x, emb), x, emb))(jax.random.key(0))
    assert not out.any()


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (2, 2)])
def test_forms_of_convolution_agree(kernel, stride, record_property):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    native, dot = (Conv(5, kernel, stride, form=form) for form in ("native", "dot"))
    params = native.init(jax.random.key(1), x)

    def value_and_gradient(conv):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(conv.apply(p, x)))))(params)

    pairs = list(zip(*map(jax.tree.leaves, map(value_and_gradient, (native, dot))), strict=True))
    for ours, other in pairs:
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5)
    record_property("value", f"largest difference {max(float(jnp.abs(a - b).max()) for a, b in pairs):.1e}")


@pytest.mark.parametrize("option", [{"form": "dot"}, {"remat": True}])
def test_forms_and_recomputation_change_nothing(small, option):
    params, x, emb = small
    other = SMALL.clone(**option)

    def loss(module, params):
        return jnp.sum(module.apply(params, x, emb) ** 2)

    one, two = (jax.jit(jax.value_and_grad(lambda p, m=m: loss(m, p)))(params) for m in (SMALL, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), one, two)


def test_half_precision_computes_close_to_single(small):
    params, x, emb = small
    whole, half = (jax.jit(SMALL.clone(dtype=dtype).apply)(params, x, emb) for dtype in (None, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert jnp.abs(whole - half).max() < 0.05 * jnp.abs(whole).max()


@pytest.mark.parametrize("mode", ["scale_shift", "add"])
def test_the_condition_reaches_the_output_and_examples_stay_apart(small, mode):
    _, x, emb = small
    unet = SMALL.clone(mode=mode)
    params = jax.jit(unet.init)(jax.random.key(2), x, emb)
    params = jax.tree.map(lambda p: p + 0.05, params)
    apply = jax.jit(unet.apply)
    out, changed = apply(params, x, emb), apply(params, x, emb.at[1].add(1.0))
    moved = jnp.abs(out - changed).max(axis=(1, 2, 3))
    assert moved[1] > 1e-4
    assert not moved[jnp.array([0, 2, 3])].any()


def test_dropout_draws_only_in_training(small):
    params, x, emb = small
    unet = SMALL.clone(dropout=0.5)
    still = unet.apply(params, x, emb)
    np.testing.assert_allclose(still, SMALL.apply(params, x, emb), rtol=1e-5, atol=1e-5)
    drawn = unet.apply(params, x, emb, deterministic=False, rngs={"dropout": jax.random.key(0)})
    assert jnp.abs(drawn - still).max() > 1e-3


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="multiple of 2"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 7, 8, 1)), jnp.zeros((1, 6)))


def test_sinusoids_are_cosines_and_sines_of_the_time():
    out = sinusoids(jnp.array([0.0, 3.0]), 4, 100.0)
    np.testing.assert_allclose(out[0], [1, 1, 0, 0])
    np.testing.assert_allclose(out[1], [np.cos(3), np.cos(0.3), np.sin(3), np.sin(0.3)], rtol=1e-6)
