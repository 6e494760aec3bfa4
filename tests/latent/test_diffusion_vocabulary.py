"""Schedules, parameterisations, weightings, the variational bound and guidance."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings

from core.learner import gradient_learner, step_key
from latent import diffusion
from latent.diffusion import Conditioned, Guided, Level, Query

MEAN, VARIANCE = 0.7, 0.16
DATA = diffusion.gaussian(MEAN, VARIANCE)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


# --- schedules --------------------------------------------------------------------------------------------------------


def test_chains_have_the_published_levels(record_property):
    linear, cosine = diffusion.linear_beta(1000).alpha_bar, diffusion.cosine_beta(1000).alpha_bar
    worst = 0.0
    for chain, at, expected in (
        (linear, [0, 1, 499, 999], [0.9999, 0.999780092, 0.0785872429, 4.03582977e-05]),
        (cosine, [0, 1, 499, 998], [0.999958716, 0.999912576, 0.493843590, 2.42876691e-06]),
    ):
        np.testing.assert_allclose(chain[at], expected, rtol=1e-8)
        worst = max(worst, np.abs(chain[at] / expected - 1).max())
    record_property("value", f"relative difference {worst:.1e}")
    np.testing.assert_allclose(linear[-1] ** 0.5, 0.0063528, rtol=1e-4)


SCHEDULES = {
    "linear_vp": diffusion.linear_vp(),
    "cosine": diffusion.cosine(),
    "cosine_logsnr": diffusion.cosine_logsnr(-12.0, 12.0, shift=-1.0),
    "linear_logsnr": diffusion.linear_logsnr(),
    "tabulated": diffusion.tabulated(diffusion.linear_logsnr().logsnr),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_fall_and_their_inverse_inverts(double, name):
    schedule, t, step = SCHEDULES[name], np.linspace(0.01, 0.99, 99), 1e-5

    @jax.jit
    def read(t):
        level = schedule.logsnr(t)
        rise = schedule.logsnr(t + step) - schedule.logsnr(t - step)
        return level, schedule.time(level), diffusion.slope(schedule, t)[1], rise / (2 * step)

    level, time, slope, numeric = read(t)
    assert (np.diff(level) < 0).all()
    np.testing.assert_allclose(time, t, atol=1e-5)
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)


def test_the_continuous_linear_schedule_is_the_limit_of_the_chain():
    chain = diffusion.linear_beta(100_000)
    with jax.enable_x64(True):
        level = diffusion.linear_vp(0.1, 19.9).logsnr(jnp.array([0.25, 0.5, 1.0]))
    np.testing.assert_allclose(level, chain.logsnr[[24_999, 49_999, 99_999]], rtol=1e-3)


GAMMA = diffusion.MonotoneGamma(width=16)


@functools.cache
def gamma_at():
    """A jitted net and its parameters."""
    return jax.jit(GAMMA.apply), GAMMA.init(jax.random.key(0), jnp.zeros(()))


@given(st.floats(-20, 20), st.floats(0.01, 1.0))
@settings(max_examples=25, deadline=None)
def test_learned_gammas_rise(offset, gap):
    apply, params = gamma_at()
    shifted = jax.tree.map(lambda p: np.asarray(p) + np.float32(offset * 0.1), params)
    low, high = apply(shifted, np.array([0.3 * (1 - gap), 0.3 * (1 - gap) + 0.7 * gap], np.float32))
    assert high >= low


def test_learned_gammas_start_where_they_should():
    for net in (diffusion.ScalarGamma(), diffusion.MonotoneGamma()):
        gamma = functools.partial(net.apply, net.init(jax.random.key(0), jnp.zeros(())))
        np.testing.assert_allclose(gamma(jnp.array([0.0, 1.0])), [-13.3, 5.0], atol=2.0)
    pinned = diffusion.pinned(gamma, -13.3, 5.0)
    np.testing.assert_allclose(pinned.logsnr(jnp.array([0.0, 1.0])), [13.3, -5.0], rtol=1e-6)


def test_zero_terminal_snr_ends_in_pure_noise():
    rescaled = diffusion.zero_terminal_snr(diffusion.linear_beta(1000))
    assert rescaled.alpha_bar[-1] == 0
    np.testing.assert_allclose(rescaled.alpha_bar[0], 0.9999, rtol=1e-12)
    grid = diffusion.chain(rescaled, 10)
    v_net = diffusion.denoiser(lambda p, x, t, c: 0.1 * x, "v")
    start = jax.random.normal(jax.random.key(0), (4, 2))
    assert np.isfinite(diffusion.sample(diffusion.ddim(grid), v_net, Conditioned(None), start)).all()


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_spacings_are_increasing_levels_of_the_chain(steps, count):
    if count > steps:
        with pytest.raises(ValueError, match="cannot choose"):
            diffusion.respaced(steps, count)
        return
    for spacing in (diffusion.respaced, diffusion.leading, diffusion.trailing):
        chosen = spacing(steps, count)
        assert len(chosen) == count
        assert (np.diff(chosen) > 0).all()
        assert chosen[0] >= 0
        assert chosen[-1] < steps
    if count > 1:
        assert diffusion.respaced(steps, count)[[0, -1]].tolist() == [0, steps - 1]
    assert diffusion.trailing(steps, count)[-1] == steps - 1


# --- parameterisations and weightings ---------------------------------------------------------------------------------

KINDS = ["x0", "eps", "v", "score", "edm"]


def level_at(logsnr):
    return Level(*diffusion.scales(logsnr), logsnr, jnp.zeros_like(logsnr))


@pytest.mark.parametrize("kind", KINDS)
@given(st.floats(-10, 10), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_raw_outputs_go_to_predictions_and_back(kind, logsnr, x0, eps):
    level = level_at(jnp.float32(logsnr))
    x0, eps = jnp.full((1, 1), x0, jnp.float32), jnp.full((1, 1), eps, jnp.float32)
    x = level.a * x0 + level.s * eps
    found = diffusion.from_raw(kind, diffusion.to_raw(kind, x0, eps, level), x, level)
    # Where a division by a or by s is unavoidable, rounding of x is amplified by it and by nothing more.
    grain = 1e-6 * (abs(x0) + abs(eps) + 1)
    assert abs(found.x0 - x0) <= 10 * grain * max(1, 1 / level.a if kind in ("eps", "score") else 1)
    assert abs(found.eps - eps) <= 10 * grain * max(1, 1 / level.s if kind == "x0" else 1)


def test_raw_outputs_return_from_predictions_and_from_every_other_parameterisation(record_property):
    """In float32, relative to the largest entry. Through another parameterisation rounding may grow by 1 / a or 1 / s:
    what is left of x_0 in eps at low SNR, or of eps in x_0 at high SNR, has so many digits and no more.
    """
    x0, eps = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    own, through = 0.0, 0.0
    for logsnr in np.linspace(-10, 10, 41, dtype=np.float32):
        level = level_at(jnp.float32(logsnr))
        x, grain = level.a * x0 + level.s * eps, 1e-6 / min(float(level.a), float(level.s))
        for kind in KINDS:
            raw = diffusion.to_raw(kind, x0, eps, level)
            there = diffusion.from_raw(kind, raw, x, level)
            for other in KINDS:
                back = diffusion.from_raw(other, diffusion.to_raw(other, *there, level), x, level)
                for found, direct in ((there, True), (back, False)):
                    returned = diffusion.to_raw(kind, *found, level)
                    missed = float(jnp.max(jnp.abs(returned - raw)) / jnp.max(jnp.abs(raw)))
                    own, through = (max(own, missed), through) if direct else (own, max(through, missed))
                    assert missed < (1e-5 if direct else max(1e-5, grain)), (kind, other, float(logsnr))
    record_property("value", f"largest relative difference {own:.1e}, through another parameterisation {through:.1e}")


def test_errors_of_parameterisations_are_multiples_of_each_other(double, record_property):
    x0, eps, shift = np.random.default_rng(0).normal(size=(3, 41, 3))

    @jax.jit
    def ratios(logsnr, x0, eps, wrong):
        found = []
        level = level_at(logsnr)
        a, s = level.a[:, None], level.s[:, None]
        guess = eps + a * (x0 - wrong) / s  # the same noisy sample, explained by another x_0
        eps_error = jnp.sum((guess - eps) ** 2, 1)
        for kind in KINDS:
            right, raw = (diffusion.to_raw(kind, *pair, level) for pair in ((x0, eps), (wrong, guess)))
            found.append(eps_error / jnp.sum((right - raw) ** 2, 1) / diffusion.on_raw(kind, logsnr))
        return found

    worst = max(float(np.abs(r - 1).max()) for r in ratios(np.linspace(-10, 10, 41), x0, eps, x0 + 0.1 * shift))
    record_property("value", f"largest relative difference {worst:.1e}")
    assert worst < 1e-5


def test_weightings_are_those_of_their_papers():
    logsnr = jnp.linspace(-8, 8, 33)
    drawn = diffusion.Drawn(level_at(logsnr), -jnp.ones(33) * 3, jnp.ones(33))
    snr, variance = jnp.exp(logsnr), jnp.exp(-logsnr)
    on_x0 = {
        diffusion.simple: snr,
        diffusion.min_snr(5.0): jnp.minimum(snr, 5),
        diffusion.velocity: 1 + snr,
        diffusion.edm(0.5): (variance + 0.25) / (variance * 0.25),
        diffusion.variational: 1.5 * snr,
    }
    for weighting, expected in on_x0.items():
        np.testing.assert_allclose(weighting(drawn) * diffusion.on_raw("x0", logsnr), expected, rtol=1e-5)
    on_v = diffusion.min_snr(5.0)(drawn) * diffusion.on_raw("v", logsnr)
    np.testing.assert_allclose(on_v, jnp.minimum(snr, 5) / (snr + 1), rtol=1e-5)
    soft = diffusion.soft_min_snr(1.0)(drawn) * diffusion.on_raw("edm", logsnr)
    np.testing.assert_allclose(soft, variance / (variance + 1) ** 2, rtol=1e-5)
    schedule = diffusion.linear_logsnr()
    t = jnp.array([0.3, 0.8])
    gap = diffusion.discrete_gap(schedule, t, 1_000)
    np.testing.assert_allclose(gap, -diffusion.slope(schedule, t)[1] / 2, rtol=0.02)


# --- the variational bound --------------------------------------------------------------------------------------------


def bound(schedule, x, key, times=diffusion.stratified_times):
    return diffusion.variational_bound(schedule, DATA, None, x, key, times=times)


@pytest.mark.parametrize(
    ("ends", "terms"),
    [((-13.3, 5.0), (5.733176, -5.231061, 0.002186)), ((-20.0, 12.0), (9.083709, -8.581061, 2.0e-6))],
)
def test_the_bound_on_gaussian_data_is_its_closed_form(double, ends, terms, record_property):
    schedule, count = diffusion.linear_logsnr(-ends[0], -ends[1]), 200_000
    x = MEAN + VARIANCE**0.5 * jax.random.normal(jax.random.key(0), (count, 1))
    found = jax.jit(functools.partial(bound, schedule))(x, jax.random.key(1))
    closed = 0.5 * np.log((1 + VARIANCE * np.exp(-ends[0])) / (1 + VARIANCE * np.exp(-ends[1])))
    assert abs(closed - terms[0]) < 1e-6
    for part, expected in zip(found, terms, strict=True):
        error = 4 * float(part.std()) / count**0.5
        assert abs(float(part.mean()) - expected) < error + 1e-6
    entropy = scipy.stats.norm(scale=VARIANCE**0.5).entropy()
    record_property("value", f"bound {float(found.total.mean()):.4f} nats, entropy {entropy:.4f}")
    assert float(found.total.mean()) > entropy - 4 * float(found.total.std()) / count**0.5


def test_the_diffusion_term_does_not_see_the_path_between_the_ends():
    net = diffusion.MonotoneGamma(width=32)
    gamma = functools.partial(net.apply, net.init(jax.random.key(3), jnp.zeros(())))
    ends, count = (-13.3, 5.0), 100_000
    x = MEAN + VARIANCE**0.5 * jax.random.normal(jax.random.key(0), (count, 1))
    paths = {
        "linear": diffusion.linear_logsnr(13.3, -5.0),
        "cosine": diffusion.cosine_logsnr(-5.0, 13.3),
        "monotone net": diffusion.pinned(gamma, *ends),
    }
    for name, schedule in paths.items():
        terms = jax.jit(functools.partial(bound, schedule))(x, jax.random.key(1)).diffusion
        assert abs(float(terms.mean()) - 5.733176) < 4 * float(terms.std()) / count**0.5, name


def test_the_loss_of_a_linear_denoiser_on_gaussian_data_is_its_closed_form(double, record_property):
    """With eps^ = c x: E|eps^ - eps|^2 = (c s - 1)^2 + c^2 a^2 (m^2 + v), integrated over the log SNR."""
    slope, count = 0.8, 50_000
    denoise = diffusion.denoiser(lambda params, x, t, cond: slope * x)
    x = MEAN + VARIANCE**0.5 * jax.random.normal(jax.random.key(0), (count, 1))

    def at(logsnr):
        a2, s2 = 1 / (1 + np.exp(-logsnr)), 1 / (1 + np.exp(logsnr))
        return ((slope * s2**0.5 - 1) ** 2 + slope**2 * a2 * (MEAN**2 + VARIANCE)) / 2

    exact, _ = scipy.integrate.quad(at, -5.0, 8.0)
    for schedule in (diffusion.linear_logsnr(8.0, -5.0), diffusion.cosine_logsnr(-5.0, 8.0)):
        found = diffusion.variational_bound(schedule, denoise, Conditioned(None), x, jax.random.key(1)).diffusion
        assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / count**0.5
    record_property("value", f"{float(found.mean()):.3f} nats, exactly {exact:.3f}")


@functools.cache
def learned_start():
    """A learned bound of Gaussian data in 16 dimensions, where it starts, and its data."""
    _, shape = gamma_at()
    x = MEAN + VARIANCE**0.5 * jax.random.normal(jax.random.key(5), (64, 16))
    fn = diffusion.learned_bound(GAMMA.apply, diffusion.gaussian(MEAN, VARIANCE))
    return fn, diffusion.Learned(jnp.float32(-8.0), jnp.float32(5.0), shape, None), x


def test_gradients_of_a_learned_schedule_are_of_the_bound_at_its_ends_and_of_the_variance_between():
    fn, start, x = learned_start()
    key = jax.random.key(2)

    def plain(learned):
        schedule = diffusion.pinned(lambda t: GAMMA.apply(learned.shape, t), learned.first, learned.last)
        return diffusion.variational_bound(schedule, diffusion.gaussian(MEAN, VARIANCE), None, x, key)

    ours, theirs = jax.jit(lambda p: (fn(p, key, x), plain(p)))(start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)
    trained, mean, square = jax.jit(
        lambda p: (
            jax.grad(lambda p: fn(p, key, x).total.mean())(p),
            jax.grad(lambda p: plain(p).total.mean())(p),
            jax.grad(lambda p: (plain(p).diffusion ** 2).mean())(p),
        )
    )(start)
    np.testing.assert_allclose(trained[:2], mean[:2], rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2), trained.shape, square.shape)


def test_a_learned_path_lowers_the_variance_of_the_bound_and_not_its_mean(record_property):
    fn, start, _ = learned_start()
    tx = optax.adam(0.03)

    def draw(key):
        return MEAN + VARIANCE**0.5 * jax.random.normal(key, (256, 16))

    @jax.jit
    def train(learned):
        def body(carry, key):
            shape, state = carry
            data_key, key = jax.random.split(key)
            slope = jax.grad(lambda shape: fn(learned._replace(shape=shape), key, draw(data_key)).total.mean())(shape)
            updates, state = tx.update(slope, state)
            return (optax.apply_updates(shape, updates), state), None

        keys = jax.random.split(jax.random.key(1), 300)
        return learned._replace(shape=jax.lax.scan(body, (learned.shape, tx.init(learned.shape)), keys)[0][0])

    @jax.jit
    def spread(learned):
        terms = jax.vmap(lambda k: fn(learned, k, draw(jax.random.fold_in(k, 9))).diffusion)(
            jax.random.split(jax.random.key(3), 40)
        )
        return terms.mean(), terms.std()

    (mean, before), (after_mean, after) = spread(start), spread(train(start))
    record_property("value", f"deviation of the diffusion term {float(before):.2f} before and {float(after):.2f} after")
    assert after < 0.8 * before
    assert abs(float(after_mean - mean)) < 5 * float(before) / (40 * 256) ** 0.5


@pytest.mark.usefixtures("full_compilation")
def test_stratified_times_cut_the_variance_of_a_batch(record_property):
    schedule = diffusion.linear_logsnr(13.3, -5.0)

    def spread(times, dim):
        def one(key):
            data_key, key = jax.random.split(key)
            x = MEAN + VARIANCE**0.5 * jax.random.normal(data_key, (128, dim))
            return bound(schedule, x, key, times).diffusion.mean()

        return float(jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), 250)).var())

    ratio = {dim: spread(diffusion.uniform_times, dim) / spread(diffusion.stratified_times, dim) for dim in (1, 784)}
    record_property("value", f"variance smaller {ratio[784]:.0f}-fold in 784 dimensions, {ratio[1]:.2f}-fold in one")
    assert 50 < ratio[784] < 130
    assert 0.9 < ratio[1] < 1.5


# --- guidance ---------------------------------------------------------------------------------------------------------


def two_laws():
    """Unconditional N(0, 1), conditional N(c, 0.25): exact, with the null condition marked by NaN."""

    def denoise(operands, query):
        absent = jnp.isnan(operands.cond)
        free = diffusion.gaussian(0.0, 1.0)(None, query)
        held = diffusion.gaussian(jnp.where(absent, 0.0, operands.cond), 0.25)(None, query)
        return jax.tree.map(lambda f, h: jnp.where(absent, f, h), free, held)

    return denoise, lambda cond: jnp.full_like(cond, jnp.nan)


@pytest.mark.parametrize("doubled", [True, False])
def test_weights_one_and_zero_are_the_two_samplers(doubled):
    denoise, null = two_laws()
    guided = diffusion.cfg(denoise, null=null, doubled=doubled)
    x, cond = jax.random.normal(jax.random.key(0), (6, 1)), jnp.ones((6, 1))
    plan = diffusion.ddim(diffusion.chain(diffusion.linear_beta(), 20))
    run = jax.jit(lambda w, c: diffusion.sample(plan, guided, Guided(Conditioned(None, c), w), x))
    for weight, data in ((1.0, diffusion.gaussian(1.0, 0.25)), (0.0, diffusion.gaussian(0.0, 1.0))):
        alone = diffusion.sample(plan, data, None, x)
        np.testing.assert_allclose(run(weight, cond), alone, atol=1e-6)
    np.testing.assert_array_equal(run(0.0, cond), run(0.0, 5 * cond))


def test_weights_one_and_zero_are_exact_where_no_program_is_fused():
    denoise, null = two_laws()
    x, cond = jax.random.normal(jax.random.key(0), (6, 1)), jnp.ones((6, 1))
    query = Query(x, level_at(jnp.float32(0.5)))
    for doubled in (True, False):
        guided = diffusion.cfg(denoise, null=null, doubled=doubled)
        for weight, given_ in ((1.0, cond), (0.0, null(cond))):
            ours = guided(Guided(Conditioned(None, cond), weight), query)
            other = denoise(Conditioned(None, given_), query)
            np.testing.assert_array_equal(ours.x0, other.x0)
            np.testing.assert_array_equal(ours.eps, other.eps)


@pytest.mark.parametrize("doubled", [True, False])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver_2m"])
def test_guided_samplers_of_weights_one_and_zero_have_the_bits_of_the_two_samplers(sampler, doubled):
    """Whole samples, operation by operation; a compiled program fuses its own way, and agrees to rounding."""
    denoise, null = two_laws()
    guided = diffusion.cfg(denoise, null=null, doubled=doubled)
    x, cond, key = jax.random.normal(jax.random.key(0), (6, 1)), jnp.ones((6, 1)), jax.random.key(1)
    plan = getattr(diffusion, sampler)(diffusion.chain(diffusion.linear_beta(), 10))
    for weight, given_ in ((1.0, cond), (0.0, null(cond))):
        with jax.disable_jit():
            ours = diffusion.sample(plan, guided, Guided(Conditioned(None, cond), weight), x, key)
            alone = diffusion.sample(plan, denoise, Conditioned(None, given_), x, key)
        np.testing.assert_array_equal(ours, alone)
        compiled = diffusion.sample(plan, guided, Guided(Conditioned(None, cond), weight), x, key)
        np.testing.assert_allclose(compiled, alone, atol=1e-5)
    assert bool(jnp.isfinite(ours).all())
    assert float(jnp.max(jnp.abs(ours - diffusion.sample(plan, denoise, Conditioned(None, cond), x, key)))) > 0.1


def test_doubled_batch_equals_two_calls():
    denoise, null = two_laws()
    x, cond = jax.random.normal(jax.random.key(0), (6, 1)), jnp.linspace(-1, 1, 6)[:, None]
    plan = diffusion.ddim(diffusion.chain(diffusion.linear_beta(), 20))
    operands = Guided(Conditioned(None, cond), jnp.linspace(0, 3, 6))
    both = [
        diffusion.sample(plan, diffusion.cfg(denoise, null=null, doubled=doubled), operands, x)
        for doubled in (True, False)
    ]
    np.testing.assert_allclose(*both, atol=1e-6)


def test_the_guided_law_follows_from_its_affine_steps(double):
    """E = E_u + 2 (E_c - E_u) is affine in x: iterating its slope and intercept gives the sampler's map."""
    denoise, null = two_laws()
    guided, grid = diffusion.cfg(denoise, null=null), diffusion.chain(diffusion.linear_beta(), 50)
    slope, shift = 1.0, 0.0
    for k in range(grid.steps):
        a, s, b, r = grid.a[k], grid.s[k], grid.a[k + 1], grid.s[k + 1]
        free, held = s, s / (a**2 * 0.25 + s**2)  # eps = coefficient (x - a m)
        eps_slope, eps_shift = free + 2 * (held - free), -2 * held * a
        x_slope = b / a + (r - b * s / a) * eps_slope
        x_shift = (r - b * s / a) * eps_shift
        slope, shift = x_slope * slope, x_slope * shift + x_shift
    x = jnp.array([[-1.0], [0.0], [2.0]])
    operands = Guided(Conditioned(None, jnp.ones((3, 1))), 2.0)
    np.testing.assert_allclose(
        diffusion.sample(diffusion.ddim(grid), guided, operands, x), slope * x + shift, rtol=1e-9
    )


def test_classifier_guidance_turns_the_prior_into_the_posterior(double):
    """With p(y | x_t) known exactly, guiding N(0, 1) by an observation y = x_0 + noise gives N's posterior."""
    noise, seen = 0.25, 0.8

    def log_prob(params, query, target):
        level = query.level
        mean = level.a * query.x / (level.a**2 + level.s**2)
        variance = level.s**2 / (level.a**2 + level.s**2) + noise
        return -jnp.sum((target - mean) ** 2, axis=1) / (2 * variance)

    guided = diffusion.classifier(diffusion.gaussian(0.0, 1.0), log_prob)
    grid = diffusion.uniform_in_logsnr(diffusion.linear_vp(), 200, end=1e-4)
    x = jnp.linspace(-2, 2, 5)[:, None]
    operands = diffusion.Classified(None, None, jnp.full((5, 1), seen), 1.0)
    out = diffusion.sample(diffusion.heun(grid), guided, operands, x)
    posterior = diffusion.gaussian(seen / (1 + noise), noise / (1 + noise))
    np.testing.assert_allclose(out, diffusion.sample(diffusion.heun(grid), posterior, None, x), atol=1e-3)


def test_changes_of_x0_keep_the_pair_consistent():
    network = diffusion.denoiser(lambda p, x, t, c: 3 * x, "x0")
    x = jax.random.normal(jax.random.key(0), (4, 8))
    query = Query(x, level_at(jnp.float32(0.3)))
    mask = (jnp.arange(8) < 3).astype(jnp.float32)
    for denoise, operands in (
        (diffusion.clip_x0(network), Conditioned(None)),
        (diffusion.dynamic_threshold(network, 0.9), Conditioned(None)),
        (diffusion.inpaint(network), diffusion.Inpainted(Conditioned(None), mask, jnp.full(8, 0.5))),
    ):
        out = denoise(operands, query)
        np.testing.assert_allclose(query.level.a * out.x0 + query.level.s * out.eps, x, atol=1e-6)
    np.testing.assert_array_equal(out.x0[:, :3], jnp.full((4, 3), 0.5))
    clean = query._replace(level=Level(jnp.float32(1), jnp.float32(0), jnp.inf, jnp.float32(0)))
    kept = diffusion.clip_x0(diffusion.denoiser(lambda p, x, t, c: x, "eps"))(Conditioned(None), clean)
    assert np.isfinite(kept.eps).all()


def test_inpainting_and_self_conditioning_run_in_a_sampler():
    plan = diffusion.ddim(diffusion.chain(diffusion.linear_beta(), 10))
    x = jax.random.normal(jax.random.key(0), (4, 8))
    mask, value = (jnp.arange(8) < 3).astype(jnp.float32), jnp.full(8, 0.5)
    out = diffusion.sample(plan, diffusion.inpaint(DATA), diffusion.Inpainted(None, mask, value), x)
    np.testing.assert_allclose(out[:, :3], 0.5, atol=1e-6)
    seen = []

    def network(params, x, time, cond):
        seen.append(x.shape)
        return 0.5 * x[:, :8] + 0.5 * x[:, 8:]

    looped = diffusion.self_condition(network)(lambda net: diffusion.denoiser(net, "x0"))
    assert np.isfinite(diffusion.sample(plan, looped, Conditioned(None), x)).all()
    assert set(seen) == {(4, 16)}


def test_rescaled_and_interval_guidance():
    denoise, null = two_laws()
    x, cond = jax.random.normal(jax.random.key(0), (6, 16)), jnp.ones((6, 16))
    operands = Guided(Conditioned(None, cond), 5.0)
    query = Query(x, level_at(jnp.float32(0.0)))
    held = denoise(Conditioned(None, cond), query)
    rescaled = diffusion.cfg(denoise, null=null, rescale=1.0)(operands, query)
    np.testing.assert_allclose(rescaled.eps.std(1), held.eps.std(1), rtol=1e-5)
    outside = diffusion.cfg(denoise, null=null, interval=(2.0, 4.0))(operands, query)
    np.testing.assert_array_equal(outside.eps, held.eps)


# --- training ---------------------------------------------------------------------------------------------------------


def line(params, x, time, cond):
    """A denoiser of Gaussian data that is exact if its table of slopes and shifts is."""
    slope = jnp.interp(time, jnp.linspace(0, 1, 33), params["slope"])[:, None]
    shift = jnp.interp(time, jnp.linspace(0, 1, 33), params["shift"])[:, None]
    return slope * x + shift


@pytest.mark.usefixtures("full_compilation")
def test_weightings_reach_the_same_optimum(record_property):
    """The slope of the trained x_0 estimate is a v / (a^2 v + s^2) at three noise levels, whatever the weighting."""
    weightings = {
        "simple": diffusion.simple, "min_snr": diffusion.min_snr(), "velocity": diffusion.velocity,
        "edm": diffusion.edm(VARIANCE**0.5),
    }  # fmt: skip
    kinds = {name: "eps" if name == "simple" else "v" for name in weightings}
    schedule = diffusion.linear_logsnr(6.0, -6.0)
    losses = {
        name: diffusion.denoising_loss(line, diffusion.continuous_levels(schedule), kinds[name], weighting)
        for name, weighting in weightings.items()
    }

    def objective(params, key, batch):
        x = MEAN + VARIANCE**0.5 * jax.random.normal(jax.random.fold_in(key, 1), (4096, 1))
        return sum(losses[name](params[name], key, x)[0].mean() for name in losses), {}

    start = {name: {"slope": jnp.zeros(33), "shift": jnp.zeros(33)} for name in losses}
    tx = optax.adam(optax.cosine_decay_schedule(0.03, 1500))  # of each parameter apart: four runs in one
    learner = gradient_learner(lambda key, batch: start, objective, tx, key_of=step_key)

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda s, _: (learner.update(s, None)[0], None), state, length=1500)[0]

    params = train(learner.init(jax.random.key(0), None)).params

    @jax.jit
    def slopes(params, logsnr):
        level = level_at(logsnr)._replace(time=schedule.time(logsnr))
        exact = level.a * VARIANCE / (level.a**2 * VARIANCE + level.s**2)
        out = {}
        for name, kind in kinds.items():
            denoise = diffusion.denoiser(line, kind)
            ends = [denoise(Conditioned(params[name]), Query(jnp.full((1, 1), x), level)).x0[0, 0] for x in (0.0, 1.0)]
            out[name] = (ends[1] - ends[0]) / exact - 1
        return out

    errors = [slopes(params, jnp.float32(logsnr)) for logsnr in (-4.0, 0.0, 4.0)]
    worst = {name: max(abs(float(e[name])) for e in errors) for name in kinds}
    record_property("value", "slopes within " + ", ".join(f"{error:.1%} ({name})" for name, error in worst.items()))
    assert max(worst.values()) < 0.02


def test_remembered_losses_shift_the_levels_and_the_weights_undo_it():
    history = diffusion.loss_history(4, kept=3)
    assert np.allclose(diffusion.level_probabilities(history), 0.25)
    index = jnp.tile(jnp.arange(4), 5)
    history = jax.jit(diffusion.remember)(history, index, jnp.asarray(index + 1.0))
    p = diffusion.level_probabilities(history, uniform=0.0)
    np.testing.assert_allclose(p, np.arange(1, 5) / 10, rtol=1e-6)
    drawn = diffusion.chain_levels(diffusion.linear_beta(4, 1e-5, 1e-4), p)(jax.random.key(0), 20_000)
    counts = np.bincount(np.asarray(drawn.level.time, int), minlength=4) / 20_000
    np.testing.assert_allclose(counts, p, atol=0.015)
    assert abs(float(drawn.weight.mean()) - 1) < 0.03


def test_edm_levels_are_lognormal():
    drawn = diffusion.edm_levels()(jax.random.key(0), 50_000)
    log_sigma = np.log(drawn.level.s)
    assert abs(log_sigma.mean() + 1.2) < 0.02
    assert abs(log_sigma.std() - 1.2) < 0.02
    np.testing.assert_allclose(drawn.level.time, log_sigma / 4, rtol=1e-4, atol=1e-5)


def test_the_mixture_denoiser_is_the_posterior_mean(double):
    means, variances, weights = jnp.array([[-1.0], [2.0]]), jnp.array([0.2, 0.5]), jnp.array([0.3, 0.7])
    level = level_at(jnp.float64(-0.5))
    x = jnp.linspace(-3, 3, 7)[:, None]
    found = diffusion.mixture(means, variances, weights)(None, Query(x, level))
    grid = jnp.linspace(-12, 12, 40_001)
    prior = sum(w * jax.scipy.stats.norm.pdf(grid, m[0], v**0.5)
                for w, m, v in zip(weights, means, variances, strict=True))  # fmt: skip
    joint = prior * jax.scipy.stats.norm.pdf(x, level.a * grid, level.s)
    np.testing.assert_allclose(found.x0[:, 0], (joint * grid).sum(1) / joint.sum(1), rtol=1e-6)
    np.testing.assert_allclose(level.a * found.x0 + level.s * found.eps, x, rtol=1e-9, atol=1e-12)
    each = diffusion.mixture(means, variances, weights)(None, Query(x, jax.tree.map(lambda c: jnp.full(7, c), level)))
    np.testing.assert_allclose(each.x0, found.x0, rtol=1e-12)


def test_unknown_parameterisations_are_refused():
    level = level_at(jnp.float32(0.0))
    for call in (diffusion.from_raw, diffusion.to_raw):
        with pytest.raises(ValueError, match=r"kind must be one of .x0., .eps., .v., .score., "):
            call("noise", jnp.zeros((1, 1)), jnp.zeros((1, 1)), level)
