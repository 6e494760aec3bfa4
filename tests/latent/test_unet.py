"""The U-Net: sizes known from improved-diffusion, precision and what a block may see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.learner import DATA_AXIS
from latent.unet import TimeEmbedding, UNet, parameter_count, sinusoids

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


def filled(unet, x, emb):
    """Parameters without compiling an initialiser: kernels of the usual size, scales near one, nothing zero."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        size = np.prod(leaf.shape[:-1]) ** -0.5 if name == "kernel" else 0.1
        return np.float32(name == "scale") + size * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(unet.init, jax.random.key(2), x, emb))


@pytest.fixture(scope="module")
def small():
    x, emb = np.random.default_rng(1).normal(size=(4, 8, 8, 1)), np.random.default_rng(2).normal(size=(4, 6))
    x, emb = x.astype(np.float32), emb.astype(np.float32)
    return filled(SMALL, x, emb), x, emb


def value_and_gradient(module, small):
    params, x, emb = small
    return jax.jit(jax.value_and_grad(lambda p: jnp.sum(module.apply(p, x, emb) ** 2)))(params)


@pytest.fixture(scope="module")
def derived(small):
    return value_and_gradient(SMALL, small)


def test_zero_output_at_the_start():
    x, emb = jnp.ones((2, 8, 8, 1)), jnp.ones((2, 6))
    out = jax.jit(lambda key: SMALL.apply(SMALL.init(key, x, emb), x, emb))(jax.random.key(0))
    assert not out.any()


def test_recomputation_changes_nothing(small, derived):
    other = value_and_gradient(SMALL.clone(remat=True), small)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max()), derived, other)


def test_half_precision_computes_close_to_single(small):
    params, x, emb = small
    whole, half = (jax.jit(SMALL.clone(dtype=dtype).apply)(params, x, emb) for dtype in (None, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert jnp.abs(whole - half).max() < 0.05 * jnp.abs(whole).max()


@pytest.mark.parametrize("mode", ["scale_shift", "add"])
def test_the_condition_reaches_the_output_and_examples_stay_apart(small, mode):
    _, x, emb = small
    unet = SMALL.clone(mode=mode)
    params, apply = filled(unet, x, emb), jax.jit(unet.apply)
    out, changed = apply(params, x, emb), apply(params, x, jnp.asarray(emb).at[1].add(1.0))
    moved = jnp.abs(out - changed).max(axis=(1, 2, 3))
    assert moved[1] > 1e-4
    assert not moved[jnp.array([0, 2, 3])].any()


def test_dropout_draws_only_in_training(small):
    params, x, emb = small
    unet = SMALL.clone(dropout=0.5)
    draw = jax.jit(lambda key: unet.apply(params, x, emb, deterministic=False, rngs={"dropout": key}))
    still, drawn = jax.jit(unet.apply)(params, x, emb), draw(jax.random.key(0))
    np.testing.assert_allclose(still, jax.jit(SMALL.apply)(params, x, emb), rtol=1e-5, atol=1e-5)
    assert jnp.abs(drawn - still).max() > 1e-3


def test_dropout_goes_with_recomputation(small):
    params, x, emb = small
    unet = SMALL.clone(dropout=0.5, remat=True)

    def loss(params):
        return unet.apply(params, x, emb, deterministic=False, rngs={"dropout": jax.random.key(0)}).sum()

    assert jax.tree.structure(jax.eval_shape(jax.grad(loss), params)) == jax.tree.structure(params)


def test_dropout_is_the_same_however_examples_are_spread_over_replicas(small):
    params, x, emb = small
    unet = SMALL.clone(dropout=0.5)

    def apply(x, emb):
        return unet.apply(params, x, emb, deterministic=False, rngs={"dropout": jax.random.key(0)})

    halves = [jnp.asarray(each).reshape(2, -1, *each.shape[1:]) for each in (x, emb)]
    spread = jax.jit(jax.vmap(apply, axis_name=DATA_AXIS))(*halves)
    np.testing.assert_allclose(spread.reshape(x.shape[0], *spread.shape[2:]), jax.jit(apply)(x, emb), atol=1e-5)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="multiple of 2"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 7, 8, 1)), jnp.zeros((1, 6)))


def test_sinusoids_are_cosines_and_sines_of_the_time():
    out = sinusoids(jnp.array([0.0, 3.0]), 4, 100.0)
    np.testing.assert_allclose(out[0], [1, 1, 0, 0])
    np.testing.assert_allclose(out[1], [np.cos(3), np.cos(0.3), np.sin(3), np.sin(0.3)], rtol=1e-6)
