"""What is measured for ``diffusion_transforms``."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core.bench import first_call
from core.fit import fit
from core.learner import Stream, gradient_learner, step_key, stream, with_sampler
from experiments.diffusion_transforms.config import Config
from experiments.lab import Context, Part, part
from latent import diffusion
from latent.diffusion import Conditioned, Grid, Plan
from latent.film import FilmMlp
from latent.planar import ring, sliced_wasserstein

SCHEDULE = diffusion.linear_vp()
END = 1e-3
"""Networks are trained and samplers end at this time."""
W1, MS, REPEATED = "sliced W1", "milliseconds", "milliseconds of a repeat"
STEP, CALL, DISPATCH = "sampling step", "network call", "dispatch"
in_time: Callable[[int], Grid] = functools.partial(diffusion.uniform_in_time, SCHEDULE, end=END)
"""Evenly spaced times, customary for DDIM and DDPM."""
in_logsnr: Callable[[int], Grid] = functools.partial(diffusion.uniform_in_logsnr, SCHEDULE, end=END)
"""Evenly spaced log SNRs, customary for DPM-Solver."""
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


def plan(config: Config, context: Context) -> Iterator[Part]:
    """Training and sampling for every seed, then the cost of a step."""
    for seed in context.seeds:
        yield part(functools.partial(quality, seed=seed), part="ring", seed=seed)
    yield part(cost, part="cost")


def network(width: int, blocks: int = 2) -> FilmMlp:
    """The denoiser of times in [0, 1]."""
    return FilmMlp(width, blocks, time_scale=1_000.0)


@functools.cache
def denoiser(width: int, blocks: int = 2) -> diffusion.Denoiser:
    """One object per network, so that compiled programs are found again."""
    return diffusion.denoiser(network(width, blocks).apply)


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


def quality(config: Config, context: Context, *, seed: int) -> None:
    """Sliced distance of every sampler's output from fresh data."""
    key, at = jax.random.key(seed), context.at(dataset="ring", seed=seed, part="ring")
    trained = fit(
        ring_learner(config), None, key=key, steps=config.steps, chunk=200, workdir=context.workdir / f"ring_{seed}",
        progress=context.progress(f"ring, seed {seed}"),
    ).state.params  # fmt: skip
    sampling_key = stream(key, "sampling")
    data, other = (np.asarray(ring(stream(key, "fresh data", i), config.samples)) for i in (0, 1))
    directions = np.random.default_rng(seed).normal(size=(2, config.projections))
    directions /= np.linalg.norm(directions, axis=0)
    at.record(W1, sliced_wasserstein(other, data, directions), method="fresh data", calls=0)
    program = jax.jit(functools.partial(diffusion.sample, denoise=denoiser(config.width)))
    for method, plan_of in SAMPLERS.items():
        for calls in config.calls:
            steps = plan_of(calls)
            start = diffusion.starting_noise(sampling_key, (config.samples, 2), steps)
            out = program(steps, operands=Conditioned(trained), x=start, key=sampling_key)
            at.record(W1, sliced_wasserstein(np.asarray(out), data, directions), method=method, calls=calls)


def cost(config: Config, context: Context) -> None:
    """Time of the bare network beside that of a sampler's step, and of dispatch at two lengths."""
    net, denoise = network(config.cost_width, 3), denoiser(config.cost_width, 3)
    x = jax.random.normal(jax.random.key(0), (config.cost_batch, 2))
    params = net.init(jax.random.key(1), x, jnp.zeros(config.cost_batch))
    bare = jax.jit(lambda params, x, t: net.apply(params, x, t))
    program = jax.jit(functools.partial(diffusion.sample, denoise=denoise))
    times = jnp.full(config.cost_batch, 0.5)
    plans = {steps: diffusion.ddim(in_time(steps)) for steps in (10, 50)}

    def whole(steps: int) -> Any:
        return program(plans[steps], operands=Conditioned(params), x=x)

    def dispatched(steps: int) -> float:
        start = time.perf_counter()
        out = whole(steps)
        seconds = time.perf_counter() - start
        jax.block_until_ready(out)
        return seconds

    timed: dict[tuple[str, int], Callable[[], float]] = {
        (CALL, 1): lambda: first_call(lambda: [bare(params, x, times) for _ in range(50)]) / 50,
        (STEP, 50): lambda: first_call(lambda: whole(50)) / 50,
        (DISPATCH, 10): lambda: dispatched(10),
        (DISPATCH, 50): lambda: dispatched(50),
    }
    jax.block_until_ready([whole(10), whole(50), bare(params, x, times)])
    rounds = [{place: 1e3 * measure() for place, measure in timed.items()} for _ in range(config.repeats)]
    for method, calls in timed:
        at = context.at(dataset="cost", method=method, seed=0, part="cost", calls=calls)
        milliseconds = [found[method, calls] for found in rounds]
        at.record(MS, np.median(milliseconds))
        for repeat, value in enumerate(milliseconds):
            at.record(REPEATED, value, repeat=repeat)
