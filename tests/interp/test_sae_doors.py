"""What dictionaries are given is checked where it enters: one error that names it, before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from core.batches import epoch_sampler
from core.errors import ConfigError, DataError, NonFiniteError
from core.fit import fit
from core.learner import with_sampler
from interp import sae

D, M = 6, 12
X = jax.random.normal(jax.random.key(0), (64, D))
TOPK = sae.topk(3)
PARAMS = sae.sae_learner(TOPK, M, optax.adam(1e-2)).init(jax.random.key(1), X).params


def start(variant=TOPK, latents=M, batch=X, **options):
    learner = sae.sae_learner(variant, latents, optax.adam(1e-2), **options)
    return jax.eval_shape(learner.update, learner.init(jax.random.key(1), batch), batch)


def code_of(latents):
    variant = sae.topk(3)
    params = sae.sae_learner(variant, latents, optax.adam(1e-2)).init(jax.random.key(1), X).params
    return sae.encode(variant, params, X)


NEGATIVE = sae.Sparse(jnp.ones((1, 3)), jnp.array([[0, -1, 2]]))
REFUSED = {
    "topk k=0": (lambda: sae.topk(0), "k must"),
    "topk k=-1": (lambda: sae.topk(-1), "k must"),
    "topk k=13 of 12": (lambda: start(sae.topk(13)), "k = 13 active latents of 12"),
    "topk k above k_max": (lambda: sae.topk(4, 3), "above k_max = 3"),
    "batch_topk k=-1": (lambda: sae.batch_topk(-1), "k must"),
    "batch_topk k=13 of 12": (lambda: start(sae.batch_topk(13)), "k = 13 active latents per example of 12"),
    "groupmax k=-3": (lambda: sae.groupmax(-3), "k must"),
    "groupmax k=5 of 12": (lambda: start(sae.groupmax(5)), "do not divide into 5 equal groups"),
    "latents -1": (lambda: start(latents=-1), "latents must"),
    "l1 -1": (lambda: sae.relu_l1(-1.0), "l1 must"),
    "gated l1 -1": (lambda: sae.gated(-1.0), "l1 must"),
    "jumprelu sparsity -1": (lambda: sae.jumprelu(-1.0), "sparsity must"),
    "jumprelu theta 0": (lambda: sae.jumprelu(1.0, theta=0.0), "theta must"),
    "jumprelu bandwidth 0": (lambda: sae.jumprelu(1.0, bandwidth=0.0), "bandwidth must"),
    "matryoshka without prefixes": (lambda: sae.matryoshka(TOPK, ()), "prefixes must ascend"),
    "matryoshka 0": (lambda: sae.matryoshka(TOPK, (0, 4)), "prefixes at place 0"),
    "matryoshka descending": (lambda: sae.matryoshka(TOPK, (8, 4)), "prefixes must ascend"),
    "matryoshka beyond the latents": (lambda: start(sae.matryoshka(TOPK, (4, 13))), "a prefix of 13 latents of 12"),
    "multi_topk factor 0": (lambda: sae.multi_topk(3, 0), "factor must"),
    "scaled by 0": (lambda: sae.scaled_by(0.0), "factor must"),
    "data one-dimensional": (lambda: start(batch=X[0]), "batch: x must have shape"),
    "data integers": (lambda: start(batch=jnp.ones((4, D), int)), "batch: x must hold floating-point numbers"),
    "data in half precision": (lambda: start(batch=X.astype(jnp.float16)), r"x is float16, .* x.astype\(np.float32\)"),
    "data in bytes": (lambda: start(batch=jnp.ones((4, D), jnp.int8)), "not int8; pass x.astype.*were quantised"),
    "targets in half precision": (lambda: start(batch={"x": X, "y": X.astype(jnp.float16)}), "y is float16"),
    "metrics in half precision": (lambda: sae.metrics(TOPK, PARAMS, X.astype(jnp.float16)), "x is float16"),
    "encode bytes": (lambda: sae.encode(TOPK, PARAMS, X.astype(jnp.int8)), r"not int8; pass x.astype\(np.float32\)"),
    "prompts and positions": (lambda: start(batch=X.reshape(8, 8, D)), r"x.reshape\(-1, 6\)"),
    "targets of another length": (lambda: start(batch={"x": X, "y": X[:5]}), "batch: y must have shape"),
    "a batch without inputs": (lambda: start(batch={"inputs": X}), "a batch must have 'x'"),
    "encode another width": (lambda: sae.encode(TOPK, PARAMS, X[:, :5]), "x has 5 dimensions, the dictionary 6"),
    "encode another width, traced": (lambda: jax.jit(lambda x: sae.encode(TOPK, PARAMS, x))(X[:, :5]), "x has 5"),
    "reconstruct another width": (lambda: sae.reconstruct(TOPK, PARAMS, jnp.ones((4, 7))), "x has 7 dimensions"),
    "encode one vector": (lambda: sae.encode(TOPK, PARAMS, X[0]), "x must have shape"),
    "encode NaN": (lambda: sae.encode(TOPK, PARAMS, X.at[3, 1].set(jnp.nan)), r"x has nan at \[3, 1\]"),
    "decode a code of a larger dictionary": (
        lambda: sae.decode(TOPK, PARAMS, code_of(5_000)),
        "but there are 12 latents, numbered 0 to 11",
    ),
    "decode a negative index": (lambda: sae.decode(TOPK, PARAMS, NEGATIVE), r"code.indices\[0, 1\] is -1"),
    "decode a dense code of another dictionary": (lambda: sae.decode(TOPK, PARAMS, jnp.ones((2, 13))), "13 latents"),
    "decode with other inputs": (lambda: sae.decode(TOPK, PARAMS, NEGATIVE._replace(indices=jnp.zeros((1, 3), int)), X),
                                 "64 inputs for 1 codes"),
    "dense of another dictionary": (lambda: sae.dense(code_of(5_000), M), "12 latents"),
    "metrics of nothing": (lambda: sae.metrics(TOPK, PARAMS, X[:0]), "there is no example"),
    "metrics block 0": (lambda: sae.metrics(TOPK, PARAMS, X, block=0), "block must"),
    "metrics of NaN": (lambda: sae.metrics(TOPK, PARAMS, X.at[3, 1].set(jnp.inf)), r"batch has inf at \[3, 1\]"),
    "aux weight -1": (lambda: start(aux=sae.Aux(weight=-1.0)), "Aux: weight must"),
    "aux k 0": (lambda: start(aux=sae.Aux(k=0)), "Aux: k must"),
    "dead_after 0": (lambda: start(dead_after=0), "dead_after must"),
    "aux dead_after 0": (lambda: start(aux=sae.Aux(dead_after=0)), "Aux: dead_after must"),
    "more active than there are": (lambda: sae.planted(jax.random.key(0), features=4), "lower active"),
    "loss recovered of nothing": (lambda: sae.loss_recovered(1.0, 1.0, 1.0), "the loss with zeros"),
    "a layout that is none": (lambda: sae.export_weights("SAELens", TOPK, PARAMS), "did you mean 'saelens'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_named(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()


DAMAGED = {
    "sparsify k=-1": ("sparsify", {"k": -1}, {}, "k = -1 must be an integer of at least 1"),
    "sparsify k=0": ("sparsify", {"k": 0}, {}, "k = 0 must"),
    "sparsify k=True": ("sparsify", {"k": True}, {}, "k = True must"),
    "sparsify k='3'": ("sparsify", {"k": "3"}, {}, "k = '3' must"),
    "sparsify k=13 of 12": ("sparsify", {"k": 13}, {}, "k = 13 active latents of 12"),
    "saelens k=0": ("saelens", {"k": 0}, {}, "k = 0 must"),
    "saelens k=-1": ("saelens", {"k": -1}, {}, "k = -1 must"),
    "saelens NaN": ("saelens", {}, {"W_enc": np.nan}, r"tensor 'W_enc' has nan at \[0, 0\]"),
    "sparsify infinite": ("sparsify", {}, {"W_dec": np.inf}, r"tensor 'W_dec' has inf at \[0, 0\]"),
    "saelens threshold negative": ("jumprelu", {}, {"threshold": -1.0}, r"tensor 'threshold' has -1.0 at \[0\]"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_weights_that_cannot_be_are_named(case):
    layout, settings, values, message = DAMAGED[case]
    variant, params = (
        (sae.jumprelu(1.0), PARAMS | {"log_theta": jnp.zeros(M)}) if layout == "jumprelu" else (TOPK, PARAMS)
    )
    layout = "saelens" if layout == "jumprelu" else layout
    tensors, cfg = sae.export_weights(layout, variant, params)
    for name, value in values.items():
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] = value
    with pytest.raises(DataError, match=message):
        sae.import_weights(layout, tensors, cfg | settings)


def test_a_threshold_of_0_is_read_as_such():
    tensors, cfg = sae.export_weights("saelens", sae.jumprelu(1.0), PARAMS | {"log_theta": jnp.zeros(M)})
    variant, params = sae.import_weights("saelens", tensors | {"threshold": np.zeros(M, np.float32)}, cfg)
    pre = (X - params["b_d"]) @ params["W_e"].T + params["b_e"]
    np.testing.assert_allclose(sae.encode(variant, params, X), jnp.maximum(pre, 0), atol=1e-6)


def test_traced_codes_of_another_dictionary_give_nan_and_no_crash():
    found = jax.jit(lambda code: sae.decode(TOPK, PARAMS, code))(NEGATIVE)
    assert jnp.isnan(found).all()


@pytest.mark.parametrize("name", [None, "x"])
def test_not_a_number_in_training_vectors_is_named_by_row_and_leaf(name):
    vectors = X.at[37, 2].set(jnp.nan)
    learner = with_sampler(sae.sae_learner(TOPK, M, optax.adam(1e-2)), epoch_sampler(16))
    with pytest.raises(NonFiniteError, match=r"the data have nan at \[37, 2\]" + (r" of \['x'\]" if name else ":")):
        fit(learner, {name: vectors} if name else vectors, key=jax.random.key(0), steps=8)


def test_layer_normalisation_takes_the_deviation_of_the_population():
    x = np.asarray(X, np.float64)
    found, shift, scale = sae.layer_normalised(X)
    np.testing.assert_allclose(scale[:, 0], np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).sum(1) / D) + 1e-5, rtol=1e-6)
    np.testing.assert_allclose(found * scale + shift, x, rtol=1e-5, atol=1e-6)


def test_numbers_of_latents_may_be_of_numpy():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    for make in (sae.topk, sae.batch_topk):
        params = sae.sae_learner(make(2), 6, optax.adam(1e-3)).init(jax.random.key(0), x).params
        found, expected = (sae.reconstruct(make(k), params, x) for k in (np.int64(2), 2))
        np.testing.assert_array_equal(found, expected)
