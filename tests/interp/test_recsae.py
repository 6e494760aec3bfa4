from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from interp import recsae, sae
from interp.recsae import Site
from rec.graph import RecData
from rec.intents import simulate
from rec.lightgcn import LightGCN
from rec.sequential import GRU4Rec, SASRec, item_scores

ITEMS, D, LATENTS = 30, 8, 24
QUERY = Site(method="query")
HISTORIES = jnp.array([[-1, -1, 3, 4], [-1, 1, 2, 9], [5, 6, 7, 8], [-1, -1, -1, 2]], jnp.int32)
VARIANTS = {"topk": sae.topk(4), "relu": sae.relu_l1(0.1), "layer-normed": sae.topk(4)._replace(
    normalise=sae.layer_normalised)}  # fmt: skip


@cache
def recommender(kind=SASRec):
    module = kind(ITEMS, D, length=4)
    shapes = jax.eval_shape(module.init, jax.random.key(0), HISTORIES)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return partial(item_scores, module), params


@cache
def dictionary(name="topk"):
    rng = np.random.default_rng(1)
    W_d = rng.normal(size=(LATENTS, D))
    leaves = {"W_e": rng.normal(size=(LATENTS, D)), "b_e": 0.1 * rng.normal(size=LATENTS),
              "W_d": W_d / np.linalg.norm(W_d, axis=1, keepdims=True), "b_d": 0.1 * rng.normal(size=D)}  # fmt: skip
    return VARIANTS[name], {key: jnp.asarray(leaf, jnp.float32) for key, leaf in leaves.items()}


def codes(name="topk"):
    """States of the recommender and their codes, dense."""
    call, params = recommender()
    _, x = recsae.capture(call, QUERY)(params, HISTORIES)
    variant, weights = dictionary(name)
    return np.asarray(x), np.asarray(sae.as_dense(variant, weights, x))


# Probes.


def test_an_unused_probe_changes_no_bit():
    for kind in (SASRec, GRU4Rec):
        call, params = recommender(kind)
        plain = jax.jit(call)(params, HISTORIES)
        probed = jax.jit(recsae.intervene(call, QUERY, lambda x: x))(params, HISTORIES)
        captured, _ = jax.jit(recsae.capture(call, QUERY))(params, HISTORIES)
        np.testing.assert_array_equal(plain, probed)
        np.testing.assert_array_equal(plain, captured)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_unchanged_code_changes_no_bit(name):
    call, params = recommender()
    plain = jax.jit(call)(params, HISTORIES)
    edits = (
        recsae.steer(*dictionary(name), jnp.array(3), recsae.scaled(1.0)),
        recsae.steer(*dictionary(name), jnp.array([0, 5, 7, 2]), lambda z: z),
        recsae.rescale(*dictionary(name), jnp.ones(LATENTS)),
    )
    for edit in edits:
        np.testing.assert_array_equal(plain, jax.jit(recsae.intervene(call, QUERY, edit))(params, HISTORIES))


@pytest.mark.parametrize("name", ["topk", "relu"])
def test_steering_changes_scores_by_the_closed_form(name, record_property):
    call, params = recommender()
    variant, weights = dictionary(name)
    _, z = codes(name)
    W, E = np.asarray(weights["W_d"], np.float64), np.asarray(params["params"]["items"], np.float64)
    plain = np.asarray(jax.jit(call)(params, HISTORIES), np.float64)
    latents = np.argmax(z, axis=1)
    changes = {"ablated": (recsae.ablated, lambda v: 0 * v), "tripled": (recsae.scaled(3.0), lambda v: 3 * v),
               "set to 2": (recsae.clamped(2.0), lambda v: 0 * v + 2)}  # fmt: skip
    errors = []
    for change, formula in changes.values():
        for latent in (latents, int(np.argmin(z.sum(0)))):
            edit = recsae.steer(variant, weights, jnp.asarray(latent), change)
            found = np.asarray(jax.jit(recsae.intervene(call, QUERY, edit))(params, HISTORIES))
            own = z[np.arange(4), latent] if np.ndim(latent) else z[:, latent]
            rows = W[latent] if np.ndim(latent) else np.tile(W[latent], (4, 1))
            expected = plain + (formula(own) - own)[:, None] * (rows @ E.T)
            errors.append(np.abs(found - expected).max())
    factors = np.linspace(0, 2, LATENTS)
    edit = recsae.rescale(variant, weights, jnp.asarray(factors, jnp.float32))
    found = np.asarray(jax.jit(recsae.intervene(call, QUERY, edit))(params, HISTORIES))
    errors.append(np.abs(found - (plain + ((factors - 1) * z) @ W @ E.T)).max())
    record_property("value", f"largest difference {max(errors):.1e} over ablating, scaling and setting")
    assert max(errors) < 1e-5


def test_a_reconstruction_in_place_gives_the_scores_of_the_reconstruction():
    call, params = recommender()
    x, _ = codes()
    spliced = jax.jit(recsae.intervene(call, QUERY, recsae.splice(*dictionary())))(params, HISTORIES)
    expected = np.asarray(sae.reconstruct(*dictionary(), x)) @ np.asarray(params["params"]["items"]).T
    np.testing.assert_allclose(spliced, expected, atol=1e-5)


def test_probes_attach_to_any_recommender_by_the_same_call(record_property):
    """Doubling an activation at each site changes what follows, and what is captured is the activation itself."""
    data, _ = simulate(0, users=40, items=30)
    graph = RecData.build(data).graph
    calls = {}
    for kind in (SASRec, GRU4Rec):
        calls[kind.__name__] = (*recommender(kind), HISTORIES, QUERY)
    for name, layers in (("LightGCN", 2), ("BPR-MF", 0)):
        module = LightGCN(4, layers)
        params = jax.jit(module.init)(jax.random.key(0), graph)

        def scores(params, graph, module=module):
            users, items = module.apply(params, graph)
            return users @ items.T

        calls[name] = (scores, params, graph, Site(leaf=0))
    for call, params, inputs, site in calls.values():
        plain, x = jax.jit(recsae.capture(call, site))(params, inputs)
        doubled = jax.jit(recsae.intervene(call, site, lambda x: 2 * x))(params, inputs)
        assert site in recsae.sites(call, params, inputs)
        assert x.shape[0] == plain.shape[0]
        np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-5)
    inner = Site(("feed_forward_0",))
    call, params = recommender()
    assert inner in recsae.sites(call, params, HISTORIES)
    without = jax.jit(recsae.intervene(call, inner, jnp.zeros_like))(params, HISTORIES)
    assert np.abs(without - call(params, HISTORIES)).max() > 1e-3
    record_property("value", f"{', '.join(calls)}, and a layer inside SASRec")


def test_a_site_that_is_not_there_is_refused():
    call, params = recommender()
    with pytest.raises(ConfigError, match="was reached 0 times"):
        recsae.intervene(call, Site(("nowhere",)), lambda x: x)(params, HISTORIES)
    with pytest.raises(ConfigError, match="leaf 3 is not among them"):
        recsae.capture(call, Site(method="query", leaf=3))(params, HISTORIES)
    with pytest.raises(ConfigError, match="turned"):
        recsae.intervene(call, QUERY, lambda x: x[:, :2])(params, HISTORIES)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)), st.floats(0.5, 0.95))
def test_overlap_equals_its_definition(a, b, p):
    agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, 6)]
    weights = [p ** (d - 1) for d in range(1, 6)]
    found = recsae.overlap(jnp.array(a[:5]), jnp.array(b[:5]), p)
    np.testing.assert_allclose(found, np.dot(weights, agreement) / sum(weights), rtol=1e-5)


# Concepts.
