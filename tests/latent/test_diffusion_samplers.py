"""Samplers and inversion against laws known without Monte Carlo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import diffusion
from latent.diffusion import Carry

MEAN, VARIANCE = 0.7, 0.16
DATA = diffusion.gaussian(MEAN, VARIANCE)
CHAIN = diffusion.linear_beta(1000)
VP = diffusion.linear_vp()
STARTS = np.array([[-2.0], [-0.5], [0.0], [1.0], [2.0]])


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def flow(x, start, end):
    """The exact probability flow of Gaussian data between two levels ``(a, s)``."""
    (a, s), (b, r) = start, end
    return b * MEAN + np.sqrt((b**2 * VARIANCE + r**2) / (a**2 * VARIANCE + s**2)) * (x - a * MEAN)


def ends(grid):
    return (grid.a[0], grid.s[0]), (grid.a[-1], grid.s[-1])


def law(plan):
    """Mean and standard deviation of the output for N(0, 1) starts, from what each step does to x = 0 and x = 1."""
    quiet, basis = plan._replace(noise=None), jnp.array([[0.0], [1.0]])

    def body(carry, row):
        row, noise = row
        mean, variance = carry
        at0, at1 = diffusion.step(row, 0, DATA, None, None, Carry(basis, jnp.zeros_like(basis))).x[:, 0]
        return ((at1 - at0) * mean + at0, (at1 - at0) ** 2 * variance + noise**2), None

    noise = jnp.zeros_like(plan.x) if plan.noise is None else plan.noise
    (mean, variance), _ = jax.jit(functools.partial(jax.lax.scan, body))((0.0, 1.0), (quiet, noise))
    return float(mean), float(variance**0.5)


LAWS = {
    10: [(0.699995, 0.243197), (0.699995, 0.517460), (0.698798, 0.270308), (0.699459, 0.265844), (0.699995, 0.243197)],
    50: [(0.699995, 0.347347), (0.699995, 0.420365), (0.698340, 0.373252), (0.699558, 0.368045), (0.699995, 0.347347)],
    250: [(0.699995, 0.386371), (0.699995, 0.403826), (0.698246, 0.394499), (0.699592, 0.392771), (0.699995, 0.386371)],
    1000: [
        (0.699995, 0.396190), (0.699995, 0.400854), (0.698228, 0.398531), (0.699598, 0.398024), (0.699995, 0.396190),
    ],
}  # fmt: skip
SAMPLERS = [
    diffusion.ddpm,
    functools.partial(diffusion.ddpm, variance="large"),
    diffusion.ddim,
    functools.partial(diffusion.ddim, eta=0.5),
    functools.partial(diffusion.ddim, eta=1.0),
]


@pytest.mark.parametrize("steps", LAWS)
def test_moments_of_linear_samplers_on_gaussian_data(double, steps, record_property):
    found = [law(sampler(diffusion.chain(CHAIN, steps))) for sampler in SAMPLERS]
    worst = np.abs(np.array(found) - np.array(LAWS[steps])).max()
    record_property("value", f"largest difference of means and deviations {worst:.1e}")
    assert worst < 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS[:4])
def test_monte_carlo_follows_the_computed_law(sampler):
    plan, count = sampler(diffusion.chain(CHAIN, 10)), 200_000
    with jax.enable_x64(True):
        mean, std = law(sampler(diffusion.chain(CHAIN, 10)))
    start = diffusion.starting_noise(jax.random.key(1), (count, 1))
    run = jax.jit(lambda x, key: diffusion.sample(plan, DATA, None, x, key))
    drawn = np.asarray(run(start, jax.random.key(2)), np.float64)
    assert abs(drawn.mean() - mean) < 3 * std / count**0.5
    assert abs(drawn.std() - std) < 3 * std / (2 * count) ** 0.5


ORDERS = {
    "ddim": (diffusion.ddim, [0.207, 0.111, 0.0578, 0.0294, 0.0149, 0.00747], 1),
    "dpm_solver_2m": (diffusion.dpm_solver_2m, [0.0214, 0.0151, 0.00433, 0.00111, 2.79e-4, 6.99e-5], 2),
    "heun": (diffusion.heun, [0.202, 0.0422, 0.00972, 0.00234, 5.73e-4, 1.42e-4], 2),
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders_of_convergence_to_the_exact_flow(double, name, record_property):
    sampler, expected, order = ORDERS[name]
    errors = []
    for steps in (8, 16, 32, 64, 128, 256):
        grid = diffusion.uniform_in_logsnr(VP, steps)
        exact = flow(STARTS, *ends(grid))
        errors.append(np.abs(diffusion.sample(sampler(grid), DATA, None, jnp.asarray(STARTS)) - exact).max())
    slope = np.log2(errors[-2] / errors[-1])
    record_property("value", f"order {slope:.2f}, error at 256 steps {errors[-1]:.2e}")
    np.testing.assert_allclose(errors, expected, rtol=0.01)
    assert abs(slope - order) < 0.05


def round_trip(steps, mode, iterations=5):
    starts = jnp.array([[-0.3], [0.2], [0.7], [1.1], [1.9]])
    grid = diffusion.uniform_in_time(VP, steps)
    decode = diffusion.heun if mode == "heun" else diffusion.ddim
    noise = diffusion.invert(grid, DATA, None, starts, mode, iterations=iterations)
    return float(jnp.abs(diffusion.sample(decode(grid), DATA, None, noise) - starts).max())


def test_inversion_round_trips_in_three_modes(double, record_property):
    explicit = [round_trip(n, "explicit") for n in (10, 20, 50, 100, 250, 1000)]
    np.testing.assert_allclose(explicit, [0.604, 0.346, 0.152, 0.0784, 0.0320, 0.0081], rtol=0.01)
    heun = [round_trip(n, "heun") for n in (10, 20, 50, 100, 250)]
    np.testing.assert_allclose(heun, [0.0289, 0.00448, 3.1e-4, 4.1e-5, 2.7e-6], rtol=0.02)
    fixed = [round_trip(50, "fixed_point", k) for k in (1, 2, 3, 5, 10)]
    np.testing.assert_allclose(fixed, [1.1e-2, 7.7e-4, 6.0e-5, 4.1e-7, 2.6e-12], rtol=0.05)
    record_property("value", f"50 steps: explicit {explicit[2]:.3f}, Heun {heun[2]:.1e}, fixed point {fixed[-1]:.1e}")


def test_inversion_from_clean_data_and_back(double):
    """A chain's grid ends in data without noise: the implicit inverse starts there too."""
    grid, x = diffusion.chain(CHAIN, 50), jnp.linspace(-0.5, 1.5, 5)[:, None]
    noise = diffusion.invert(grid, DATA, None, x, "fixed_point", iterations=60)
    np.testing.assert_allclose(diffusion.sample(diffusion.ddim(grid), DATA, None, noise), x, atol=1e-9)


def test_stochastic_samplers_keep_the_law_of_gaussian_data():
    grid, count = diffusion.uniform_in_logsnr(VP, 100, end=1e-4), 50_000
    exploding = diffusion.karras(60, largest=40.0)
    plans = {
        "2M SDE": diffusion.dpm_solver_2m(grid, 1.0),
        "Heun with churn": diffusion.heun(exploding, 20.0, smallest=0.05, largest=50.0),
    }
    for name, plan in plans.items():
        start = diffusion.starting_noise(jax.random.key(3), (count, 1), plan)
        out = jax.jit(lambda x, key, plan=plan: diffusion.sample(plan, DATA, None, x, key))(start, jax.random.key(4))
        assert abs(float(out.mean()) - MEAN) < 0.015, name
        assert abs(float(out.std()) - VARIANCE**0.5) < 0.015, name


def test_euler_ancestral_approaches_the_law_at_first_order(double):
    grids = [diffusion.uniform_in_logsnr(VP, steps, end=1e-4) for steps in (100, 200, 400)]
    errors = [abs(law(diffusion.euler_ancestral(grid))[1] - VARIANCE**0.5) for grid in grids]
    assert errors[0] < 0.03
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.2)
    deterministic, euler = (law(plan(grids[0]))[1] for plan in (functools.partial(diffusion.euler_ancestral, eta=0.0),
                                                                  diffusion.ddim))  # fmt: skip
    np.testing.assert_allclose(deterministic, euler, rtol=1e-9)


def test_eta_one_is_ancestral_and_eta_zero_is_deterministic():
    grid = diffusion.chain(CHAIN, 20)
    jax.tree.map(np.testing.assert_array_equal, diffusion.ddim(grid, 1.0), diffusion.ddpm(grid))
    quiet, still = diffusion.ddim(grid, 0.0), diffusion.ddim(grid)
    np.testing.assert_array_equal(quiet.eps, still.eps)
    assert quiet.noise is not None
    assert not quiet.noise.any()
    assert still.noise is None


def compiled_once():
    """A jitted sampler and a count of its traces."""
    traces = []

    @jax.jit
    def run(plan, weight, x, key):
        traces.append(1)
        denoise = diffusion.cfg(diffusion.denoiser(lambda p, x, t, c: x * c, "x0"))
        operands = diffusion.Guided(diffusion.Conditioned(None, jnp.full_like(x, 0.3)), weight)
        return diffusion.sample(plan, denoise, operands, x, key)

    return run, traces


def test_one_compilation_serves_schedules_etas_and_weights():
    run, traces = compiled_once()
    chains = [
        CHAIN, diffusion.cosine_beta(1000), diffusion.scaled_linear(), diffusion.linear_beta(100),
        diffusion.zero_terminal_snr(CHAIN),
    ]  # fmt: skip
    x = jnp.ones((3, 2))
    for i, schedule in enumerate(chains):
        out = run(diffusion.ddim(diffusion.chain(schedule, 10), 0.25 * i), jnp.float32(i), x, jax.random.key(i))
        assert np.isfinite(out).all()
    assert len(traces) == 1


def test_padded_plans_give_the_same_bits():
    run, traces = compiled_once()
    x, key, w = jax.random.normal(jax.random.key(0), (4, 3)), jax.random.key(1), jnp.float32(1.5)
    grids = {n: diffusion.chain(CHAIN, n) for n in (5, 8)}
    for n, grid in grids.items():
        plan = diffusion.ddim(grid, 0.5)
        np.testing.assert_array_equal(run(plan, w, x, key), run(diffusion.padded(plan, 12), w, x, key), err_msg=str(n))
    for plan in (diffusion.dpm_solver_2m(grids[5]), diffusion.heun(diffusion.karras(5), 1.0)):
        np.testing.assert_array_equal(
            diffusion.sample(plan, DATA, None, x, key), diffusion.sample(diffusion.padded(plan, 9), DATA, None, x, key)
        )
    assert len(traces) == 3  # lengths 5, 8 and 12
    with pytest.raises(ValueError, match="cannot be padded"):
        diffusion.padded(plan, 2)


def test_vmap_over_plans_weights_and_seeds_equals_a_loop():
    run, _ = compiled_once()
    plans = [diffusion.ddim(diffusion.chain(s, 6), 0.5) for s in (CHAIN, diffusion.cosine_beta(1000))]
    stacked = jax.tree.map(lambda *c: jnp.stack(c), *plans)
    weights, keys = jnp.array([0.5, 2.0]), jax.random.split(jax.random.key(7), 3)
    x = jax.random.normal(jax.random.key(0), (4, 3))
    over_keys = jax.vmap(run, (None, None, None, 0))
    out = jax.vmap(jax.vmap(over_keys, (None, 0, None, None)), (0, None, None, None))(stacked, weights, x, keys)
    for i, plan in enumerate(plans):
        for j, weight in enumerate(weights):
            for k, key in enumerate(keys):
                np.testing.assert_allclose(out[i, j, k], run(plan, weight, x, key), rtol=1e-5, atol=1e-6)


def test_samples_depend_neither_on_the_batch_nor_on_the_devices():
    plan, key = diffusion.ddpm(diffusion.chain(CHAIN, 12)), jax.random.key(5)

    def run(first, count):
        start = diffusion.starting_noise(key, (count, 3), first_example=first)
        return diffusion.sample(plan, DATA, None, start, key, first_example=first)

    whole, pair = jax.jit(lambda: run(0, 8))(), jax.jit(lambda first: run(first, 2))
    parts = jnp.concatenate([pair(i) for i in range(0, 8, 2)])
    noise = jax.jit(lambda first: diffusion.starting_noise(key, (2, 3), first_example=first))
    np.testing.assert_array_equal(
        jnp.concatenate([noise(i) for i in range(0, 8, 2)]), diffusion.starting_noise(key, (8, 3))
    )
    np.testing.assert_allclose(whole, parts, atol=1e-6)  # the same draws; sums of another vector width
    pmapped = jax.pmap(lambda _: run(0, 2), axis_name="data")(jnp.arange(4))
    np.testing.assert_allclose(whole, pmapped.reshape(8, 3), atol=1e-6)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.jit(lambda: run(0, 8), out_shardings=spread)()
    np.testing.assert_allclose(whole, sharded, atol=1e-6)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_samplers_lower_for_accelerators(platform):
    plan = diffusion.ddpm(diffusion.chain(CHAIN, 5))

    def run(x, key):
        return diffusion.sample(plan, DATA, None, x, key)

    traced = jax.jit(run).trace(jnp.zeros((4, 3)), jax.random.key(0))
    assert traced.lower(lowering_platforms=(platform,)).as_text()


def test_gradients_flow_through_a_sampling_run():
    plan = diffusion.ddim(diffusion.chain(CHAIN, 10))

    def end(x):
        return diffusion.sample(plan, DATA, None, x[None, None])[0, 0]

    slope = jax.jit(jax.grad(end))(0.3)
    np.testing.assert_allclose(slope, (end(jnp.float32(1.0)) - end(jnp.float32(0.0))), rtol=1e-4)


def test_the_flow_gives_the_log_likelihood(double, record_property):
    grid = diffusion.uniform_in_logsnr(VP, 800, end=1e-4)
    x = jnp.linspace(-0.4, 1.8, 10).reshape(5, 2)
    total = grid.a[-1] ** 2 * VARIANCE + grid.s[-1] ** 2
    exact = jax.scipy.stats.norm.logpdf(x, grid.a[-1] * MEAN, total**0.5).sum(1)
    spread = (grid.a[0] ** 2 * VARIANCE + grid.s[0] ** 2) ** 0.5

    def prior(z):
        return jax.scipy.stats.norm.logpdf(z, grid.a[0] * MEAN, spread).sum(1)

    found = diffusion.log_likelihood(grid, DATA, None, x, log_prior=prior)
    record_property("value", f"largest error {float(jnp.abs(found - exact).max()):.1e} nats")
    np.testing.assert_allclose(found, exact, atol=1e-3)
    # For an isotropic Gaussian every Rademacher probe gives the exact trace.
    probed = diffusion.log_likelihood(grid, DATA, None, x, jax.random.key(0), log_prior=prior)
    np.testing.assert_allclose(probed, found, atol=1e-9)


def test_errors_say_what_to_do():
    pure = diffusion.chain(diffusion.zero_terminal_snr(CHAIN), 5)
    for plan in (diffusion.heun, diffusion.euler_ancestral, diffusion.dpm_solver_2m):
        with pytest.raises(ValueError, match="pure noise"):
            plan(pure)
    with pytest.raises(ValueError, match="pure noise"):
        diffusion.invert(pure, DATA, None, jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match="give it a key"):
        diffusion.sample(diffusion.ddpm(diffusion.chain(CHAIN, 5)), DATA, None, jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match="fall strictly"):
        diffusion.variance_exploding(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="give a key"):
        diffusion.log_likelihood(diffusion.uniform_in_logsnr(VP, 4), DATA, None, jnp.zeros((1, 65)))


def test_a_shape_may_be_an_array():
    starts = [diffusion.starting_noise(jax.random.key(0), shape) for shape in ((2, 3), [2, 3], np.array([2, 3]))]
    for start in starts[1:]:
        np.testing.assert_array_equal(start, starts[0])
