"""Deep linear self-distillation: simulation against theory, conserved quantities, and what the variants do."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from core.errors import ConfigError
from core.learner import replicate_seeds, seed_keys, with_sampler
from latent.jepa_linear import (
    DeepLinear,
    Features,
    Moments,
    aligned,
    critical_time,
    critical_time_series,
    descended_times,
    dynamic_features,
    ema_target_learner,
    encoder_norms,
    fixed_point,
    learned_at,
    learner,
    masked_moments,
    minibatch_sampler,
    norms_over_time,
    orthogonal,
    principal_directions,
    random_basis,
    rate,
    record,
    sample_moments,
    static_features,
    trajectory,
)

LAM, RHO = [1.0, 1.0, 0.5, 2.0], [0.9, 0.4, 0.9, 0.3]
OBJECTIVES = ["JEPA", "MAE"]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def features() -> Features:
    return Features(jnp.asarray(LAM), jnp.asarray(RHO))


def network(objective, depth, d=4, **options):
    return DeepLinear.of(objective, depth, d, **options)


@functools.cache
def simulated(objective, depth, dt, eps=0.2, until=40.0, dots=100):
    """Times, the diagonal of the encoder, and the parameters at the end, by gradient descent from an aligned start."""
    model = network(objective, depth)
    gd = learner(objective, model, optax.sgd(dt), aligned(model, eps))
    every = round(until / dt / dots)
    run = jax.jit(record(gd, encoder_norms(model), every * dots, every))
    state, seen = run(gd.init(jax.random.key(0), features().moments()), features().moments())
    return np.arange(dots) * every * dt, np.asarray(seen), jax.device_get(state.params["params"])


def theory(objective, depth, times, eps=0.2):
    return np.stack([trajectory(objective, depth, l, r, eps, times) for l, r in zip(LAM, RHO, strict=True)], axis=1)


def test_gradient_descent_follows_the_ode_with_an_error_of_first_order(record_property):
    worst = 0.0
    for objective in OBJECTIVES:
        for depth in (1, 2, 3):
            errors = []
            for dt in (2e-3, 4e-3):
                times, seen, _ = simulated(objective, depth, dt)
                errors.append(np.abs(seen - theory(objective, depth, times)).max())
            worst = max(worst, errors[0])
            assert errors[0] < 3e-4
            assert errors[1] / errors[0] == pytest.approx(2.0, rel=0.1)
    record_property("value", f"largest difference {worst:.1e} at dt = 0.002 over L = 1, 2, 3 and both losses")


def advance(gd, state, moments, steps):
    return jax.jit(lambda s, m: jax.lax.fori_loop(0, steps, lambda _, s: gd.update(s, m)[0], s))(state, moments)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_fixed_points_and_the_map_on_top(objective, record_property):
    rho, drift = np.array([0.9, 0.6, 0.8, 0.7]), 0.0
    moments = Features(jnp.asarray(LAM), jnp.asarray(rho)).moments()
    for depth in (1, 2, 3):
        model = network(objective, depth)
        gd = learner(objective, model, optax.sgd(0.05), aligned(model, 0.2))

        def matrices(state, model=model):
            return jnp.stack(model.apply(state.params))

        run = jax.jit(record(gd, matrices, 40_000, 20))
        end, seen = run(gd.init(jax.random.key(0), moments), moments)
        w, v = np.moveaxis(np.asarray(seen), 1, 0)
        diagonal = np.einsum("tii->ti", w)
        np.testing.assert_allclose(np.diag(matrices(end)[0]), fixed_point(objective, depth, rho), rtol=1e-9)
        assert np.abs(diagonal[-1] - diagonal[0]).max() > 0.1
        drift = max(drift, np.abs(v - np.eye(4) * diagonal[:, None] ** (1 / depth)).max())
    assert drift < 1e-12
    record_property("value", f"{objective}: V differs from W^(1/L) by at most {drift:.0e} on the way")


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_differences_of_gram_matrices_are_conserved(objective, spread, record_property):
    depth, drifts = 3, []
    model = network(objective, depth)

    def conserved(params):
        layers = [params["params"][name] for name in ("w1", "w2", "w3", "v")]
        return jnp.stack([b.T @ b - a @ a.T for a, b in itertools.pairwise(layers)])

    for dt in (4e-3, 2e-3):
        gd = learner(objective, model, optax.sgd(dt), orthogonal(model, 0.3, spread))
        start = gd.init(jax.random.key(1), features().moments())
        end = advance(gd, start, features().moments(), round(8 / dt))
        before, after = conserved(start.params), conserved(end.params)
        assert (jnp.abs(before).max() < 1e-12) == (spread == 0.0)
        assert jnp.abs(end.params["params"]["w1"] - start.params["params"]["w1"]).max() > 0.01
        drifts.append(float(jnp.abs(after - before).max()))
    assert drifts[1] < 5e-3
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.15)
    record_property(
        "value", f"{objective}: drift {drifts[1]:.1e} at dt = 0.002, {drifts[0] / drifts[1]:.2f} times that at 0.004"
    )


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000), st.sampled_from(OBJECTIVES), st.floats(0.5, 2.0))
def test_rotated_and_scaled_data_give_the_rotated_and_retimed_solution(seed, objective, scale):
    model = network(objective, 2)
    q = random_basis(jax.random.key(seed), 4)
    plain, rotated = features().moments(), features().moments(q)
    scaled = Moments(scale**2 * plain.xx, scale**2 * plain.xy)

    def end(moments, dt, turn):
        gd = learner(objective, model, optax.sgd(dt), aligned(model, 0.2))
        state = jax.lax.fori_loop(0, 200, lambda _, s: gd.update(s, moments)[0], gd.init(jax.random.key(0), moments))
        w, v = model.apply(state.params)
        return turn.T @ w @ turn, turn.T @ v @ turn

    reference = end(plain, 0.01, jnp.eye(4))
    for other in (end(rotated, 0.01, q), end(scaled, 0.01 / scale**2, jnp.eye(4))):
        for a, b in zip(reference, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_population_losses_are_the_expectations_of_the_sampled_ones():
    """The moments' gradient equals that of 1/2 E|V W x - target|^2 over the very sample whose moments they are."""
    x, y = jax.random.normal(jax.random.key(0), (2, 50, 4))
    moments = Moments(x.T @ x / 50, x.T @ y / 50)
    for objective in OBJECTIVES:
        model = network(objective, 2)
        gd = learner(objective, model, optax.sgd(1.0))
        state = gd.init(jax.random.key(1), moments)

        def sampled(params, objective=objective, model=model):
            w, v = model.apply(params)
            target = jax.lax.stop_gradient(y @ w.T) if objective == "JEPA" else y
            return jnp.mean(jnp.sum((x @ w.T @ v.T - target) ** 2, axis=1)) / 2

        expected = jax.grad(sampled)(state.params)
        found, _ = gd.gradients(state, moments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)


def test_without_the_stop_gradient_jepa_collapses():
    model = network("JEPA", 2)
    moments = features().moments()

    def loss(params):
        w, v = model.apply(params)
        vw = v @ w
        residual = jnp.trace(vw @ moments.xx @ vw.T) / 2 - jnp.trace(vw @ moments.xy @ w.T)
        return residual + jnp.trace(w @ moments.xx @ w.T) / 2

    params = aligned(model, 0.2)(None, moments)
    params = jax.jit(
        lambda p: jax.lax.fori_loop(
            0, 4000, lambda _, p: jax.tree.map(lambda p, g: p - 0.1 * g, p, jax.grad(loss)(p)), p
        )
    )(params)
    assert jnp.abs(model.apply(params)[0]).max() < 0.02


MIXED = Features(jnp.array([1.0, 1.2, 0.6, 0.4]), jnp.array([0.9, 0.4, 0.8, 0.3]))
AVERAGED = {
    0.0: (58.4, 105.4), 0.9: (62, 108), 0.99: (80, 126), 0.999: (261.4, 285.0), 0.9995: (460.6, 459.2),
    0.9999: (2050, 1846),
}  # fmt: skip
"""When features 1 and 3 of these are learned with an averaged target, by decay; those of 0.9 and 0.99 to 2 units."""


def averaged_target(decay, steps, every=20, dt=0.05):
    """Encoder norms over time at depth 3 from an aligned start, with the stop-gradient where decay is None."""
    model, moments, tx = network("JEPA", 3), MIXED.moments(), optax.sgd(dt)
    start = aligned(model, 0.05)
    gd = learner("JEPA", model, tx, start) if decay is None else ema_target_learner(model, tx, decay, start)
    return record(gd, encoder_norms(model), steps, every)(gd.init(jax.random.key(0), moments), moments)[1]


def test_an_averaged_target_without_memory_is_the_stop_gradient_bit_for_bit():
    plain, none = (jax.jit(functools.partial(averaged_target, decay, 2_000))() for decay in (None, 0.0))
    np.testing.assert_array_equal(plain, none)


def test_memory_of_the_target_slows_growth_and_in_the_end_turns_the_order(record_property):
    steps = 240_000
    decays = jnp.array(list(AVERAGED))
    seen = np.asarray(jax.jit(jax.vmap(lambda decay: averaged_target(decay, steps)))(decays))
    targets, times = fixed_point("JEPA", 3, np.asarray(MIXED.rho, float)), np.arange(steps // 20) * 1.0
    found = np.array([learned_at(curves, times, targets)[[0, 2]] for curves in seen])
    for (decay, expected), measured in zip(AVERAGED.items(), found, strict=True):
        np.testing.assert_allclose(measured, expected, atol=2.0 if decay in (0.9, 0.99) else 0.5 + 1e-3 * expected[0])
    assert (np.diff(found[:, 0]) > 0).all()
    assert (found[:4, 0] < found[:4, 1]).all()
    assert (found[4:, 0] > found[4:, 1]).all()
    np.testing.assert_allclose(seen[:, -1, [0, 2]], np.broadcast_to(targets[[0, 2]], (6, 2)), rtol=5e-3)
    told = "; ".join(f"{decay}: {a:.0f}, {b:.0f}" for decay, (a, b) in zip(AVERAGED, found, strict=True))
    record_property("value", f"features 1 and 3 learned by decay {told}")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_descended_times_are_those_of_quadrature(objective):
    views = Features(jnp.array([0.9, 1.25]), jnp.array([0.9, 0.5]))
    exact = [critical_time(objective, 3, *map(float, pair), 0.01, 0.5) for pair in zip(*views, strict=True)]
    found = descended_times(objective, 3, views, 0.01, 0.5, 1.1 * max(exact))
    np.testing.assert_allclose(found, exact, rtol=0.01)
    assert np.isinf(descended_times(objective, 3, views, 0.01, 0.5, 0.9 * max(exact))).tolist() == [
        t > 0.9 * max(exact) for t in exact
    ]


def test_norms_of_several_runs_are_those_of_each_along_its_own_basis():
    model, seeds = DeepLinear.of("JEPA", 2, 4), (3, 5)
    gd = learner("JEPA", model, optax.sgd(0.05), orthogonal(model, 0.3))
    bases = jnp.stack([random_basis(jax.random.key(seed), 4) for seed in seeds])
    moments = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(features().moments(q) for q in bases))
    together = norms_over_time(gd, model, moments, seeds, 10, 5, bases)
    for row, seed in enumerate(seeds):
        own = Moments(moments.xx[row], moments.xy[row])
        state = gd.init(seed_keys([seed])[0], own)
        alone = record(gd, encoder_norms(model, bases[row]), 50, 5)(state, own)[1]
        np.testing.assert_allclose(together[row], alone, rtol=1e-10)


def test_principal_directions_of_commuting_views_are_their_features():
    basis, found = principal_directions(features().moments(random_basis(jax.random.key(4), 4)))
    order = np.argsort(LAM, kind="stable")
    np.testing.assert_allclose(found.lam, np.array(LAM)[order], rtol=1e-10)
    np.testing.assert_allclose(
        np.asarray(found.rho)[[0, 3]], np.array(RHO)[order][[0, 3]], rtol=1e-10
    )  # the two others tie in lam
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)


def test_minibatches_fluctuate_about_the_population_run():
    model, moments = network("JEPA", 2), features().moments()
    gd = learner("JEPA", model, optax.sgd(0.02), aligned(model, 0.3))
    sampled = replicate_seeds(with_sampler(gd, minibatch_sampler(256)), 8)
    run = jax.jit(record(sampled, jax.vmap(encoder_norms(model)), 2000, 100))
    many = np.asarray(run(sampled.init(seed_keys(range(8)), moments), moments)[1])
    single = np.asarray(
        jax.jit(record(gd, encoder_norms(model), 2000, 100))(gd.init(jax.random.key(0), moments), moments)[1]
    )
    assert np.abs(many.mean(axis=1) - single).max() < 0.05
    assert many[-1].std(axis=0).max() > 1e-4


def test_generators_have_the_moments_that_they_promise():
    slow = dynamic_features(jnp.array([0.5, 2.0]), jnp.array([0.9, 0.3]), lag=2)
    np.testing.assert_allclose(slow.lam, [0.405, 0.18])
    np.testing.assert_allclose(slow.rho, [0.81, 0.09])
    noisy = static_features(jnp.array([1.0, 1.0]), jnp.array([0.0, 3.0]))
    np.testing.assert_allclose(noisy.rho, [1.0, 0.25])
    population = features().moments(random_basis(jax.random.key(2), 4))
    drawn = sample_moments(population, jax.random.key(3), 400_000)
    np.testing.assert_allclose(drawn.xx, population.xx, atol=0.05)
    np.testing.assert_allclose(drawn.xy, population.xy, atol=0.05)
    masked = masked_moments(jax.random.key(0), 6, 2)
    assert jnp.abs(masked.xx @ masked.xy - masked.xy @ masked.xx).max() > 1e-2
    assert jnp.linalg.eigvalsh(masked.xx).min() > 0


def test_masked_moments_average_over_masks():
    d, key = 4, jax.random.key(0)
    loadings = jax.random.normal(key, (d, 2)) / jnp.sqrt(2)
    covariance = np.asarray(loadings @ loadings.T + 0.3 * jnp.eye(d))
    masks = [np.array([i >> k & 1 for k in range(d)], float) for i in range(2**d)]
    masks = [mask for mask in masks if mask.sum() == d / 2]
    xx = np.mean([np.outer(m, m) * covariance for m in masks], axis=0)
    xy = np.mean([np.outer(m, 1 - m) * covariance for m in masks], axis=0)
    found = masked_moments(key, d, 2)
    np.testing.assert_allclose(found.xx, xx, atol=1e-12)
    np.testing.assert_allclose(found.xy, xy, atol=1e-12)


def test_a_bottleneck_has_the_narrow_width():
    model = DeepLinear(6, 3, width=2)
    w, v = model.apply(model.init(jax.random.key(0)))
    assert (w.shape, v.shape) == ((2, 6), (2, 2))
    decoder = DeepLinear(6, 3, width=2, reconstructs=True)
    assert decoder.apply(decoder.init(jax.random.key(0)))[1].shape == (6, 2)


def test_many_configurations_are_one_compilation_per_depth_with_memory_independent_of_steps(record_property):
    """1,000 configurations of d = 8, L = 3 as one program; its time is measured by ``relic bench jepa``."""
    model, traces, temporary = network("JEPA", 3, 8), [], []

    def run(steps, eps, lam, rho):
        traces.append(steps)
        moments = Features(lam, rho).moments()
        gd = learner("JEPA", model, optax.sgd(0.02), aligned(model, eps))
        return record(gd, encoder_norms(model), steps, steps // 10)(gd.init(jax.random.key(0), moments), moments)[1]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1000,), (1000, 8), (1000, 8))]
    for steps in (100, 10_000):
        compiled = jax.jit(jax.vmap(functools.partial(run, steps))).lower(*shapes).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    assert traces == [100, 10_000]
    assert temporary[0] == temporary[1]
    record_property("value", f"{temporary[1] / 2**20:.1f} MiB of temporaries at 100 steps and at 10,000")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: learner("jepa", network("JEPA", 2), optax.sgd(0.1)), "did you mean 'JEPA'"),
        (lambda: learner("MAE", network("JEPA", 2), optax.sgd(0.1)), "reconstructs=True"),
        (lambda: fixed_point("mae", 2, 0.5), "did you mean 'MAE'"),
        (lambda: rate("Jepa", 2, 1.0, 0.5, 0.1), "did you mean 'JEPA'"),
        (lambda: critical_time("jepa", 2, 1.0, 0.5, 1e-2), "critical_time: objective must be one of 'JEPA', 'MAE'"),
        (lambda: critical_time_series("mae", 2, 1.0, 0.5, 1e-2), "did you mean 'MAE'"),
        (lambda: trajectory("mae", 2, 1.0, 0.5, 1e-2, np.arange(3.0)), "did you mean 'MAE'"),
        (lambda: critical_time("JEPA", 0, 1.0, 0.5, 1e-2), "depth must be"),
        (lambda: critical_time("JEPA", 2, 1.0, 0.5, 0.0), "eps must be"),
        (lambda: critical_time("JEPA", 2, 1.0, 0.5, 1e-2, 1.0), "p must be a number above 0 and below 1"),
        (lambda: aligned(network("JEPA", 2), -0.1), "eps must be"),
        (lambda: minibatch_sampler(0), "size must be"),
        (lambda: ema_target_learner(network("JEPA", 2), optax.sgd(0.1), 1.5), "decay must be"),
        (lambda: record(learner("JEPA", network("JEPA", 2), optax.sgd(0.1)), abs, 3, 5), "nothing would be observed"),
        (lambda: DeepLinear(4, 0).init(jax.random.key(0)), "depth = 0"),
        (lambda: masked_moments(0, 4, 2), "key must be a random key"),
        (lambda: learned_at(np.ones((3, 2)), np.arange(4.0), np.ones(2)), "T is 4 here and 3 in values"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
