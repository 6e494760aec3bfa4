"""What capture finds reproduces the gradient of every parameter of unmodified models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from core.conv import Conv
from core.errors import ConfigError
from interp.ekfac import capture, dense
from interp.ekfac.contractions import gradients


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 8)
        positions = self.param("positions", nn.initializers.normal(), (9, 8))
        h = nn.LayerNorm()(embed(tokens) + positions[: tokens.shape[0]])
        h = h + nn.MultiHeadDotProductAttention(2)(h, h)
        h = nn.remat(nn.Dense)(8)(h)
        return embed.attend(nn.gelu(h))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        return h + nn.Dense(8)(nn.relu(nn.DenseGeneral((2, 8))(h).reshape(-1, 16))), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        stack = nn.scan(nn.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return stack()(x, None)[0]


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.SimpleCell(6))(nn.RNN(nn.LSTMCell(6))(x))


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(8)
        return layer(nn.tanh(layer(nn.tanh(layer(x)))))


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, image):
        h = nn.relu(nn.Conv(8, (3, 3), strides=2, padding="SAME")(image))
        h = nn.Conv(8, (3, 2), feature_group_count=4, padding="VALID", kernel_dilation=(1, 2))(h)
        return nn.Dense(3)(nn.ConvTranspose(4, (3, 3), strides=(2, 2))(h).reshape(-1))


class OwnConvolutions(nn.Module):
    @nn.compact
    def __call__(self, image):
        h = nn.tanh(Conv(4, stride=2)(image))
        h = nn.tanh(Conv(4, (3, 2), padding="VALID")(h))
        stack = nn.vmap(Conv, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=0)
        h = nn.tanh(stack(3)(jnp.stack([h, -h])))
        return nn.Dense(3)(Conv(4, stride=2, padding="SAME", transposed=True)(h).reshape(-1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(8, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def of_linen(module, x):
    return lambda params, x: module.apply({"params": params}, x), module.init(jax.random.key(0), x)["params"], x


def of_nnx():
    graph, params = nnx.split(NnxNet(nnx.Rngs(0)))
    return lambda params, x: nnx.merge(graph, params)(x), params, ROWS


def experts(params, x):
    return jax.vmap(lambda w, b: jnp.tanh(x @ w + b))(params["w"], params["b"])


def einsums(params, x):
    queries = jnp.einsum("ti,iho->tho", x, params["w"]) + params["b"]
    fused = jnp.concatenate([x @ params["fused"][:, :4], jnp.sin(x @ params["fused"][:, 4:])], axis=-1)
    return queries, fused


ROWS = jax.random.normal(jax.random.key(1), (5, 8))
IMAGE = jax.random.normal(jax.random.key(1), (9, 11, 2))
NETS = {
    "decoder with tied embedding, attention, remat": lambda: of_linen(Decoder(), jnp.array([1, 3, 3, 0, 6])),
    "scanned layers": lambda: of_linen(Stack(), ROWS),
    "recurrent cells": lambda: of_linen(Recurrent(), ROWS),
    "a layer used three times": lambda: of_linen(Unrolled(), ROWS),
    "convolutions: strided, grouped, dilated, transposed": lambda: of_linen(Convolutions(), IMAGE),
    "convolutions of core: strided, several kernels, transposed": lambda: of_linen(OwnConvolutions(), IMAGE),
    "nnx": of_nnx,
    "experts by vmap": lambda: (experts, {"w": jnp.ones((3, 8, 5)), "b": jnp.ones((3, 5))}, ROWS),
    "einsum and slices of a fused matrix": lambda: (
        einsums,
        {"w": jnp.ones((8, 2, 5)), "b": jnp.ones((2, 5)), "fused": jnp.ones((8, 8))},
        ROWS,
    ),
}


def randomised(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), params)


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def reassembled(found, records):
    """Gradients of leaves from inputs and output gradients [stack, positions, width]."""
    leaves: dict[str, jax.Array] = {}
    for name, block in found.blocks.items():
        inputs, out = records[name]
        matrix = gradients(inputs[:, None], out[:, None], block.rows)[0]
        for leaf, part in block.from_matrix(matrix).items():
            leaves[leaf] = leaves.get(leaf, 0) + part
    return leaves


@pytest.fixture(scope="module", params=sorted(NETS))
def net(request):
    fn, params, x = NETS[request.param]()
    return fn, randomised(params), x


def scalar(fn, params, x):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(fn(params, x)))


def test_inputs_and_output_gradients_reproduce_the_gradient_of_every_leaf(net, record_property):
    fn, params, x = net
    found = capture(fn, params, x)

    @jax.jit
    def records(params, x):
        outputs, pull = found.run(params, x)
        return outputs, pull(jax.tree.map(jnp.cos, outputs))

    outputs, pulled = records(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), outputs, fn(params, x))
    expected = by_path(jax.grad(lambda p: scalar(fn, p, x))(params))
    leaves = reassembled(found, pulled)
    assert leaves.keys() == expected.keys()
    assert all(row.kind in ("kronecker", "diagonal") for row in found.coverage)
    size = {name: float(jnp.max(jnp.abs(g))) for name, g in expected.items()}
    floor = 1e-2 * max(size.values())  # keys' biases have no gradient but rounding
    worst = max(float(jnp.max(jnp.abs(leaves[n] - g))) / max(size[n], floor) for n, g in expected.items())
    record_property("value", f"largest relative difference {worst:.1e}")
    assert worst < 1e-5


def test_every_weight_matrix_is_seen_as_a_linear_map(net):
    fn, params, x = net
    for row in capture(fn, params, x).coverage:
        is_norm_or_table = "LayerNorm" in row.leaf or row.leaf == "positions"
        assert row.kind == ("diagonal" if is_norm_or_table else "kronecker"), row


def test_capture_composes_with_vmap_grad_and_scan():
    fn, params, _ = NETS["scanned layers"]()
    params, batch = randomised(params), jax.random.normal(jax.random.key(2), (4, 5, 8))
    found = capture(fn, params, batch[0])

    def norm(params, x):
        outputs, pull = found.run(params, x)
        return sum(jnp.sum(r.gradients**2) for r in pull(jnp.cos(outputs)).values())

    mapped = jax.vmap(norm, (None, 0))(params, batch)
    scanned = jax.lax.scan(lambda _, x: (None, norm(params, x)), None, batch)[1]
    np.testing.assert_allclose(mapped, scanned, rtol=1e-5)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(norm)(params, batch[0])))


def test_a_filter_excludes_by_name_and_the_coverage_says_so():
    fn, params, x = NETS["decoder with tied embedding, attention, remat"]()
    found = capture(fn, params, x, where="Dense")
    kinds = {row.leaf: row.kind for row in found.coverage}
    assert kinds["CheckpointDense_0/kernel"] == "kronecker"
    assert kinds["LayerNorm_0/scale"] == "excluded"
    assert set(found.blocks) == {"CheckpointDense_0/kernel"}


def test_a_parameter_that_nothing_uses_is_listed_as_unused():
    found = capture(lambda p, x: x @ p["w"], {"w": jnp.ones((8, 2)), "v": jnp.ones(3)}, ROWS)
    assert {row.leaf: row.kind for row in found.coverage} == {"w": "kronecker", "v": "unused"}


def test_a_kernel_that_is_also_used_elsewhere_falls_back_to_its_whole_gradient():
    def fn(params, x):
        return x @ params["w"] + jnp.sum(params["w"] ** 2)

    found = capture(fn, {"w": jnp.ones((8, 2))}, ROWS)
    assert found.blocks["w"].is_diagonal
    outputs, pull = found.run({"w": jnp.ones((8, 2))}, ROWS)
    expected = jax.grad(lambda p: jnp.sum(fn(p, ROWS)))({"w": jnp.ones((8, 2))})["w"]
    np.testing.assert_allclose(pull(jnp.ones_like(outputs))["w"].gradients.reshape(8, 2), expected, rtol=1e-5)


def test_a_bias_shared_by_two_maps_and_a_custom_rule_keep_their_derivatives():
    @jax.custom_vjp
    def doubled(w):
        return w

    doubled.defvjp(lambda w: (w, None), lambda _, g: (2 * g,))

    def fn(p, x):
        return (x @ p["a"] + p["b"]) * (x @ p["c"] + p["b"]) + x @ doubled(p["d"])

    params = randomised({"a": jnp.ones((8, 2)), "b": jnp.ones(2), "c": jnp.ones((8, 2)), "d": jnp.ones((8, 2))})
    found = capture(fn, params, ROWS)
    assert {row.leaf: row.kind for row in found.coverage} == {
        "a": "kronecker", "b": "diagonal", "c": "kronecker", "d": "diagonal"
    }  # fmt: skip
    outputs, pull = found.run(params, ROWS)
    expected = jax.grad(lambda p: jnp.sum(fn(p, ROWS)))(params)
    for name, leaf in reassembled(found, pull(jnp.ones_like(outputs))).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-5)


def test_a_huge_leaf_without_a_linear_map_is_refused_by_name_and_reason():
    table = jax.ShapeDtypeStruct((2**12, 2**11), jnp.float32)
    with pytest.raises(ConfigError, match=r"parameter table .* is used by sin, .*exclude it"):
        capture(lambda p, x: jnp.sum(jnp.sin(p["table"])), {"table": table}, jnp.ones(3))


def test_an_integer_parameter_is_refused_by_name():
    with pytest.raises(ConfigError, match="parameter counts has type int32"):
        capture(lambda p, x: x * p["counts"], {"counts": jnp.arange(3)}, jnp.ones(3))
    with pytest.raises(ConfigError, match="parameter kernel has type int32"):
        capture(lambda p, x: x @ p["kernel"], {"kernel": jnp.ones((3, 2), int)}, jnp.ones(3))


def test_a_tag_names_a_block_and_refuses_to_be_missed():
    def fn(params, x):
        return dense(x, params["w"], params["b"], name="first layer")

    params = {"w": jnp.ones((8, 2)), "b": jnp.ones(2)}
    found = capture(fn, params, ROWS)
    assert list(found.blocks) == ["first layer"]
    assert found.blocks["first layer"].bias == "b"
    with pytest.raises(ConfigError, match="tagged maps first layer do not multiply by a parameter"):
        capture(lambda p, x: fn({**p, "w": jnp.sin(p["w"])}, x), params, ROWS)
