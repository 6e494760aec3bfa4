r"""Samplers as tables of coefficients.

Every sampler here is, per step, a linear combination with coefficients known before the run::

    x' = A x + B x0(x) + C eps(x) + D x0_previous + N e,      e ~ N(0, I)

and, where a step asks the network twice, a second combination of x, eps(x) and eps(x'). A :class:`Plan` holds those
columns, computed in float64 from a :class:`Grid` and cast once; :func:`sample` walks over its rows. Plans of the same
sampler and length share one compiled program whatever the schedule, eta or guidance weight. First-order starts and
last steps are entries of the table, not branches.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from core.checks import Count, Natural, NonNegative, checked
from core.errors import ConfigError
from core.learner import Stream, example_keys, stream
from latent.diffusion.grids import Grid
from latent.diffusion.prediction import Denoiser, Level, Query

Column = Any
"""Numbers [steps], one per step."""


class Churn(NamedTuple):
    """Noise added before the network is asked: x_hat = scale x + noise e."""

    scale: Column
    noise: Column


class Corrector(NamedTuple):
    """The second half of a step: x'' = x_coef x_hat + eps_coef eps(x_hat) + eps_next_coef eps(x')."""

    level: Level
    x: Column
    eps: Column
    eps_next: Column


class Plan(NamedTuple):
    """A sampling run as a table, one row per step; parts which a sampler never uses are None."""

    level: Level
    """Where the network is asked."""
    x: Column
    x0: Column
    eps: Column
    x0_prev: Column | None = None
    noise: Column | None = None
    churn: Churn | None = None
    corrector: Corrector | None = None

    @property
    def steps(self) -> int:
        """Number of rows."""
        return self.x.shape[0]


@checked
def ddim(grid: Grid, eta: NonNegative | None = None) -> Plan:
    r"""DDIM: x' = a' x0 + sqrt(s'^2 - v^2) eps + v e with v = eta s' sqrt(1 - SNR / SNR') (Song, Meng, Ermon 2021).

    Args:
      grid: the levels; a reversed grid inverts (with eta None).
      eta: 0 is deterministic, 1 is ancestral sampling; None is 0 without drawing any noise.

    Raises:
      ConfigError: for an eta below 0, or one that adds more noise than there is at a next level.
    """
    level, a, s = _rows(grid), grid.a[1:], grid.s[1:]
    if eta is None:
        return _plan(level, x0=a, eps=s)
    share = -np.expm1(np.minimum(grid.logsnr[:-1] - grid.logsnr[1:], 0.0))
    kept = np.where(s > 0, 1 - eta**2 * share, 0.0)
    if (kept < 0).any():
        raise ConfigError(
            f"ddim: with eta {eta:g} a step would add more noise than its next level holds; use eta of at most "
            f"{1 / np.sqrt(share[s > 0].max()):.4g} on this grid"
        )
    return _plan(level, x0=a, eps=s * np.sqrt(kept), noise=eta * s * np.sqrt(share))


@checked
def ddpm(grid: Grid, variance: Literal["small", "large"] = "small") -> Plan:
    """Ancestral sampling (Ho et al. 2020).

    The posterior mean with the posterior's variance ("small": DDIM at eta = 1) or the transition's ("large"), without
    noise at the last step.
    """
    share = -np.expm1(grid.logsnr[:-1] - grid.logsnr[1:])
    noise = (grid.s[1:] if variance == "small" else grid.s[:-1]) * np.sqrt(share)
    noise[-1] = 0.0
    return ddim(grid, 1.0)._replace(noise=_cast(noise))


@checked
def dpm_solver_2m(grid: Grid, eta: NonNegative | None = None) -> Plan:
    r"""DPM-Solver++(2M), and its stochastic variant with ``eta`` (Lu et al. 2022).

    With h = (L' - L)/2 and r = h_previous / h: x' = (s'/s) x - a' expm1(-h) D, D = (1 + 1/(2r)) x0 - 1/(2r) x0_prev,
    of first order at the first step; x0 itself where the next level is clean.
    """
    stochastic = eta is not None
    eta = eta or 0.0
    h = np.diff(grid.logsnr) / 2
    clean = np.isinf(h)
    if not np.isfinite(grid.logsnr[0]):
        raise ConfigError("DPM-Solver cannot start from pure noise: L is minus infinity there; start at a finite level")
    h = np.where(clean, 1.0, h)
    a, ratio = grid.a[1:], grid.s[1:] / grid.s[:-1]
    gain = -a * np.expm1(-(1 + eta) * h)
    tilt = np.zeros_like(h)
    tilt[1:] = h[1:] / (2 * h[:-1])
    columns = {
        "x": np.where(clean, 0.0, ratio * np.exp(-eta * h)),
        "x0": np.where(clean, a, gain * (1 + tilt)),
        "x0_prev": np.where(clean, 0.0, -gain * tilt),
    }
    if stochastic:
        columns["noise"] = np.where(clean, 0.0, grid.s[1:] * np.sqrt(-np.expm1(-2 * eta * h)))
    return _plan(_rows(grid), **columns)


@checked
def euler_ancestral(grid: Grid, eta: NonNegative = 1.0) -> Plan:
    """Euler to a level below the next one, then noise up to it, in y = x / a (k-diffusion)."""
    sigma, next_sigma = _finite_sigma(grid)
    up = np.minimum(next_sigma, eta * np.sqrt(next_sigma**2 * (sigma**2 - next_sigma**2)) / sigma)
    down = np.sqrt(next_sigma**2 - up**2)
    a = grid.a[1:]
    return _plan(_rows(grid), x=a / grid.a[:-1], eps=a * (down - sigma), noise=a * up)


@checked
def heun(
    grid: Grid,
    churn: NonNegative | None = None,
    *,
    smallest: NonNegative = 0.0,
    largest: NonNegative = float("inf"),
    noise_scale: NonNegative = 1.0,
    time: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Plan:
    r"""EDM's second-order sampler in y = x / a: slopes eps at both ends, averaged (Karras et al. 2022).

    Two network calls per step; the last step to a clean level is an Euler step. Works on reversed grids (inversion).

    Args:
      grid: the levels.
      churn: S_churn: before each step with sigma in [smallest, largest] noise is added up to sigma (1 + gamma),
        gamma = min(churn / N, sqrt(2) - 1); None adds none and draws none.
      smallest: S_min.
      largest: S_max.
      noise_scale: S_noise.
      time: what the network is told at a log signal-to-noise ratio; needed with churn, unless the grid tells it EDM's
        log(sigma)/4, which is then taken.

    Raises:
      ConfigError: where the grid holds pure noise, or churn asks the network at levels whose times are not known.
    """
    sigma, next_sigma = _finite_sigma(grid)
    level, a, a_hat = _rows(grid), grid.a[1:], grid.a[:-1]
    before = None
    if churn is not None:
        inside = (sigma >= smallest) & (sigma <= largest)
        raised = sigma * (1 + np.where(inside, min(churn / grid.steps, np.sqrt(2) - 1), 0.0))
        added = np.sqrt(np.maximum(raised**2 - sigma**2, 0.0)) * noise_scale
        logsnr = grid.logsnr[:-1] - 2 * np.log(raised / sigma)
        if not np.allclose(grid.a, 1.0):
            a_hat = np.exp(-np.logaddexp(0, -logsnr) / 2)
        before = Churn(_cast(a_hat / grid.a[:-1]), _cast(a_hat * added))
        told, between = grid.time[:-1], raised > sigma
        if between.any():
            told = np.where(between, _told(grid, logsnr, time), told)
        level, sigma = Level(a_hat, raised * a_hat, logsnr, told), raised
    step, has_slope = next_sigma - sigma, next_sigma > 0
    # At a clean level the network is not trusted with a question: it is asked again where it was, with weight zero.
    again = Level(*(np.where(has_slope, new, old) for new, old in zip(_rows(grid, 1), level, strict=True)))
    second = np.where(has_slope, a * step / 2, 0.0)
    plan = _plan(level, x=a / a_hat, eps=a * step)
    corrector = Corrector(_cast(again), plan.x, _cast(a * step - second), _cast(second))
    return plan._replace(churn=before, corrector=corrector)


def _told(grid: Grid, logsnr: np.ndarray, time: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    """What the network is told at levels beside the grid's own."""
    if time is not None:
        return np.asarray(time(logsnr), np.float64)
    noisy = grid.s > 0
    if not np.allclose(grid.time[noisy], -grid.logsnr[noisy] / 8):
        raise ConfigError(
            "heun: with churn the network is asked between the grid's levels, and what it is told at these is not "
            "log(sigma)/4; give time=, a function of the log SNR (for a schedule its time; for a chain an interpolated "
            "index, if the network was trained to take one), or leave churn out"
        )
    return -logsnr / 8


@checked
def padded(plan: Plan, steps: Count) -> Plan:
    """The plan with rows that change nothing appended, so that runs of several lengths share one program."""
    missing = steps - plan.steps
    if missing < 0:
        raise ConfigError(f"a plan of {plan.steps} steps cannot be padded to {steps}")
    repeated = jax.tree.map(lambda column: jnp.concatenate([column, jnp.repeat(column[-1:], missing, 0)]), plan)
    rest = jnp.arange(steps) >= plan.steps

    def still(part, ones: str):
        return part._replace(
            **{n: jnp.where(rest, float(n == ones), c) for n, c in part._asdict().items()
               if n not in ("level", "churn", "corrector") and c is not None}
        )  # fmt: skip

    out = still(repeated, "x")
    if out.churn is not None:
        out = out._replace(churn=still(out.churn, "scale"))
    return out if out.corrector is None else out._replace(corrector=still(out.corrector, "x"))


class Carry(NamedTuple):
    """What a sampler carries from step to step."""

    x: Float[Array, "batch ..."]
    x0: Float[Array, "batch ..."]
    """The last estimate of the clean sample; zeros before the first."""


@checked
def sample(
    plan: Plan,
    denoise: Denoiser,
    operands: Any,
    x: Float[Array, "batch ..."],
    key: Key[Array, ""] | None = None,
    *,
    unroll: Count = 1,
    first_example: Int[Array, ""] | Natural = 0,
    collect: Callable[[Carry], Any] | None = None,
) -> Any:
    """Runs a plan.

    It may be jitted, vmapped and differentiated; jit it, or what calls it, to compile it once.

    Noise is a function of the key, the example's position in the global batch and the step: neither the batch size
    nor the layout over devices changes what an example becomes.

    Args:
      plan: from :func:`ddim` and the like.
      denoise: the denoiser.
      operands: passed on to the denoiser.
      x: where to start; for a plan from noise, noise at its first level (see :func:`starting_noise`).
      key: needed where the plan draws noise.
      unroll: steps per iteration of the scan.
      first_example: position of the batch's first example in the global batch. Under pmap each replica adds its own.
      collect: ``carry -> pytree`` to be returned of every step, stacked along a leading axis.

    Returns:
      The sample, or ``(sample, collected)`` where ``collect`` is given.

    Raises:
      ConfigError: where the plan draws noise and no key is given.
    """
    noisy = plan.noise is not None or plan.churn is not None
    if noisy and key is None:
        raise ConfigError("this sampler draws noise: give it a key")
    keys = example_keys(key, x.shape[0], first_example) if noisy else None
    carry = Carry(x, jnp.zeros_like(x))

    def body(carry, row):
        index, row = row
        carry = step(row, index, denoise, operands, keys, carry)
        return carry, collect(carry) if collect else None

    carry, seen = jax.lax.scan(body, carry, (jnp.arange(plan.steps), plan), unroll=unroll)
    return (carry.x, seen) if collect else carry.x


def step(row: Plan, index: Any, denoise: Denoiser, operands: Any, keys: Any, carry: Carry) -> Carry:
    """One step of any sampler: ``row`` is one row of its plan."""
    x, drawn = carry.x, functools.partial(_noise, keys, index, carry.x)
    if row.churn is not None:
        x = row.churn.scale.astype(x.dtype) * x + row.churn.noise.astype(x.dtype) * drawn(1)
    level = Level(*row.level)
    prediction = denoise(operands, Query(x, level, carry.x0))
    # Sums start with the estimates: where a coefficient is zero the term adds an exact zero.
    out = row.x0 * prediction.x0 + row.eps * prediction.eps + row.x * x
    if row.x0_prev is not None:
        out += row.x0_prev * carry.x0
    if row.noise is not None:
        out += row.noise * drawn(0)
    if row.corrector is not None:
        fix = row.corrector
        second = denoise(operands, Query(out.astype(x.dtype), Level(*fix.level), prediction.x0))
        out = fix.eps * prediction.eps + fix.eps_next * second.eps + fix.x * x
    return Carry(out.astype(x.dtype), prediction.x0.astype(x.dtype))


@checked
def starting_noise(
    key: Key[Array, ""],
    shape: tuple[Natural, ...],
    plan: Plan | None = None,
    dtype: Any = jnp.float32,
    first_example: Int[Array, ""] | Natural = 0,
) -> Float[Array, "batch ..."]:
    """Noise to start from, per example as in :func:`sample`; scaled to the plan's first level if one is given.

    Raises:
      ConfigError: where the shape has no axis for the batch, or the type is none of floating-point numbers.
    """
    shape = tuple(map(int, shape))
    if not shape or not jnp.issubdtype(dtype, jnp.floating):
        raise ConfigError(f"starting_noise: needs a shape [batch, ...] and a floating-point type, not {shape}, {dtype}")
    keys = example_keys(stream(key, Stream.START), shape[0], first_example)
    noise = jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys)
    if plan is None:
        return noise
    level = plan.level
    exploding = jnp.abs(level.a[0] - 1) < 1e-6
    return noise * jnp.where(exploding, level.s[0], 1.0).astype(dtype)


def _noise(keys: Key[Array, " batch"], index: Any, like: Array, stream: int) -> Array:
    def draw(key):
        return jax.random.normal(jax.random.fold_in(key, 2 * index + stream), like.shape[1:], like.dtype)

    return jax.vmap(draw)(keys)


def _rows(grid: Grid, start: int = 0) -> Level:
    end = grid.steps + start
    return Level(*(column[start:end] for column in grid))


def _finite_sigma(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    if (grid.a <= 0).any():
        raise ConfigError(
            "this sampler works in x / a, which pure noise (SNR exactly 0) does not have: use ddim or ddpm, or start "
            "at a level of finite log SNR"
        )
    return grid.sigma[:-1], grid.sigma[1:]


def _plan(level: Level, **columns: np.ndarray) -> Plan:
    zeros = np.zeros(len(level.a))
    required = {name: columns.pop(name, zeros) for name in ("x", "x0", "eps")}
    return Plan(_cast(level), **_cast(required), **_cast(columns))


def _cast(tree: Any) -> Any:
    """To the default float type of JAX; infinite levels stay infinite."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda column: jnp.asarray(np.asarray(column, np.float64), dtype=float), tree)
