"""What the vocabulary of diffusion refuses, naming the argument, and what a network is told between a grid's levels."""

# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.errors import ConfigError
from latent import diffusion

CHAIN = diffusion.linear_beta(100)
GRID = diffusion.chain(CHAIN, 10)
DATA = diffusion.gaussian(0.0, 1.0)
X = jnp.zeros((2, 3))


def guided(weight):
    denoise = diffusion.cfg(diffusion.denoiser(lambda params, x, time, cond: x), doubled=False)
    operands = diffusion.Guided(diffusion.Conditioned(None, jnp.zeros(2)), weight)
    return diffusion.sample(diffusion.ddim(GRID), denoise, operands, X)


REFUSED = {
    "betas text": (lambda: diffusion.from_betas(["a"]), r"betas must be an array \[T\], not"),
    "betas empty": (lambda: diffusion.from_betas(np.zeros(0)), "at least one"),
    "betas NaN": (lambda: diffusion.from_betas(np.array([0.1, np.nan])), r"betas\[1\] is nan"),
    "betas of two axes": (lambda: diffusion.from_betas(np.full((2, 2), 0.1)), r"must have shape \[T\]"),
    "linear_beta(-5)": (lambda: diffusion.linear_beta(-5), "steps must be a number of at least 1"),
    "linear_beta(1)": (lambda: diffusion.linear_beta(1), "use at least 21 steps"),
    "linear_beta 2.5": (lambda: diffusion.linear_beta(2.5), "steps must be an integer"),
    "cosine_beta(0)": (lambda: diffusion.cosine_beta(0), "steps must be a number of at least 1"),
    "scaled_linear(0)": (lambda: diffusion.scaled_linear(0), "steps must be a number of at least 1"),
    "scaled_linear(-5)": (lambda: diffusion.scaled_linear(-5), "steps must be a number of at least 1"),
    "betas that fall": (lambda: diffusion.linear_beta(100, 0.04, 0.02), "must not exceed the last"),
    "chain of 2.5": (lambda: diffusion.chain(CHAIN, 2.5), "indices must be"),
    "chain of 0": (lambda: diffusion.chain(CHAIN, 0), "indices must be"),
    "chain of 101": (lambda: diffusion.chain(CHAIN, 101), "cannot choose 101 of 100"),
    "chain indices beyond": (lambda: diffusion.chain(CHAIN, np.array([1, 500])), r"indices\[1\] is 500"),
    "chain indices negative": (lambda: diffusion.chain(CHAIN, np.array([-1, 5])), r"indices\[0\] is -1"),
    "chain indices none": (lambda: diffusion.chain(CHAIN, np.zeros(0, int)), "at least"),
    "chain indices twice": (lambda: diffusion.chain(CHAIN, np.array([3, 3])), "increase strictly"),
    "karras rho 0": (lambda: diffusion.karras(5, rho=0.0), "rho must be a number above 0"),
    "karras of no steps": (lambda: diffusion.karras(0), "steps must be"),
    "linear_vp beta_min -1": (lambda: diffusion.linear_vp(-1.0), "beta_min must be"),
    "sigma negative": (lambda: diffusion.variance_exploding(np.array([1.0, -0.5])), "sigma must not be negative"),
    "times beyond 1": (lambda: diffusion.uniform_in_time(diffusion.linear_vp(), 5, start=2.0), "start must be"),
    "one level": (lambda: diffusion.variance_preserving(np.zeros(1), np.zeros(1)), "over two levels at least"),
    "a level NaN": (
        lambda: diffusion.variance_preserving(np.array([0, np.nan]), np.zeros(2)),
        "none of them may be NaN",
    ),
    "eta -1": (lambda: diffusion.ddim(GRID, -1.0), "eta must be"),
    "eta NaN": (lambda: diffusion.ddim(GRID, float("nan")), "eta must be"),
    "eta 3": (lambda: diffusion.ddim(GRID, 3.0), "more noise than its next level holds"),
    "ddpm variance foo": (lambda: diffusion.ddpm(GRID, "foo"), "variance must be one of 'small', 'large'"),
    "dpm eta -1": (lambda: diffusion.dpm_solver_2m(GRID, -1.0), "eta must be"),
    "euler eta NaN": (lambda: diffusion.euler_ancestral(GRID, float("nan")), "eta must be"),
    "churn without times": (lambda: diffusion.heun(GRID, 1.0), "give time="),
    "churn -1": (lambda: diffusion.heun(diffusion.karras(5), -1.0), "churn must be"),
    "a grid in place of a plan": (lambda: diffusion.sample(GRID, DATA, None, X), "plan must be a Plan"),
    "start of integers": (
        lambda: diffusion.sample(diffusion.ddim(GRID), DATA, None, jnp.zeros((2, 3), int)),
        "x must hold floating-point numbers",
    ),
    "start without a batch": (
        lambda: diffusion.sample(diffusion.ddim(GRID), DATA, None, jnp.float32(0.0)),
        r"x must have shape \[batch, ...\]",
    ),
    "key a number": (lambda: diffusion.starting_noise(0, (2, 3)), "key must be"),
    "noise without a batch": (lambda: diffusion.starting_noise(jax.random.key(0), ()), "needs a shape"),
    "guidance NaN": (lambda: guided(float("nan")), "the weight of guidance has the value nan"),
    "guidance NaN in an array": (lambda: guided(jnp.array([1.0, jnp.nan])), r"the weight of guidance has nan at \[1\]"),
    "rescale 2": (lambda: diffusion.cfg(DATA, rescale=2.0), "rescale must be"),
    "interval reversed": (lambda: diffusion.cfg(DATA, interval=(2.0, 1.0)), "must lie below"),
    "clip low > high": (lambda: diffusion.clip_x0(DATA, 1.0, -1.0), "must lie below"),
    "quantile 2": (lambda: diffusion.dynamic_threshold(DATA, 2.0), "quantile must be"),
    "tabulated of a rising function": (lambda: diffusion.tabulated(lambda t: t), "must fall"),
    "tabulated of a constant": (lambda: diffusion.tabulated(jnp.zeros_like), "must fall"),
    "linear_logsnr rising": (lambda: diffusion.linear_logsnr(-5.0, 5.0), "must fall"),
    "denoiser foo": (lambda: diffusion.denoiser(lambda *args: args[1], "foo"), "kind must be one of"),
    "invert foo": (lambda: diffusion.invert(GRID, DATA, None, X, "foo"), "mode must be one of"),
    "history of no levels": (lambda: diffusion.loss_history(0), "steps must be"),
    "probabilities of other levels": (
        lambda: diffusion.chain_levels(CHAIN, jnp.ones(3) / 3),
        "3 probabilities for 100",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("make", [diffusion.linear_vp, diffusion.cosine_logsnr, diffusion.linear_logsnr])
def test_with_churn_the_network_is_told_the_time_of_the_level_that_it_is_asked_at(make):
    schedule = make()
    grid = diffusion.uniform_in_logsnr(schedule, 6, start=0.9)
    plan = diffusion.heun(grid, 2.0, smallest=0.1, largest=5.0, time=lambda logsnr: np.asarray(schedule.time(logsnr)))
    raised = plan.level.logsnr != grid.logsnr[:-1].astype(np.float32)
    assert 0 < raised.sum() < 6
    np.testing.assert_allclose(plan.level.time, schedule.time(plan.level.logsnr), rtol=1e-4)
    exploding = diffusion.heun(diffusion.karras(6), 2.0)
    np.testing.assert_allclose(exploding.level.time, -exploding.level.logsnr / 8, rtol=1e-6)
    assert diffusion.heun(grid, 0.0).level.time.tolist() == grid.time[:-1].astype(np.float32).tolist()


def test_a_weight_that_is_traced_adds_no_check():
    jax.jit(guided)(jnp.float32(2.0))
