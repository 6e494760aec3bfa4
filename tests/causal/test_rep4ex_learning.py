import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal import rep4ex as rep
from core.batches import epoch_sampler
from core.errors import ConfigError
from core.learner import with_sampler
from core.loop import scan_steps

CODER = rep.Autoencoder(2, 4, (8,))


def batch(n: int = 64, lam: float = 1.0) -> rep.Batch:
    rng = np.random.default_rng(0)
    x, a = (jnp.asarray(rng.standard_normal((n, c)), jnp.float32) for c in (4, 2))
    return rep.Batch(x, a, jnp.float32(lam), jnp.float32(1.0))


def test_worlds_have_the_documented_draws():
    """The stream of the first world, drawn by hand: a block that is thrown away, M0, Sigma."""
    world, sample = rep.gen1(10, 5, rep.Design(2))
    rng = np.random.default_rng(10)
    rng.uniform(-2, 2, (2, 2))
    left, right = (np.linalg.qr(rng.standard_normal((2, 2)))[0] for _ in range(2))
    np.testing.assert_allclose(world.M0, left @ np.diag(rng.uniform(0.8, 1.6, 2)) @ right)
    L = rng.standard_normal((2, 2))
    Sigma = L @ L.T / 2 + 0.5 * np.eye(2)
    np.testing.assert_allclose(world.Sigma, Sigma / np.trace(Sigma) * 2)
    np.testing.assert_allclose(sample.z, 2 * sample.a @ world.M0.T + sample.v)
    assert np.abs(sample.a).max() <= 1
    singular = [np.linalg.svd(layer, compute_uv=False) for layer in world.layers]
    assert all((s >= 0.7).all() and (s <= 1.3).all() for s in singular)


@pytest.mark.parametrize("law", ["normal", "laplace", "bounded"])
def test_every_law_of_v_has_the_same_covariance(law):
    world, sample = rep.gen1(3, 40_000, rep.Design(2, law=law))
    np.testing.assert_allclose(np.cov(sample.v.T), world.Sigma, atol=0.06)


def test_the_closed_form_of_the_effect_is_the_mean_over_draws():
    world, sample, _ = rep.gen2(1, 200_000, rep.Design(2))
    actions = rep.outside(0, 6, 2, 1.0, 2.0)
    outcomes = rep.Outcomes()
    exact = outcomes.under_intervention(world, actions)
    np.testing.assert_allclose(outcomes.simulated(world, sample.v, actions), exact, atol=0.02)
    assert (np.abs(actions).max(axis=1) > 1).all()


def test_images_show_the_latents():
    _, sample = rep.gen3(2, 50, rep.Design(2))
    images = sample.x.reshape(-1, 32, 32)
    grid = np.arange(32) - 15.5
    mass = images.sum(axis=(1, 2))
    place = np.stack([(images.sum(axis=2) @ grid) / mass, (images.sum(axis=1) @ grid) / mass], axis=1)
    near = np.abs(sample.z).max(axis=1) < 3
    np.testing.assert_allclose(place[near] / 1.8, sample.z[near], atol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rep.gen1(0, 0, rep.Design()), "n must be a number of at least 1"),
        (lambda: rep.gen1(0, 5, rep.Design(d=4, m=3)), "raise m"),
        (lambda: rep.gen1(0, 5, rep.Design(law="cauchy")), "no law 'cauchy'"),  # pyright: ignore[reportArgumentType]
        (lambda: rep.gen3(0, 5, rep.Design(d=3)), "d must be 2"),
        (lambda: rep.standardise(np.ones((4, 2)), np.ones((5, 1))), "same number of rows"),
        (lambda: rep.standardise(np.eye(3), np.eye(3)), "do not suffice"),
        (lambda: rep.standardise(np.full((9, 2), np.nan), np.ones((9, 1))), "finite"),
        (lambda: rep.standardise(np.ones((9, 2)), np.arange(9.0)[:, None]), "x does not vary"),
        (lambda: rep.standardise(np.eye(9), np.ones((9, 1))), "linearly dependent"),
        (lambda: rep.median_bandwidth(np.ones((9, 1))), "do not vary"),
        (lambda: rep.polynomial(0), "degree"),
    ],
)
def test_bad_inputs_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_lambda_is_the_largest_that_reconstructs():
    most = rep.cutoff(0.1, 1.0)
    assert most == pytest.approx(0.121)
    assert rep.largest_lambda((0.1, 1.0, 10.0), (0.10, 0.12, 0.2), most) == 1.0
    assert rep.largest_lambda((0.1, 1.0), (0.5, 0.6), most) == 0.0


def test_without_a_penalty_the_loss_is_the_reconstruction():
    params = rep.representation_learner(CODER, optax.sgd(1.0)).init(jax.random.key(0), batch()).params
    value, metrics = jax.jit(rep.objective, static_argnums=0)(CODER, params, jax.random.key(0), batch(lam=0.0))
    np.testing.assert_allclose(value, metrics["reconstruction"], rtol=1e-6)
    assert metrics["restriction"] > 0


@pytest.mark.parametrize("coder", [rep.Vae(2, 4, (8,)), rep.Vae(2, 4, (8,), auxiliary=True)])
@pytest.mark.slow
def test_divergences_equal_those_of_normals(coder):
    """KL(q || p) by Monte Carlo over the posterior that the encoder gives."""
    data = batch(4)
    params = coder.init(jax.random.key(1), data.x, data.a, jnp.zeros((4, 2)))
    coded = coder.apply(params, data.x, data.a, jnp.zeros((4, 2)))
    seen = jnp.concatenate([data.x, data.a], axis=1) if coder.auxiliary else data.x
    inner = params["params"]
    q = rep.Mlp(4, (8,)).apply({"params": inner["encoder"]}, seen)
    p = rep.Mlp(4, (8,)).apply({"params": inner["prior"]}, data.a) if coder.auxiliary else jnp.zeros((4, 4))
    noise = jax.random.normal(jax.random.key(2), (20_000, 4, 2))
    z = q[:, :2] + jnp.exp(q[:, 2:] / 2) * noise
    logpdf = jax.scipy.stats.norm.logpdf
    ratio = logpdf(z, q[:, :2], jnp.exp(q[:, 2:] / 2)) - logpdf(z, p[:, :2], jnp.exp(p[:, 2:] / 2))
    np.testing.assert_allclose(coded.divergence, ratio.sum(-1).mean(), rtol=0.03)
    np.testing.assert_allclose(coded.code, q[:, :2], rtol=1e-5)


@pytest.mark.slow
def test_dual_ascent_keeps_the_reconstruction_under_its_limit():
    data, rng = batch(256), np.random.default_rng(1)
    z = data.a @ jnp.ones((2, 2)) + jnp.asarray(rng.standard_normal((256, 2)), jnp.float32)
    data = data._replace(x=jnp.concatenate([z, jnp.tanh(z)], axis=1), lam=jnp.float32(0.1))
    learner = rep.constrained(rep.representation_learner(CODER, optax.adam(1e-2)))
    state = learner.init(jax.random.key(0), data)
    state, metrics = jax.jit(scan_steps(learner, 400).update)(state, data)
    assert metrics["reconstruction"][-50:].mean() < 0.12
    assert metrics["lambda"][-1] != metrics["lambda"][0]


@pytest.mark.slow
def test_runs_of_a_pool_are_the_same_however_many_are_vmapped():
    worlds = [rep.standardise(*(np.asarray(part) for part in batch(40)[:2]))] * 2
    pool = rep.pool(worlds, np.array([0, 1, 1]), [0.0, 1.0, 2.0])
    single = rep.representation_learner(CODER, optax.adam(1e-2))
    ends = []
    for at_once in (None, 1):
        learner = rep.pool_learner(single, 3, 20, at_once)
        state = learner.init(jax.random.key(0), pool)
        ends.append(jax.jit(scan_steps(learner, 3).update)(state, pool)[0].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *ends)


def test_a_step_with_random_features_holds_no_square_of_the_batch(record_property):
    n = 16_384
    learner = rep.representation_learner(
        CODER, optax.adam(1e-3), rep.fourier_statistic(jax.random.normal(jax.random.key(0), (2, 32)))
    )
    data = batch(n)
    state = learner.init(jax.random.key(0), data)
    text = jax.jit(learner.update).lower(state, data).as_text()
    assert f"{n}x{n}" not in text
    exact = jax.jit(rep.representation_learner(CODER, optax.adam(1e-3)).update).lower(state, data).as_text()
    assert f"{n}x{n}" in exact, "the kernel itself must show up, or this test sees nothing"
    record_property("value", "no array of 16,384 x 16,384 in the program of a step; the kernel's program has it")


def test_latents_are_recovered_up_to_an_affine_map_only():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((400, 2)))
    assert rep.recovered(z @ jnp.array([[1.0, 0.5], [-0.3, 2.0]]) + 1.0, z).r2 > 0.999
    assert rep.recovered(z**2, z).r2 < 0.2
    assert rep.recovered(z[:, ::-1], z).mcc > 0.999


def test_the_test_of_the_constraint_rejects_bent_codes_only():
    _, sample = rep.gen1(7, 400, rep.Design(2))
    a = jnp.asarray(sample.a, jnp.float32)
    energy = rep.kernel_energy(a, jnp.float32(rep.median_bandwidth(sample.a)))
    test = jax.jit(lambda w: rep.constraint_test(jax.random.key(0), w, a, energy, 99))
    z = jnp.asarray(sample.z, jnp.float32)
    assert test(z @ jnp.array([[1.0, 0.3], [0.0, 2.0]])).p > 0.05
    assert test(z + 0.3 * z**2).p < 0.05


def test_the_first_stage_tells_what_actions_do_not_move():
    rng = np.random.default_rng(0)
    a, v = (jnp.asarray(rng.standard_normal((500, 2))) for _ in range(2))
    strong = rep.strength(rep.first_stage(2.0 * a + v, a), a)
    useless = rep.strength(rep.first_stage(jnp.stack([2.0 * a[:, 0] + v[:, 0], v[:, 1]], axis=1), a), a)
    np.testing.assert_allclose(strong.relative, 2.0, atol=0.3)
    assert not strong.weak
    assert useless.weak


def test_far_actions_are_outside_of_the_support():
    rng = np.random.default_rng(1)
    a, v = jnp.asarray(rng.uniform(-1, 1, (600, 2))), jnp.asarray(rng.standard_normal((600, 2)))
    w = a + v
    near, far = rep.outside_support(rep.first_stage(w, a), w, jnp.array([[0.0, 0.0], [9.0, 9.0]]))
    assert near < 0.1
    assert far > 0.9


def test_bootstrap_intervals_have_the_width_of_the_mean():
    y = jnp.asarray(np.random.default_rng(2).standard_normal(400))
    low, high = rep.bootstrap(jax.random.key(0), lambda y: y.mean(keepdims=True), (y,), 200).interval()
    np.testing.assert_allclose(high - low, 2 * 1.96 * y.std() / 20, rtol=0.2)


@pytest.mark.slow
def test_networks_of_step_two_learn_an_additive_outcome(full_compilation):
    rng = np.random.default_rng(3)
    a, v = (jnp.asarray(rng.standard_normal((500, 2)), jnp.float32) for _ in range(2))
    w = a + v
    y = jnp.sin(w[:, 0]) + v[:, 1]
    stage = rep.first_stage(w, a)
    learner = with_sampler(rep.networks_learner(optax.adam(3e-3), (32,)), epoch_sampler(100))
    rows = rep.Additive(stage.codes(w), stage.noise(), y - y.mean())
    state = learner.init(jax.random.key(0), rows)
    params = jax.jit(scan_steps(learner, 1_000).update)(state, rows)[0].params
    outcome = rep.network_outcome(params, stage, w, y, (32,))
    fitted = rep.conditional(stage, outcome, w, a)
    assert jnp.mean((fitted - y) ** 2) < 0.1 * y.var()
    np.testing.assert_allclose(fitted.mean(), y.mean(), atol=1e-4)


@pytest.mark.slow
def test_engression_learns_the_law_of_a_noisy_line(full_compilation):
    x = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (1_000, 1)), jnp.float32)
    noise = jax.random.normal(jax.random.key(5), (1_000,))
    learner = with_sampler(rep.engression_learner(optax.adam(3e-3), (32,)), epoch_sampler(200))
    rows = rep.Rows(x, 2 * x[:, 0] + 0.5 * noise)
    state = learner.init(jax.random.key(0), rows)
    params = jax.jit(scan_steps(learner, 1_000).update)(state, rows)[0].params
    found = rep.engression_mean(params, jax.random.key(1), jnp.array([[-0.5], [0.5]]), hidden=(32,))
    np.testing.assert_allclose(found, [-1.0, 1.0], atol=0.2)
