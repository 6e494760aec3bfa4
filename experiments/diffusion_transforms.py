"""The diffusion vocabulary: samplers beside each other on a trained network, and what a step costs.

Sources: DDPM (2006.11239), DDIM (2010.02502), score SDE (2011.13456), VDM (2107.00630), EDM (2206.00364),
DPM-Solver++ (2211.01095) and the others named in ``latent/diffusion``. Not one paper: the layer on which several
systems stand. What can be said exactly is said by tests; this experiment measures what needs a trained network.
Claim: second-order samplers reach the quality of first-order ones in fewer network calls, in one compiled program.
Command: ``relic run diffusion_transforms --preset small --seeds 3``.
Cost: no data; smoke half a minute on 2 CPU cores, small about ten minutes of CPU time.
Expect: DPM-Solver++(2M) at 20 calls is as close to the data as DDIM at 50.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

from core.bench import first_call
from core.checks import NonEmpty, Size, checked
from core.fit import fit
from core.kinds import Range
from core.learner import Stream, gradient_learner, step_key, stream, with_sampler
from core.stats import summary
from experiments.frames import curve, groups, interval, select, values
from experiments.settings import Many, Rate
from experiments.style import Palette, captioned
from experiments.system import Claim, Context, ShownByRecords, ShownByTest, System, Verdict
from latent import diffusion
from latent.diffusion import Conditioned, Grid, Plan
from latent.film import FilmMlp

SCHEDULE = diffusion.linear_vp()
END = 1e-3
"""Networks are trained and samplers end at this time."""


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Eight Gaussians on a ring, learned by a perceptron and drawn by every sampler."""

    steps: Many = 4_000
    batch_size: Size = 512
    width: Size = 128
    learning_rate: Rate = 2e-3
    samples: Annotated[int, Range(2, 10_000_000)] = 4_096
    projections: Size = 128
    calls: NonEmpty[Annotated[int, Range(2, 10_000)]] = (10, 20, 50, 100)
    """Network calls per sample; Heun's sampler takes half as many steps."""
    cost_width: Size = 1_024
    """Width of the perceptron of 13.7 M parameters whose sampling is timed."""
    cost_batch: Size = 512
    repeats: Annotated[int, Range(1, 100_000)] = 15


PRESETS = {
    "smoke": Config(steps=600, samples=1_024, calls=(10, 20), cost_width=256, repeats=3),
    "small": Config(),
    "paper": Config(steps=20_000, samples=16_384, calls=(5, 10, 20, 50, 100, 250), repeats=50),
}


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


def judge_second_order(frame: pd.DataFrame) -> Verdict:
    """Item 9: 2M at 20 calls is no farther from the data than DDIM at 50, on average over seeds."""
    ours = values(frame, metric="sliced W1", method="DPM-Solver++(2M)", calls=20)
    other = values(frame, metric="sliced W1", method="DDIM", calls=50)
    if min(len(ours), len(other)) < 3 or len(ours) != len(other):
        return Verdict(None)
    difference = summary(ours - other)
    text = f"sliced W1 {ours.mean():.4f} at 20 calls, DDIM {other.mean():.4f} at 50"
    return Verdict(bool(ours.mean() <= other.mean()), text, difference.interval)


def judge_cost(frame: pd.DataFrame) -> Verdict:
    """Item 11: a step within a tenth of the network call, for networks of a millisecond and more."""

    def milliseconds(method: str, calls: int) -> float:
        return float(values(frame, metric="milliseconds", method=method, calls=calls)[0])

    if not len(select(frame, metric="milliseconds")):
        return Verdict(None)
    step, call = milliseconds("sampling step", 50), milliseconds("network call", 1)
    text = f"{step:.2f} ms per step, {call:.2f} ms per bare network call; dispatch {milliseconds('dispatch', 10):.2f} "
    text += f"ms of 10 steps and {milliseconds('dispatch', 50):.2f} ms of 50"
    return Verdict(None if call < 1 else bool(step <= 1.1 * call), text)


SAMPLER_TESTS = "tests/latent/test_diffusion_samplers.py::"
VOCABULARY = "tests/latent/test_diffusion_vocabulary.py::"
PEERS = "tests/latent/test_diffusion_peers.py::"
CLAIMS = (
    Claim("1a", "Linear and cosine chains have the published levels to 1e-8",
          ShownByTest(VOCABULARY + "test_chains_have_the_published_levels")),
    Claim("1b", "Chains agree with diffusers' schedulers", ShownByTest(PEERS + "test_chains_agree_with_diffusers")),
    Claim("2a", "Raw outputs of five parameterisations go to (x0, eps) and back for log SNRs in [-10, 10]",
          ShownByTest(VOCABULARY + "test_raw_outputs_go_to_predictions_and_back")),
    Claim("2b", "Their errors are the stated multiples of each other",
          ShownByTest(VOCABULARY + "test_errors_of_parameterisations_are_multiples_of_each_other")),
    Claim("3a", "On Gaussian data DDPM (both variances) and DDIM (three etas) have the computed laws at all lengths",
          ShownByTest(SAMPLER_TESTS + "test_moments_of_linear_samplers_on_gaussian_data")),
    Claim("3b", "2e5 samples follow those laws to three standard errors",
          ShownByTest(SAMPLER_TESTS + "test_monte_carlo_follows_the_computed_law")),
    Claim("4", "DDIM is of first order, DPM-Solver++(2M) and Heun of second, with the computed errors",
          ShownByTest(SAMPLER_TESTS + "test_orders_of_convergence_to_the_exact_flow")),
    Claim("5", "Inversion and decoding return to the start with the computed errors, in three modes",
          ShownByTest(SAMPLER_TESTS + "test_inversion_round_trips_in_three_modes")),
    Claim("6a", "The variational bound of Gaussian data has its closed form, term by term",
          ShownByTest(VOCABULARY + "test_the_bound_on_gaussian_data_is_its_closed_form")),
    Claim("6b", "The diffusion term does not depend on the schedule between its ends",
          ShownByTest(VOCABULARY + "test_the_diffusion_term_does_not_see_the_path_between_the_ends")),
    Claim("6c", "Stratified times cut the variance of a batch's bound some eighty-fold in 784 dimensions, not in one",
          ShownByTest(VOCABULARY + "test_stratified_times_cut_the_variance_of_a_batch")),
    Claim("7a", "Guidance of weight 1 is the conditional sampler, of weight 0 the unconditional one, exactly",
          ShownByTest(VOCABULARY + "test_weights_one_and_zero_are_exact_where_no_program_is_fused")),
    Claim("7b", "A doubled batch equals two calls", ShownByTest(VOCABULARY + "test_doubled_batch_equals_two_calls")),
    Claim("7c", "The law under guidance of weight 2 follows from its affine steps",
          ShownByTest(VOCABULARY + "test_the_guided_law_follows_from_its_affine_steps")),
    Claim("8a", "vmap over seeds, weights and schedules equals a loop",
          ShownByTest(SAMPLER_TESTS + "test_vmap_over_plans_weights_and_seeds_equals_a_loop")),
    Claim("8b", "One compilation serves five schedules, etas and weights",
          ShownByTest(SAMPLER_TESTS + "test_one_compilation_serves_schedules_etas_and_weights")),
    Claim("8c", "Padded plans give the same bits", ShownByTest(SAMPLER_TESTS + "test_padded_plans_give_the_same_bits")),
    Claim("9", "On a trained network DPM-Solver++(2M) at 20 calls is as close to the data as DDIM at 50",
          ShownByRecords("sliced W1 on the ring, mean over seeds", judge_second_order)),
    Claim("10", "min-SNR, v and EDM weightings reach the optimum of the plain loss within 2 %",
          ShownByTest(VOCABULARY + "test_weightings_reach_the_same_optimum")),
    Claim("11", "A sampling step costs at most a tenth more than a bare network call of a millisecond or more",
          ShownByRecords("median times of a 13.7 M-parameter perceptron, interleaved", judge_cost)),
)  # fmt: skip


COLOURS = Palette(*SAMPLERS)


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Distance from the data by sampler and number of network calls; times of the cost cell."""
    out, chosen = {}, select(frame, metric="sliced W1")
    rows = []
    for method in ["fresh data", *SAMPLERS] if len(chosen) else []:
        cells = {"sampler": method}
        for (calls,), group in groups(select(chosen, method=method), "calls"):
            cells[f"{calls:g} calls" if calls else "no calls"] = interval(group["value"].to_numpy(), 4)
        rows.append(cells)
    if rows:
        out["Sliced W1 from the data, over seeds"] = pd.DataFrame(rows).astype(object).fillna("–")
    timed = select(frame, metric="milliseconds")
    if len(timed):
        columns = {"method": "what", "calls": "steps", "value": "milliseconds"}
        out["Cost"] = timed.loc[:, list(columns)].rename(columns=columns).round(3).reset_index(drop=True)
    return out


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Distance against network calls."""
    return {"samplers": distances(frame)} if len(select(frame, metric="sliced W1")) else {}


@captioned
def distances(frame: pd.DataFrame) -> Figure:
    """How near each sampler comes to the data with so many network calls, means over seeds; dotted: fresh data."""
    chosen = select(frame, metric="sliced W1")
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for method in SAMPLERS:
        axis.plot(*curve(select(chosen, method=method), "calls"), marker=".", label=method, **COLOURS.line(method))
    axis.axhline(float(values(chosen, method="fresh data").mean()), color="0.5", linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="network calls", ylabel="sliced W1 from the data")
    axis.legend(frameon=False, fontsize="small")
    return figure


SYSTEM = System(
    slug="diffusion_transforms",
    title="Diffusion transforms: the vocabulary of samplers",
    family="latent",
    paper="the layer under several systems; sources in latent/diffusion",
    presets=PRESETS,
    run=run,
    claims=CLAIMS,
    metrics=(),
    tables=tables,
    figures=figures,
    colours=COLOURS,
)
