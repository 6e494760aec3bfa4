"""What is measured for ``diffusion_transforms``."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from core.fit import fit
from core.learner import Stream, gradient_learner, step_key, stream, with_sampler
from experiments.diffusion_transforms.config import Config
from experiments.lab.system import Context
from latent import diffusion
from latent.diffusion import Conditioned, Grid, Plan
from latent.film import FilmMlp

SCHEDULE = diffusion.linear_vp()


END = 1e-3
"""Networks are trained and samplers end at this time."""


def in_time(steps: int) -> Grid:
    """Evenly spaced times, customary for DDIM and DDPM."""
    return diffusion.uniform_in_time(SCHEDULE, steps, end=END)


def in_logsnr(steps: int) -> Grid:
    """Evenly spaced log SNRs, customary for DPM-Solver."""
    return diffusion.uniform_in_logsnr(SCHEDULE, steps, end=END)


SAMPLERS: dict[str, Callable[[int], Plan]] = {
    "DDPM": lambda calls: diffusion.ddpm(in_time(calls)),
    "DDIM": lambda calls: diffusion.ddim(in_time(calls)),
    "DDIM, eta = 0.5": lambda calls: diffusion.ddim(in_time(calls), 0.5),
    "Euler ancestral": lambda calls: diffusion.euler_ancestral(in_logsnr(calls)),
    "DPM-Solver++(2M)": lambda calls: diffusion.dpm_solver_2m(in_logsnr(calls)),
    "DPM-Solver++(2M) SDE": lambda calls: diffusion.dpm_solver_2m(in_logsnr(calls), 1.0),
    "Heun": lambda calls: diffusion.heun(in_logsnr(calls // 2)),
}
"""Plans of a number of network calls."""


def ring(key: Any, count: int) -> jax.Array:
    """[count, 2]: eight Gaussians of deviation 0.1 on a circle of radius 1.5."""
    which, noise = jax.random.split(key)
    angle = jax.random.randint(which, (count,), 0, 8) * (jnp.pi / 4)
    return 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) + 0.1 * jax.random.normal(noise, (count, 2))


def network(width: int, blocks: int = 2) -> FilmMlp:
    """The denoiser of times in [0, 1]."""
    return FilmMlp(width, blocks, time_scale=1_000.0)


def ring_learner(config: Config):
    """Draws its own batches; what it is fed is ignored."""
    net = network(config.width)
    losses = diffusion.denoising_loss(net.apply, diffusion.continuous_levels(SCHEDULE, end=END))

    def loss(params, key, x):
        return losses(params, key, x)[0].mean(), {}

    def draw(nothing, key, step):
        return ring(stream(key, Stream.EXAMPLES, step), config.batch_size)

    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    learner = gradient_learner(
        lambda key, x: net.init(key, x[:1], jnp.zeros(1)), loss, optax.adam(rate), key_of=step_key, batch_axes=0
    )
    return with_sampler(learner, draw)


@functools.cache
def denoiser(width: int, blocks: int = 2) -> diffusion.Denoiser:
    """One object per network, so that compiled programs are found again."""
    return diffusion.denoiser(network(width, blocks).apply)


def run(config: Config, context: Context) -> None:
    """Trains and samples for every seed, then times; cells which a rerun skips."""
    context.cells([*({"part": "ring", "seed": seed} for seed in context.seeds), {"part": "cost"}])
    for seed in context.seeds:
        if context.done(part="ring", seed=seed):
            continue
        context.say(f"diffusion_transforms: ring, seed {seed}")
        quality(config, context, seed)
        context.finish(part="ring", seed=seed)
    if not context.done(part="cost"):
        context.say("diffusion_transforms: cost of a step")
        cost(config, context)
        context.finish(part="cost")


def quality(config: Config, context: Context, seed: int) -> None:
    """Sliced distance of every sampler's output from fresh data."""
    key = jax.random.key(seed)
    trained = fit(
        ring_learner(config), None, key=key, steps=config.steps, chunk=200, workdir=context.workdir / f"ring_{seed}",
        progress=context.progress(f"ring, seed {seed}"),
    ).state.params  # fmt: skip
    sampling_key = stream(key, "sampling")
    data, other = (np.asarray(ring(stream(key, "fresh data", i), config.samples)) for i in (0, 1))
    directions = np.random.default_rng(seed).normal(size=(2, config.projections))
    directions /= np.linalg.norm(directions, axis=0)

    def note(method: str, calls: int, drawn: np.ndarray) -> None:
        value = sliced_wasserstein(drawn, data, directions)
        context.record(dataset="ring", method=method, metric="sliced W1", seed=seed, value=value, part="ring",
                       calls=calls)  # fmt: skip

    note("fresh data", 0, other)
    program = jax.jit(functools.partial(diffusion.sample, denoise=denoiser(config.width)))
    for method, plan_of in SAMPLERS.items():
        for calls in config.calls:
            plan = plan_of(calls)
            start = diffusion.starting_noise(sampling_key, (config.samples, 2), plan)
            out = program(plan, operands=Conditioned(trained), x=start, key=sampling_key)
            note(method, calls, np.asarray(out))


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, directions: np.ndarray) -> float:
    """Mean over directions [d, p] of the first Wasserstein distance of the projections; equal sample sizes."""
    return float(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())


def cost(config: Config, context: Context) -> None:
    """Time of the bare network beside that of a sampler's step, and of dispatch at two lengths."""
    net, denoise = network(config.cost_width, 3), denoiser(config.cost_width, 3)
    x = jax.random.normal(jax.random.key(0), (config.cost_batch, 2))
    params = net.init(jax.random.key(1), x, jnp.zeros(config.cost_batch))
    bare = jax.jit(lambda params, x, t: net.apply(params, x, t))
    program = jax.jit(functools.partial(diffusion.sample, denoise=denoise))
    times = jnp.full(config.cost_batch, 0.5)
    plans = {steps: diffusion.ddim(in_time(steps)) for steps in (10, 50)}

    def whole(steps: int):
        return program(plans[steps], operands=Conditioned(params), x=x)

    def dispatch(steps: int) -> float:
        start = time.perf_counter()
        out = whole(steps)
        seconds = time.perf_counter() - start
        jax.block_until_ready(out)
        return seconds

    for steps in plans:
        jax.block_until_ready(whole(steps))
    jax.block_until_ready(bare(params, x, times))
    values: dict[tuple[str, int], list[float]] = {}
    for _ in range(config.repeats):
        fifty = [first_call(lambda: [bare(params, x, times) for _ in range(50)]) / 50]
        values.setdefault(("network call", 1), []).extend(fifty)
        values.setdefault(("sampling step", 50), []).append(first_call(lambda: whole(50)) / 50)
        for steps in plans:
            values.setdefault(("dispatch", steps), []).append(dispatch(steps))
    for (method, steps), seconds in values.items():
        context.record(dataset="cost", method=method, metric="milliseconds", seed=0,
                       value=1e3 * float(np.median(seconds)), part="cost", calls=steps)  # fmt: skip
