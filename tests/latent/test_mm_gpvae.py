"""The multi-modal GP-VAE: who sees what, fusion, training, simulation and alignment."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent import mm_gpvae as gp
from latent.mm_gpvae import MMGPVAE, Expert, Partition, Posterior, Trials

SMALL = {
    "bins": 12, "circle": 32, "shortest": 4.0, "neurons": 5, "outputs": 6, "neural_hidden": (7,),
    "behaviour_hidden": (8,), "decoder_hidden": (9,),
}  # fmt: skip


def model(**changes) -> MMGPVAE:
    return MMGPVAE(**{"partition": Partition(1, 2, 1), **SMALL, **changes})


def trials(count=4, kind=np.float32) -> Trials:
    rng = np.random.default_rng(1)
    found = Trials.of(
        jnp.asarray(rng.poisson(1.0, (count, 12, 5)).astype(kind)),
        jnp.asarray(rng.normal(size=(count, 12, 6)).astype(kind)),
    )
    return found._replace(present=found.present.astype(kind))


@pytest.fixture(scope="module")
def trained():
    net = model()
    return net, jax.jit(lambda key: gp.first_params(net, key, trials()))(jax.random.key(0))


def test_gradient_of_the_bound_equals_finite_differences(record_property):
    with jax.enable_x64(True):
        net, data = model(partition=Partition(1, 1, 1)), trials(2, np.float64)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), gp.first_params(net, jax.random.key(0), data))
        keys = jax.random.split(jax.random.key(1), 2)
        value = jax.jit(lambda p: gp.bound(net, p, keys, data).elbo.sum())
        slope = jax.jit(jax.grad(lambda p: gp.bound(net, p, keys, data).elbo.sum()))(params)
        rng, worst = np.random.default_rng(0), 0.0
        for _ in range(5):
            direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
            moved = [value(jax.tree.map(lambda p, u, s=s: p + s * u, params, direction)) for s in (1e-5, -1e-5)]
            inner = sum(jax.tree.leaves(jax.tree.map(lambda g, u: jnp.sum(g * u), slope, direction)))
            worst = max(worst, abs(float((moved[0] - moved[1]) / 2e-5 / inner) - 1))
    record_property("value", f"relative difference at most {worst:.0e} over 5 directions")
    record_property("interval", (0.0, worst))
    assert worst < 1e-5


def test_each_modality_depends_on_its_own_and_the_shared_latents_only(trained, record_property):
    net, params = trained
    z = jax.random.normal(jax.random.key(2), (3, 12, 4))
    q = Posterior(jax.random.normal(jax.random.key(3), (3, net.basis.matrix.shape[0], 4)), jnp.zeros(()))
    q = q._replace(log_std=jnp.full_like(q.mean, -2.0))

    def rates(q):
        return net.apply(params, q, method="log_rates")[0]

    def images(z):
        return net.apply(params, z, method="decode")

    changed = []
    for column, (in_rates, in_images) in enumerate([(True, False), (True, True), (True, True), (False, True)]):
        moved = q._replace(mean=q.mean.at[..., column].add(1.0))
        differences = [
            float(jnp.abs(rates(moved) - rates(q)).max()),
            float(jnp.abs(images(z.at[..., column].add(1.0)) - images(z)).max()),
        ]
        changed.append([d > 0 for d in differences])
        assert changed[-1] == [in_rates, in_images]
        assert all(d == 0 or d > 1e-3 for d in differences)
    record_property("value", f"latents [neural, shared, shared, behaviour] change (rates, images): {changed}")


def test_without_any_modality_the_posterior_is_the_prior(trained):
    net, params = trained
    for fusion in ("average", "product"):
        q = model(fusion=fusion).apply(params, trials().without(counts=True, behaviour=True), method="posterior")
        variance = net.apply(params, method="prior_variance")
        np.testing.assert_allclose(q.mean, 0.0, atol=1e-7)
        np.testing.assert_allclose(np.exp(2 * q.log_std), np.broadcast_to(variance, q.mean.shape), rtol=1e-5)
        np.testing.assert_allclose(net.apply(params, q, method="kl"), 0.0, atol=1e-3)


@pytest.mark.parametrize("fusion", ["average", "product"])
def test_a_hidden_modality_has_no_influence_and_leaves_its_own_latents_to_the_prior(trained, fusion):
    net, params = model(fusion=fusion), trained[1]
    data = trials()
    other = data._replace(behaviour=data.behaviour + 1.0)
    seen = [net.apply(params, d.without(behaviour=True), method="posterior") for d in (data, other)]
    np.testing.assert_array_equal(seen[0].mean, seen[1].mean)
    np.testing.assert_array_equal(seen[0].mean[..., 3], 0.0)
    assert np.abs(seen[0].mean[..., :3]).min() > 0
    whole = net.apply(params, data, method="posterior")
    np.testing.assert_allclose(seen[0].mean[..., 0], whole.mean[..., 0], rtol=1e-5)
    assert np.abs(seen[0].mean[..., 1] - whole.mean[..., 1]).max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_a_product_of_experts_is_the_normalised_product_of_densities(seed, count):
    rng = np.random.default_rng(seed)
    means, stds = rng.normal(size=(count, 1, 1, 1)), rng.uniform(0.3, 2, (count, 1, 1, 1))
    experts = [Expert(Posterior(m, np.log(s)), np.ones((1, 1, 1))) for m, s in zip(means, stds, strict=True)]
    found = gp.product(experts, np.full((1, 1), 1.7))
    grid = np.linspace(-12, 12, 4001)
    log_density = -(grid**2) / 1.7 / 2 - sum(
        ((grid - m) / s).ravel() ** 2 / 2 for m, s in zip(means, stds, strict=True)
    )
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = (density * grid).sum()
    np.testing.assert_allclose(np.ravel(found.mean), mean, atol=1e-4)
    np.testing.assert_allclose(np.ravel(np.exp(2 * found.log_std)), (density * (grid - mean) ** 2).sum(), rtol=1e-4)


def test_average_fusion_takes_means_of_means_and_of_log_standard_deviations():
    a, b = (
        Expert(Posterior(np.full((1, 1, 1), m), np.full((1, 1, 1), s)), np.ones((1, 1, 1))) for m, s in ((1, 0), (3, 2))
    )
    found = gp.average([a, b], np.ones((1, 1)))
    assert (float(found.mean.ravel()[0]), float(np.ravel(found.log_std)[0])) == (2.0, 1.0)
    alone = gp.average([a, b._replace(weight=np.zeros((1, 1, 1)))], np.ones((1, 1)))
    assert (float(alone.mean.ravel()[0]), float(np.ravel(alone.log_std)[0])) == (1.0, 0.0)


def test_log_rates_are_the_linear_read_out_under_the_posterior(trained):
    net, params = trained
    q = net.apply(params, trials(), method="posterior")
    B, readout = net.basis.matrix, params["params"]["readout"]
    mean, variance = gp.in_time(B, q.mean)[..., :3], gp.variance_in_time(B, q.log_std)[..., :3]
    theirs = gp.read_out(mean, variance, readout["kernel"], readout["bias"])
    for ours, other in zip(net.apply(params, q, method="log_rates"), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(readout["bias"], np.log(trials().counts.mean((0, 1))), rtol=1e-5)


def test_in_the_time_domain_white_noise_is_the_limit_of_short_length_scales():
    data, keys = trials(), jax.random.split(jax.random.key(1), 4)
    white, time = (
        model(domain=domain, mixes_time=False, jitter=0.0, first_length=0.05) for domain in ("white", "time")
    )
    params = gp.first_params(white, jax.random.key(0), data)
    ours, theirs = (gp.bound(net, params, keys, data) for net in (white, time))
    np.testing.assert_allclose(ours.kl, theirs.kl, rtol=1e-4)
    np.testing.assert_allclose(ours.elbo, theirs.elbo, rtol=1e-4)


def test_a_single_modality_and_gaussian_channels_are_models_too():
    data = trials()
    for net, seen in (
        (model(partition=Partition(2, 0, 0), outputs=0, observation="gaussian"), data._replace(behaviour=None)),
        (model(partition=Partition(0, 0, 2), neurons=0, one_length=True), data._replace(counts=None)),
    ):
        params = gp.first_params(net, jax.random.key(0), seen)
        terms = gp.bound(net, params, jax.random.split(jax.random.key(1), 4), seen)
        assert np.isfinite(terms.elbo).all()
        assert (np.asarray(terms.neural) != 0).all() == bool(net.neurons)
        assert (np.asarray(terms.behaviour) != 0).all() == bool(net.outputs)


def test_the_behaviour_term_weighs_little_at_first():
    weight = gp.rising(0.03, 100, 200)
    assert [round(float(weight(step)), 3) for step in (0, 100, 150, 200, 900)] == [0.03, 0.03, 0.515, 1.0, 1.0]
    sampler = gp.weighted(lambda data, key, step: data, weight)
    assert float(sampler("all", None, jnp.int32(150))[1]) == pytest.approx(0.515)


@pytest.mark.slow
def test_the_released_optimiser_has_a_rate_per_network(trained):
    params = trained[1]
    tx = gp.reference_optimizer()
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    step = {name: float(jnp.abs(jax.tree.leaves(part)[0]).max()) for name, part in updates["params"].items()}
    assert step["readout"] == pytest.approx(8.8e-3, rel=1e-3)
    assert step["sees_counts"] == pytest.approx(7.72e-4, rel=1e-3)
    assert step["decoder"] == pytest.approx(1.6e-4, rel=1e-3)


@pytest.mark.slow
def test_hiding_behaviour_in_training_changes_recognition_only_where_it_is_drawn():
    data, net = trials(), model()
    batch = (data, jnp.ones(()))
    learner = gp.learner(net, optax.sgd(0.0))
    state = learner.init(jax.random.key(0), batch)
    always = gp.learner(net, optax.sgd(0.0), hide_behaviour=1.0).update(state, batch)[1]
    hidden = learner.update(state, (data.without(behaviour=True), jnp.ones(())))[1]
    plain = learner.update(state, batch)[1]
    assert float(always["elbo"]) == pytest.approx(float(hidden["elbo"]), rel=1e-5)
    assert abs(float(plain["elbo"]) - float(always["elbo"])) > 1e-2


@pytest.fixture(scope="module")
def world():
    digits = jax.jit(gp.drawn_threes, static_argnums=1)(jax.random.key(0), 4)
    simulate = jax.jit(lambda key: gp.simulate(key, digits, trials=300, bins=20, neurons=12, side=4, length=5.0))
    return digits, simulate(jax.random.key(1))


def test_simulated_latents_have_the_stated_covariance_and_counts_the_stated_rates(world, record_property):
    _, sim = world
    centred = np.asarray(sim.latents) - np.array([0, 0, 1.0])
    kernel = np.exp(-((np.arange(20)[:, None] - np.arange(20)) ** 2) / 50)
    for column, variance in enumerate((0.5, 0.3, 0.8)):
        found = np.einsum("bt,bu->tu", centred[..., column], centred[..., column]) / 300
        error = np.abs(found - variance * kernel) / (variance * np.sqrt((1 + kernel**2) / 300))
        assert error.max() < 5  # standard errors, 400 correlated entries
    z = (np.asarray(sim.counts) - np.asarray(sim.rates)).sum((0, 1)) / np.sqrt(np.asarray(sim.rates).sum((0, 1)))
    record_property("value", f"largest deviation of a neuron's count {np.abs(z).max():.1f} standard errors")
    assert np.abs(z).max() < 4
    assert 0 <= float(sim.images.min()) <= float(sim.images.max()) <= 1
    np.testing.assert_allclose(sim.zoom, np.abs(np.asarray(sim.latents)[..., 2]))


def test_a_frame_turns_and_grows_with_its_digit(world):
    digit = world[0][0]
    upright = np.asarray(gp.warp(digit, jnp.float32(0), jnp.float32(1)))
    np.testing.assert_allclose(upright[4:-4, 4:-4], digit, atol=1e-5)
    quarter = np.asarray(gp.warp(digit, jnp.float32(90), jnp.float32(1)))
    same = [np.abs(quarter - np.rot90(upright, turns)).max() for turns in (1, -1)]
    assert min(same) < 1e-3 < max(same)
    half = np.asarray(gp.warp(digit, jnp.float32(0), jnp.float32(0.5)))
    assert half.sum() == pytest.approx(upright.sum() / 4, rel=0.05)
    np.testing.assert_allclose(
        gp.warp(digit, jnp.float32(0), jnp.float32(1), 12), upright.reshape(12, 3, 12, 3).mean((1, 3)), atol=1e-6
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_alignment_undoes_affine_maps_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(6, 20, 2))
    mixed = truth @ rng.normal(size=(2, 2)) + rng.normal(size=2)
    assert gp.score(mixed, truth[..., 0], [0, 1]).aligned == pytest.approx(1, abs=1e-6)
    assert gp.score(mixed, truth[..., 0], [0, 1]).one_to_one <= 1 + 1e-9
    assert gp.affine_r2(rng.normal(size=(6, 20, 2)), truth[..., 0]) < 0.2
    assert gp.score(mixed, truth[..., 0], []) == (0.0, 0.0)


def test_bits_per_spike_are_zero_for_mean_rates_and_the_divergence_for_true_ones():
    rng = np.random.default_rng(0)
    rates = np.exp(rng.normal(size=(200, 30, 3)))
    counts, mean = rng.poisson(rates), rates.mean((0, 1))
    assert gp.bits_per_spike(counts, np.broadcast_to(mean, rates.shape), mean) == 0.0
    divergence = (rates * np.log(rates / mean) - rates + mean).sum() / rates.sum() / np.log(2)
    assert gp.bits_per_spike(counts, rates, mean) == pytest.approx(divergence, rel=0.05)
    assert gp.r2(rates, rates) == 1.0
    assert gp.r2(rates, np.broadcast_to(mean, rates.shape)) == pytest.approx(0.0, abs=1e-12)


def test_exact_gpfa_finds_simulated_factors(record_property):
    rng, basis = np.random.default_rng(0), gp.fourier_basis(30, 60, 5.0)
    z = np.asarray(gp.gp_draws(jax.random.key(0), 40, 30, 5.0, 1.0))
    y = jnp.asarray(z[..., None] * rng.normal(size=8) + 0.3 * rng.normal(size=(40, 30, 8)), jnp.float32)
    learner = gp.gpfa_learner(basis, 1, optax.adam(3e-2))
    state = jax.jit(learner.init)(jax.random.key(1), y)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: learner.update(s, y), state, length=150))
    state, history = run(state)
    found = gp.affine_r2(np.asarray(gp.gpfa_latents(basis, state.params, y)), z)
    length = float(jnp.exp(state.params.log_length[0]))
    record_property("value", f"R2 {found:.3f}, length scale {length:.1f} where the truth is 5")
    assert found > 0.95
    assert 4 < length < 6.5
    assert history["loss"][-1] < history["loss"][0]
