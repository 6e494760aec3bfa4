"""Agreement with independent implementations: diffusers' schedulers and diffrax's ODE solvers."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent import diffusion
from latent.diffusion import Query

DATA = diffusion.gaussian(0.7, 0.16)
CHAIN = diffusion.linear_beta(1000)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def peers():
    """torch and diffusers, whose imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        diffusers = pytest.importorskip("diffusers")
        return torch, diffusers


def as_torch_eps(torch, x, level):
    query = Query(jnp.asarray(x.numpy()), level)
    return torch.from_numpy(np.asarray(DATA(None, query).eps).copy())


@pytest.mark.filterwarnings("ignore")
def test_chains_agree_with_diffusers(peers, record_property):
    """Their betas, multiplied in float64. Their own products, in float32, carry the rounding of a thousand factors."""
    _, diffusers = peers
    worst, rounded = 0.0, 0.0
    for name, ours in (
        ("linear", CHAIN), ("squaredcos_cap_v2", diffusion.cosine_beta()), ("scaled_linear", diffusion.scaled_linear()),
    ):  # fmt: skip
        options = {"beta_start": 0.00085, "beta_end": 0.012} if name == "scaled_linear" else {}
        theirs = diffusers.DDPMScheduler(1000, beta_schedule=name, **options)
        exact = np.cumprod(1 - theirs.betas.double().numpy())
        worst = max(worst, float(np.abs(ours.alpha_bar - exact).max()))
        rounded = max(rounded, float(np.abs(theirs.alphas_cumprod.double().numpy() - exact).max()))
    record_property("value", f"largest difference of abar {worst:.1e}; of their float32 products {rounded:.1e}")
    assert worst < 4e-7
    assert rounded < 2e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["DDIM", "DDIM eta", "DDPM", "DPM-Solver++", "Euler", "Heun"])
def test_steps_agree_with_diffusers(double, peers, name, record_property, monkeypatch):
    """The same levels, the same exact network, the same start: the samples agree to diffusers' float32 tables."""
    torch, diffusers = peers
    scheduling = sys.modules[diffusers.DDPMScheduler.__module__]
    steps, common = (
        20,
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"},
    )
    x = np.linspace(-2, 2, 7)[:, None]
    scheduler, sampler = {
        "DDIM": lambda: (
            diffusers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True, **common), diffusion.ddim),
        "DDIM eta": lambda: (
            diffusers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True, **common),
            lambda grid: diffusion.ddim(grid, 0.7)),
        "DDPM": lambda: (diffusers.DDPMScheduler(1000, clip_sample=False, **common), diffusion.ddpm),
        "DPM-Solver++": lambda: (
            diffusers.DPMSolverMultistepScheduler(
                1000, final_sigmas_type="zero", lower_order_final=False, **common), diffusion.dpm_solver_2m),
        "Euler": lambda: (diffusers.EulerDiscreteScheduler(1000, **common), diffusion.ddim),
        "Heun": lambda: (diffusers.HeunDiscreteScheduler(1000, **common), diffusion.heun),
    }[name]()  # fmt: skip
    scheduler.set_timesteps(steps)
    if name == "DDPM":
        monkeypatch.setattr(scheduling, "randn_tensor", lambda shape, **_: torch.zeros(shape, dtype=torch.float64))
    grid = diffusion.chain(CHAIN, diffusion.trailing(1000, steps))
    plan = sampler(grid)
    in_sigma = name in ("Euler", "Heun")
    y = torch.from_numpy(x / grid.a[0] if in_sigma else x.copy())
    by_time = {int(t): k for k, t in enumerate(grid.time[:-1])}
    for t in scheduler.timesteps:
        k = by_time[round(float(t))]
        level = diffusion.Level(grid.a[k], grid.s[k], grid.logsnr[k], grid.time[k])
        entry = y * grid.a[k] if in_sigma else y
        eps = as_torch_eps(torch, entry, level)
        extra = {"eta": 0.7, "variance_noise": torch.zeros_like(y)} if name == "DDIM eta" else {}
        y = scheduler.step(eps, t, y, **extra).prev_sample
    quiet = plan._replace(noise=None)
    ours = np.asarray(diffusion.sample(quiet, DATA, None, jnp.asarray(x)))
    worst = float(np.abs(ours - y.numpy()).max())
    record_property("value", f"{name}: largest difference {worst:.1e}")
    assert worst < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_the_flow_agrees_with_diffrax(double, record_property):
    diffrax = pytest.importorskip("diffrax")
    schedule = diffusion.linear_vp()
    data = diffusion.mixture(jnp.array([[-1.0], [1.5]]), jnp.array([0.1, 0.3]), jnp.array([0.4, 0.6]))

    def field(sigma, y, args):
        a = 1 / jnp.sqrt(1 + sigma**2)
        level = diffusion.Level(a, sigma * a, -2 * jnp.log(sigma), sigma)
        return data(None, Query(a * y, level)).eps

    grid = diffusion.uniform_in_logsnr(schedule, 400)
    x = jnp.linspace(-2, 2, 9)[:, None]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), grid.sigma[0], grid.sigma[-1], -1e-3, x / grid.a[0],
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12), max_steps=200_000,
    )  # fmt: skip
    exact = solution.ys[-1] * grid.a[-1]
    errors = {
        name: float(jnp.abs(diffusion.sample(sampler(grid), data, None, x) - exact).max())
        for name, sampler in (("Heun", diffusion.heun), ("2M", diffusion.dpm_solver_2m))
    }
    record_property("value", ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    assert max(errors.values()) < 1e-3
