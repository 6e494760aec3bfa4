"""Multi-modal Gaussian-process variational autoencoders: smooth latents, shared and private, of joint recordings.

Paper: Gondur, Sikandar, Schaffer, Aoi, Keeley, Multi-modal Gaussian Process Variational Autoencoders for Neural and
Behavioral Data, ICLR 2024, arXiv 2310.03111; reference code RabiaGondur/MM-GPVAE.
Claim: with variational parameters in a pruned Fourier domain, spike counts and images recorded together yield the
latents that they share and those of their own, better than single modalities, a plain VAE or a time-domain GP-VAE.
Command: ``relic run mm_gpvae --preset small``.
Cost: smoke needs no data and ends in under a minute on 2 idle CPU cores; small takes about twenty minutes, MNIST's test
images (downloaded if not there) and, where they are in the data directory, the recordings ``monkey_reach_dad``.
Expect: R2 above 0.9 for the shared and the neural latent, above 0.6 for the zoom.

All seeds and restarts of a variant are one program.
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from sklearn.linear_model import RidgeCV

from core.bench import first_call
from core.datasets import monkey_reach
from core.learner import seed_keys
from experiments import mm_gpvae_training as training
from experiments.frames import interval, select
from experiments.mm_gpvae_claims import CLAIMS, STATISTICS
from experiments.mm_gpvae_figures import COLOURS, figures
from experiments.mm_gpvae_training import Config
from experiments.system import Context, Published, System
from latent import mm_gpvae as gp
from latent.mm_gpvae import MMGPVAE, Partition, Trials

PRESETS = {
    "smoke": Config(
        digits="drawn", trials=16, test_trials=8, bins=30, neurons=20, side=6, circle=60,
        neural_hidden=(16,), behaviour_hidden=(16,), decoder_hidden=(16,), steps=100, restarts=2, other_restarts=1,
        variants=("MM-GPVAE", "time domain"), gpfa_steps=50, monkey_steps=0, scale_bins=(), repeats=3,
    ),
    "small": Config(),
    "paper": Config(
        trials=240, test_trials=60, side=36, behaviour_hidden=(784, 512, 256, 256),
        decoder_hidden=(256, 256, 512, 784), steps=8_400, batch_size=20, gpfa_steps=1_000,
        variants=tuple(training.VARIANTS), monkey_steps=12_000,
    ),
}  # fmt: skip

MONKEY = {
    "average": {"fusion": "average", "hide": 0.0},
    "average, velocity hidden at times": {"fusion": "average", "hide": 0.3},
    "product, velocity hidden at times": {"fusion": "product", "hide": 0.3},
}
VELOCITY_UNIT = 10.0


def run(config: Config, context: Context) -> None:
    """Simulation by variant, baselines, the monkey's recordings, and time by length; cells which a rerun skips."""
    seeds = ",".join(map(str, context.seeds))
    parts = {f"simulation, {v}": functools.partial(simulated, variant=v) for v in config.variants}
    order = {**dict(list(parts.items())[:1]), "monkey": monkey, **parts, "baselines": baselines, "scale": scale}
    context.cells({"part": name, "seeds": seeds} for name in order)
    for name, part in order.items():
        if not context.done(part=name, seeds=seeds):
            context.say(f"mm_gpvae: {name}")
            part(config, context)
            context.finish(part=name, seeds=seeds)


def split(config: Config, context: Context, seed: int) -> tuple[gp.Simulation, gp.Simulation]:
    """Trials for training and for test."""
    both = training.simulation(config, seed, context.data_dir)
    n = config.trials
    return gp.Simulation(*(leaf[:n] for leaf in both)), gp.Simulation(*(leaf[n:] for leaf in both))


def simulated(config: Config, context: Context, variant: str) -> None:
    """All seeds and restarts of one variant; the best restart of a seed by ELBO is its result."""
    restarts = config.restarts if variant == "MM-GPVAE" else config.other_restarts
    model = training.model_of(config, variant)
    pairs = [(seed, restart) for seed in context.seeds for restart in range(restarts)]
    sets = {seed: split(config, context, seed) for seed in context.seeds}
    learned, asked = (training.trials_of(model, [sets[seed][i] for seed, _ in pairs]) for i in (0, 1))
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), restart) for seed, restart in pairs])
    where = {"progress": context.progress(variant), "workdir": context.workdir / variant.replace(" ", "-")}
    start = time.perf_counter()
    runs = training.train(model, learned, keys, config, steps=config.steps, **where)
    seconds = time.perf_counter() - start
    views = {"": training.look(runs, asked)}
    if model.neurons and model.outputs:
        views |= {", counts alone": training.look(runs, asked, behaviour=True)}
        views |= {", images alone": training.look(runs, asked, counts=True)}
    for i, (seed, restart) in enumerate(pairs):
        found: dict[str, float] = {}
        for suffix, seen in views.items():
            measured = training.metrics(runs, seen, i, *sets[seed])
            kept = measured if not suffix else {m: measured[m] for m in ("shared R2", "image MSE")}
            found |= {f"{metric}{suffix}": value for metric, value in kept.items()}
        note(context, "simulation", variant, seed, found, restart=restart)
        first = i - restart
        if restart == int(np.argmax(runs.elbo[first : first + restarts])):
            note(context, "simulation", variant, seed, found)
            trajectories(context, variant, seed, views[""].latents[i], sets[seed][1], training.groups(model))
    note(context, "simulation", variant, context.seeds[0], {"seconds": seconds}, kind="cost")


def note(context: Context, dataset: str, method: str, seed: int, found: dict[str, float], **place: Any) -> None:
    """Records by metric."""
    for metric, value in found.items():
        context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **place)


def trajectories(context: Context, variant: str, seed: int, latents, test: gp.Simulation, groups) -> None:
    """The first test trial of the first seed: truth and aligned latents, for the figure."""
    if seed != context.seeds[0]:
        return
    truth = {"neural": test.latents[..., 0], "shared": test.latents[..., 1], "zoom": test.zoom}
    for name, columns in groups.items():
        if not columns:
            continue
        design = np.concatenate([latents[..., columns], np.ones((*latents.shape[:2], 1))], axis=-1)
        target = np.asarray(truth[name])
        weights = np.linalg.lstsq(design.reshape(-1, design.shape[-1]), target.ravel(), rcond=None)[0]
        for t, (true, guess) in enumerate(zip(target[0], design[0] @ weights, strict=True)):
            found = {"truth": true, "aligned": guess}
            note(context, "simulation", variant, seed, found, kind="trajectory", latent=name, t=t)


def baselines(config: Config, context: Context) -> None:
    """Gaussian GPFA for the neural latents and canonical correlation for the shared one."""
    for seed in context.seeds:
        train, test = split(config, context, seed)
        gpfa = training.gpfa_latents(
            config, train, test, jax.random.key(seed), config.gpfa_steps, context.workdir / f"gpfa-{seed}"
        )
        found = training.latent_metrics(gpfa, test, {"neural": [0, 1], "shared": [0, 1]})
        note(context, "simulation", "GPFA", seed, found)
        cca = training.cca_latents(train, test)
        note(context, "simulation", "CCA", seed, training.latent_metrics(cca, test, {"shared": [0, 1]}))


def monkey(config: Config, context: Context) -> None:
    """Counts and hand velocity of real reaches: rates, velocity, velocity from counts alone, exchanged pairs."""
    if not config.monkey_steps:
        return
    if monkey_reach.locate("chewie", context.data_dir) is None:
        context.say("mm_gpvae: monkey_reach_dad is not in the data directory; its part is left out")
        return
    learned, asked = (monkey_reach.reaches(part, context.data_dir) for part in ("te", "tr"))
    keys, n = seed_keys(list(context.seeds)), len(context.seeds)
    many = [_stacked(_trials(part), n) for part in (learned, asked)]
    exchanged = many[1]._replace(behaviour=jnp.roll(many[1].behaviour, 1, axis=1))
    for name, choice in MONKEY.items():
        model = MMGPVAE(
            Partition(2, 2, 1), bins=monkey_reach.BINS, neurons=learned.counts.shape[-1], outputs=2, circle=51,
            shortest=3.0, behaviour_hidden=(32,), decoder_hidden=(32,), first_noise=0.1, fusion=choice["fusion"],
        )  # fmt: skip
        one = {"progress": context.progress(f"monkey, {name}"), "hide": choice["hide"], "first_weight": 1.0}
        one["workdir"] = context.workdir / f"monkey-{name}".replace(",", "").replace(" ", "-")
        runs = training.train(model, many[0], keys, config, steps=config.monkey_steps, **one)
        seen, mixed = training.look(runs, many[1]), training.look(runs, exchanged)
        blind = training.look(runs, many[1], behaviour=True)
        assert seen.rates is not None
        assert seen.behaviour is not None
        assert mixed.rates is not None
        assert blind.behaviour is not None
        mean, lengths = learned.counts.mean(axis=(0, 1)), np.exp(np.asarray(runs.params["params"]["log_length"]))
        for i, seed in enumerate(context.seeds):
            truth = asked.velocity / VELOCITY_UNIT
            found = {
                "bits/spike": gp.bits_per_spike(asked.counts, seen.rates[i], mean),
                "bits/spike, exchanged velocity": gp.bits_per_spike(asked.counts, mixed.rates[i], mean),
                "velocity R2": gp.r2(truth, seen.behaviour[i]),
                "velocity R2, counts alone": gp.r2(truth, blind.behaviour[i]),
                "shortest length": lengths[i].min(),
                "longest length": lengths[i].max(),
                "mean length": lengths[i].mean(),
            }
            note(context, "chewie", name, seed, found)
    ridge = _ridge(learned, asked)
    for seed in context.seeds:
        note(context, "chewie", "ridge regression", seed, {"velocity R2, counts alone": ridge})


def _trials(reaches: monkey_reach.Reaches) -> Trials:
    return Trials.of(jnp.asarray(reaches.counts), jnp.asarray(reaches.velocity) / VELOCITY_UNIT)


def _stacked(trials: Trials, n: int) -> Trials:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), trials)


def _ridge(learned: monkey_reach.Reaches, asked: monkey_reach.Reaches) -> float:
    rows = [(np.sqrt(part.counts).reshape(-1, part.counts.shape[-1]), part.velocity) for part in (learned, asked)]
    model = RidgeCV(np.logspace(-1, 4, 16)).fit(rows[0][0], rows[0][1].reshape(-1, 2))
    return gp.r2(rows[1][1], model.predict(rows[1][0]).reshape(rows[1][1].shape))


def scale(config: Config, context: Context) -> None:
    """Seconds of a gradient step and of the divergence by number of bins and trials, in both domains."""
    for bins in config.scale_bins:
        for trials in (16, 32) if bins == config.scale_bins[-1] else (16,):
            for domain in ("fourier", "time") if trials == 16 else ("fourier",):
                for what, timed in timings(bins, trials, domain).items():
                    timed()
                    for repeat in range(config.repeats):
                        place = {"part": "scale", "bins": bins, "trials": trials}
                        note(context, "timing", domain, repeat, {f"seconds of {what}": first_call(timed)}, **place)


def timings(bins: int, trials: int, domain: gp.Domain) -> dict[str, Any]:
    """A training step and the divergence with its gradient, compiled at the first call."""
    model = MMGPVAE(
        Partition(1, 1, 1), bins=bins, neurons=30, outputs=20, domain=domain, mixes_time=False, circle=bins + 40,
        neural_hidden=(32,), behaviour_hidden=(32,), decoder_hidden=(32,),
    )  # fmt: skip
    data = Trials.of(jnp.ones((trials, bins, 30)), jnp.ones((trials, bins, 20)))
    learner = gp.learner(model, optax.adam(1e-3))
    batch = (data, jnp.ones(()))
    state = learner.init(jax.random.key(0), batch)
    shape = (trials, model.basis.matrix.shape[0], 3)
    q = gp.Posterior(jax.random.normal(jax.random.key(1), shape), jnp.zeros(shape))
    step = jax.jit(learner.update)
    kl = jax.jit(jax.grad(lambda params: jnp.sum(jnp.asarray(model.apply(params, q, method="kl")))))
    return {"a step": lambda: step(state, batch), "the divergence": lambda: kl(state.params)}


PUBLISHED: tuple[Published, ...] = ()
"""The paper's comparisons are figures without numbers that we could read."""

SHOWN = {
    "simulation": (
        "shared R2", "neural R2", "zoom R2", "shared R2, fixed column", "rate R2", "bits/spike", "image MSE",
        "shared R2, counts alone", "shared R2, images alone", "shortest length", "longest length",
    ),
    "chewie": (
        "bits/spike", "bits/spike, exchanged velocity", "velocity R2", "velocity R2, counts alone", "mean length",
    ),
}  # fmt: skip


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means over seeds with 95 % intervals, the best restart of each seed."""
    titles = {"simulation": "Simulation: counts and a turning digit", "chewie": "Monkey reaches: counts and velocity"}
    out = {}
    for dataset, metrics in SHOWN.items():
        rows = []
        plain = select(frame, dataset=dataset)
        for column in ("restart", "kind", "part"):
            plain = plain.loc[plain[column].isna()] if column in plain else plain
        for method in plain["method"].unique():
            cells = {m: select(plain, method=method, metric=m)["value"].to_numpy() for m in metrics}
            rows.append({"method": method} | {m: interval(v, 2) if len(v) else "–" for m, v in cells.items()})
        if rows:
            out[titles[dataset]] = pd.DataFrame(rows)
    return out


SYSTEM = System(
    slug="mm_gpvae",
    title="Multi-modal Gaussian Process Variational Autoencoders",
    family="latent",
    paper="Gondur et al., ICLR 2024, arXiv 2310.03111",
    presets=PRESETS,
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    statistics=STATISTICS,
    metrics=("shared R2", "neural R2", "zoom R2", "rate R2", "bits/spike", "image MSE", "velocity R2"),
    baseline="MM-GPVAE",
    tables=tables,
    figures=figures,
    colours=COLOURS,
    data=("mnist", "monkey_reach_dad"),
)
