"""Counterfactuals of a causal diffusion autoencoder: the causal layer, the objective, abduction and prediction."""

import functools

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings

from causal import causal_diffae as cd
from causal.mechanisms import CausalLayer, do, stacked
from latent import diffusion
from latent.film import FilmMlp

CHAIN = ((0, 1, 1, 1), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0))
N, K, B = 4, 3, 5


def layer_and_params(mode="paper", graph=CHAIN, seed=0):
    layer = CausalLayer(graph, K, hidden=8, mode=mode)
    params = jax.jit(layer.init)(jax.random.key(seed), jnp.zeros((1, len(graph), K)))
    noisy = jax.tree.map(lambda w: w + 0.3 * jax.random.normal(jax.random.key(seed + 1), w.shape), params)
    return layer, noisy


def exogenous(seed=3, n=N):
    return jax.random.normal(jax.random.key(seed), (B, n, K))


def in_numpy(params, u, mode, set_to=None):
    """The definition, variable by variable in a loop."""
    w = {name: np.asarray(leaf, float) for name, leaf in params["params"].items()}
    graph, u, set_to = np.array(CHAIN, bool), np.array(u, float), set_to or {}

    def f(i, x):
        h = x @ w["inner_kernel"][i] + w["inner_bias"][i]
        return np.where(h > 0, h, 0.01 * h) @ w["outer_kernel"][i] + w["outer_bias"][i]

    if mode == "code":
        return np.stack([f(i, np.tensordot(graph[:, i].astype(float), u, (0, 1))) + u[:, i] for i in range(N)], 1)
    z = np.zeros_like(u)
    for i in range(N):
        if i in set_to:
            z[:, i] = set_to[i]
        else:
            parents = np.where(graph[:, i][None, :, None], z, 0.0).reshape(B, -1)
            z[:, i] = (f(i, parents) if graph[:, i].any() else 0.0) + u[:, i]
    return z


def test_the_causal_layer_equals_a_topological_loop_and_the_formula_of_the_code(record_property):
    worst = 0.0
    for mode in ("paper", "code"):
        layer, params = layer_and_params(mode)
        found = layer.apply(params, exogenous())
        worst = max(worst, float(np.abs(found - in_numpy(params, exogenous(), mode)).max()))
    layer, params = layer_and_params()
    found = layer.apply(params, exogenous(), do(N, {1: 0.7, 3: -2.0}))
    worst = max(worst, float(np.abs(found - in_numpy(params, exogenous(), "paper", {1: 0.7, 3: -2.0})).max()))
    assert worst < 1e-5
    record_property("value", f"largest difference {worst:.1e} over both modes and an intervention")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.floats(-3, 3), st.floats(-3, 3))
def check_interventions(i, j, a, b):
    layer, params = layer_and_params()
    u, graph = exogenous(), np.array(CHAIN, bool)
    reach = np.linalg.matrix_power(np.eye(N) + graph, N) > 0
    plain, under = layer.apply(params, u), layer.apply(params, u, do(N, {i: a}))
    for other in range(N):
        if not reach[i, other]:
            assert (plain[:, other] == under[:, other]).all()
    np.testing.assert_allclose(under, in_numpy(params, u, "paper", {i: a}), atol=1e-5)
    assert (under[:, i] == jnp.float32(a)).all()
    both = layer.apply(params, u, do(N, {i: a} | {j: b}))
    np.testing.assert_array_equal(both, layer.apply(params, u, do(N, {j: b} | ({i: a} if i != j else {}))))


def test_interventions_leave_non_descendants_alone_and_commute(record_property):
    check_interventions()
    record_property("value", "non-descendants bit for bit, descendants recomputed to 1e-5, either order equal")


def test_interventions_differ_by_example():
    layer, params = layer_and_params()
    values = jnp.linspace(-1, 1, B)
    each = layer.apply(params, exogenous(), do(N, {0: values}))
    for row in range(B):
        one = layer.apply(params, exogenous(), do(N, {0: values[row]}))
        np.testing.assert_allclose(each[row], one[row], atol=1e-6)


def test_the_modes_agree_in_family_on_a_graph_of_depth_one_only():
    """With depth one a child's parents are roots, so both modes see the same parents but for the roots' constants."""
    layer, params = layer_and_params("code", ((0, 1), (0, 0)))
    u = exogenous(n=2)
    under = layer.apply(params, u, do(2, {0: 1.3}))
    again = layer.apply(params, u.at[:, 0].set(1.3))
    np.testing.assert_allclose(under[:, 1], again[:, 1], atol=1e-6)


@pytest.mark.parametrize("graph", [((0, 0), (1, 0)), ((1, 0), (0, 0)), ((0, 1),)])
def test_graphs_out_of_order_are_refused(graph):
    with pytest.raises(ValueError, match="topologically"):
        CausalLayer(graph, K).init(jax.random.key(0), jnp.zeros((1, 2, K)))


# --- the objective ----------------------------------------------------------------------------------------------------


def divergence(mean, variance, target):
    """KL of one normal from another by quadrature."""
    p, q = scipy.stats.norm(mean, variance**0.5), scipy.stats.norm(target, 1.0)
    return scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean - 9, mean + 9)[0]


def test_divergences_equal_quadrature(record_property):
    mean = np.array([[[0.3, -1.0], [2.0, 0.0]]])
    variance = np.array([[[0.5, 1.0], [0.1, 2.0]]])
    labels = np.array([[0.5, -0.4]])
    prior = sum(divergence(m, v, 0.0) for m, v in zip(mean.ravel(), variance.ravel(), strict=True))
    label = sum(divergence(m, 1.0, y) for m, y in zip(mean.ravel(), labels.repeat(2), strict=True))
    found = cd.kl_to_standard(cd.Code(jnp.asarray(mean), jnp.asarray(variance)))[0]
    assert found == pytest.approx(prior, rel=1e-5)
    assert cd.label_divergence(jnp.asarray(mean), jnp.asarray(labels))[0] == pytest.approx(label, rel=1e-5)
    record_property("value", f"relative difference from quadrature {abs(float(found) / prior - 1):.0e}")


def test_gamma_starts_at_zero_and_ends_at_its_largest():
    assert [float(cd.ramp(step, 50_000)) for step in (0, 14_000, 50_000, 90_000)] == pytest.approx([0, 0.28, 1, 1])
    assert float(cd.ramp(10, 0, 0.5)) == 0.5


def small_model():
    return cd.CausalDiffAE(cd.MlpEncoder(2, K, (16,)), FilmMlp(24, 1), CausalLayer(((0, 1), (0, 0)), K, 8))


def images(count=6, side=6):
    return jax.random.uniform(jax.random.key(9), (count, side, side, 1), minval=-1)


def started(model, x=None, scale=0.0):
    """Parameters with an output layer that is not zero, where ``scale`` says so."""
    x = images() if x is None else x
    params = jax.jit(model.init)(jax.random.key(0), x, jnp.zeros(x.shape[0]))
    out = params["params"]["denoiser"]["out"]
    out["kernel"] = scale * jax.random.normal(jax.random.key(1), out["kernel"].shape)
    return params


def batch(labelled=True, gamma=1.0):
    x = images()
    return {"x": x, "labels": jnp.ones((6, 2)), "labelled": jnp.full(6, labelled), "gamma": jnp.float32(gamma)}


LEVELS = diffusion.chain_levels(diffusion.linear_beta(50))


def test_dropped_examples_contribute_nothing(record_property):
    """The divergences are those of the kept examples alone, and an all-dropped batch has a finite gradient of zero."""
    model = small_model()
    params = started(model, scale=0.1)
    loss = jax.jit(jax.value_and_grad(cd.objective(model, LEVELS, dropped=0.0), has_aux=True))
    half = batch() | {"labelled": jnp.arange(6) < 3}
    (_, some), _ = loss(params, jax.random.key(2), half)
    code = model.apply(params, half["x"][:3], method="encode")
    assert some["prior"] == pytest.approx(float(cd.kl_to_standard(code).mean()), rel=1e-5)
    spoiled = half | {"labels": half["labels"].at[3:].set(1e6)}
    (_, again), _ = loss(params, jax.random.key(2), spoiled)
    assert again["label"] == some["label"]
    (value, none), grads = loss(params, jax.random.key(2), batch(labelled=False))
    assert float(none["prior"]) == float(none["label"]) == 0.0
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["params"]["encoder"]))
    record_property("value", "an all-dropped batch: divergences 0, gradient of the encoder 0, all finite")


# --- abduction and prediction -----------------------------------------------------------------------------------------


def grid(steps):
    return diffusion.chain(diffusion.linear_beta(1000), steps)


def round_trip(model, params, steps, mode, iterations=10):
    x = images()
    run = jax.jit(
        lambda p, x: cd.predict(
            model, p, grid(steps), cd.abduct(model, p, grid(steps), x, mode, iterations=iterations), limits=None
        )
    )
    return float(jnp.abs(run(params, x) - x).max())


def test_null_interventions_give_the_image_back(record_property):
    model = small_model()
    zero = round_trip(model, started(model), 50, "ddim_fixed_point")
    random = round_trip(model, started(model, scale=0.02), 50, "ddim_fixed_point")
    assert zero < 1e-5
    assert random < 1e-3
    record_property("value", f"50 steps, K = 10: {zero:.0e} for a zero output layer, {random:.0e} for a random network")


def test_explicit_inversion_is_of_first_order(record_property):
    model = small_model()
    params = started(model, scale=0.02)
    errors = [round_trip(model, params, steps, "ddim") for steps in (100, 200, 400)]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ((ratios > 1.6) & (ratios < 2.5)).all()
    record_property("value", f"errors {errors[0]:.2g}, {errors[1]:.2g}, {errors[2]:.2g} at 100, 200, 400 steps")


def test_fresh_noise_needs_a_key():
    model = small_model()
    with pytest.raises(ValueError, match="key"):
        cd.abduct(model, started(model), grid(3), images(), "noise")


def test_guidance_of_weight_one_is_none_and_of_zero_ignores_the_intervention(record_property):
    """In double precision, as fused programs round differently."""
    with jax.enable_x64(True):
        model = small_model()
        params, steps = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), started(model, scale=0.05)), grid(10)
        found = cd.abduct(model, params, steps, images(), "ddim")

        @jax.jit
        def decode(value, weight):
            return cd.predict(model, params, steps, found, do(2, {0: value}), weight=weight)

        plain = cd.predict(model, params, steps, found, do(2, {0: 1.5}))
        one = float(jnp.abs(decode(1.5, 1.0) - plain).max())
        np.testing.assert_array_equal(decode(1.5, 0.0), decode(-1.0, 0.0))
        assert jnp.abs(decode(1.5, 1.0) - decode(-1.0, 1.0)).max() > 1e-3
        assert jnp.abs(decode(1.5, 1.7) - decode(1.5, 1.0)).max() > 1e-3
        code = model.apply(params, found.u, do(2, {0: 1.5}), method="code")
        operands = diffusion.Guided(diffusion.Conditioned(params, code), 1.7)
        ways = []
        for doubled in (True, False):
            network = diffusion.denoiser(functools.partial(model.apply, method="denoise"), model.prediction)
            decoder = diffusion.clip_x0(diffusion.cfg(network, doubled=doubled), -1.0, 1.0)
            ways.append(diffusion.sample(diffusion.ddim(steps), decoder, operands, found.noise))
        two = float(jnp.abs(ways[0] - ways[1]).max())
        np.testing.assert_allclose(decode(1.5, 1.7), ways[1], atol=1e-6)
    record_property("value", f"weight 1 differs by {one:.0e}, a doubled batch from two calls by {two:.0e}")
    assert one < 1e-12
    assert two < 1e-6


class Counting(nn.Module):
    """A denoiser or encoder that tells how many rows it was asked for, each time it runs."""

    seen: tuple
    encodes: bool = False

    @nn.compact
    def __call__(self, x, time=None, cond=None):
        jax.debug.callback(lambda x: SEEN[self.seen[0]].append(x.shape[0]), x)
        if self.encodes:
            return cd.Code(jnp.zeros((x.shape[0], 2, K)), jnp.ones((x.shape[0], 2, K)))
        return 0.1 * x + 0.01 * cond.sum(1)[:, None, None, None]


SEEN: dict[str, list[int]] = {"encoder": [], "denoiser": []}


def test_many_interventions_cost_one_encoding_one_inversion_and_their_decodings(record_property):
    model = cd.CausalDiffAE(
        Counting(("encoder",), encodes=True), Counting(("denoiser",)), CausalLayer(((0, 1), (0, 0)), K, 8)
    )
    x, steps, many = images(2), grid(4), 5
    params = model.init(jax.random.key(0), x, jnp.zeros(2))
    jax.effects_barrier()
    for rows in SEEN.values():
        rows.clear()
    found = cd.abduct(model, params, steps, x, "ddim")
    interventions = stacked([do(2, {0: float(value)}) for value in range(many)], 2)
    out = cd.predict_all(model, params, steps, found, interventions)
    jax.effects_barrier()
    assert out.shape == (many, *x.shape)
    assert SEEN["encoder"] == [2]
    assert SEEN["denoiser"] == [2] * 4 + [2 * many] * 4
    one = cd.predict(model, params, steps, found, do(2, {0: 3.0}))
    np.testing.assert_allclose(out[3], one, atol=1e-6)
    record_property("value", f"{many} interventions: rows encoded {SEEN['encoder']}, denoised 4 x 2 and 4 x {2 * many}")


def test_one_program_serves_all_interventions_and_weights(record_property):
    model = small_model()
    params, steps, traces = started(model, scale=0.05), grid(5), []
    found = cd.abduct(model, params, steps, images(), "ddim")

    @jax.jit
    def decode(interventions, weight):
        traces.append(1)
        return cd.predict_all(model, params, steps, found, interventions, weight=weight)

    for weight, variable in ((1.0, 0), (0.5, 1), (1.5, 0)):
        decode(stacked([do(2, {variable: 0.3}), do(2, {0: 1.0, 1: -1.0})], 6), weight)
    assert len(traces) == 1
    record_property("value", "3 sets of interventions and weights, 1 compilation")


def test_decoding_scales_linearly_with_the_number_of_interventions(record_property):
    """Rows that the network denoises, counted as it runs, and operations of a step as XLA counts them."""
    counted = cd.CausalDiffAE(
        Counting(("encoder",), encodes=True), Counting(("denoiser",)), CausalLayer(((0, 1), (0, 0)), K, 8)
    )
    x, steps, rows = images(2), grid(7), {}
    params = counted.init(jax.random.key(0), x, jnp.zeros(2))
    found = cd.abduct(counted, params, steps, x, "ddim")
    for many in (1, 2, 4, 8, 16):
        jax.effects_barrier()
        SEEN["denoiser"].clear()
        cd.predict_all(counted, params, steps, found, stacked([do(2, {0: 1.0})] * many, 2))
        jax.effects_barrier()
        rows[many] = sum(SEEN["denoiser"])
    assert rows == {many: 7 * 2 * many for many in rows}

    model = small_model()
    params, steps = started(model), grid(2)
    found = cd.abduct(model, params, steps, images(), "ddim")

    def flops(many):
        interventions = stacked([do(2, {0: 1.0})] * many, 6)
        fn = jax.jit(lambda i: cd.predict_all(model, params, steps, found, i))
        return fn.lower(interventions).compile().cost_analysis()["flops"]

    one, two, four = (flops(many) for many in (2, 4, 8))
    assert (four - two) / (two - one) == pytest.approx(2.0, rel=0.02)
    assert two / one == pytest.approx(2.0, rel=0.1)
    told = f"2, 4, 8 interventions: 1 : {two / one:.2f} : {four / one:.2f}"
    record_property("value", f"7 x 2 rows denoised per intervention for 1 to 16; operations for {told}")


def test_null_interventions_and_traversals_are_abduction_and_prediction():
    model, steps = small_model(), grid(6)
    params, x = started(model, scale=0.05), images(2)
    found = cd.abduct(model, params, steps, x, iterations=2)
    np.testing.assert_allclose(cd.null_intervention(model, params, steps, x), cd.predict(model, params, steps, found))
    moved = cd.traverse(model, params, steps, x, (-1.0, 0.5, 2.0))
    assert moved.shape == (2, 3, *x.shape)
    np.testing.assert_allclose(moved[1, 2], cd.predict(model, params, steps, found, do(2, {1: 2.0})), atol=1e-6)
    params, steps = started(model, scale=0.002), grid(20)
    errors = [float(cd.inversion_error(model, params, steps, x, mode)) for mode in ("explicit", "fixed_point", "heun")]
    assert 0 < errors[1] < errors[0]
    assert errors[2] < errors[0]
