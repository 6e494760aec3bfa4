"""Models of simulated and real recordings: many independent runs of one variant are one program."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import RidgeCV

from core.batches import epoch_sampler
from core.bench import first_call
from core.datasets import mnist, monkey_reach
from core.fit import fit
from core.learner import replicate_seeds, seed_keys, with_sampler
from experiments.lab import Context, Place
from experiments.mm_gpvae.config import VARIANTS, Config
from latent import mm_gpvae as gp
from latent.mm_gpvae import MMGPVAE, Partition, Trials

MONKEY: Mapping[str, Any] = {
    "average": {"fusion": "average", "hide": 0.0},
    "average, velocity hidden at times": {"fusion": "average", "hide": 0.3},
    "product, velocity hidden at times": {"fusion": "product", "hide": 0.3},
}
VELOCITY_UNIT = 10.0
Split = tuple[gp.Simulation, gp.Simulation]
"""Trials for training and for test."""


class Runs(NamedTuple):
    """Finished runs of one model, stacked along axis 0, and the bound of each on its training trials."""

    model: MMGPVAE
    params: Any
    elbo: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[runs, latents] length scales."""
        return np.exp(np.asarray(self.params["params"]["log_length"]))


class Seen(NamedTuple):
    """Of the test trials of every run, with all modalities or without one."""

    latents: np.ndarray
    rates: np.ndarray | None
    behaviour: np.ndarray | None


def simulation(config: Config, seed: int, data_dir: Path | None) -> Split:
    """A seed's simulation."""
    both = _simulate(config)(jax.random.key(1000 + seed), jnp.asarray(threes(config, data_dir)))
    n = config.trials
    return gp.Simulation(*(leaf[:n] for leaf in both)), gp.Simulation(*(leaf[n:] for leaf in both))


@functools.cache
def _simulate(config: Config) -> Callable[..., gp.Simulation]:
    total, size = config.trials + config.test_trials, {"neurons": config.neurons, "side": config.side}
    return jax.jit(functools.partial(gp.simulate, trials=total, bins=config.bins, **size))


@functools.cache
def threes(config: Config, data_dir: Path | None) -> np.ndarray:
    """Images of the digit 3 in [0, 1]."""
    if config.digits == "drawn":
        return np.asarray(gp.drawn_threes(jax.random.key(3), 64))
    found = mnist.load("test", data_dir)
    return found.images[found.labels == 3][..., 0].astype(np.float32) / 255


def trials_of(model: MMGPVAE, simulated: Sequence[gp.Simulation]) -> Trials:
    """What a model sees of simulations, stacked along axis 0; few neurons are the first ones."""
    counts = jnp.stack([s.counts[..., : model.neurons] for s in simulated]) if model.neurons else None
    images = jnp.stack([s.images for s in simulated]) if model.outputs else None
    shape = simulated[0].counts.shape[:1]
    return Trials(counts, images, jnp.ones((len(simulated), *shape, 2)))


def train(
    context: Context, name: str, model: MMGPVAE, data: Trials, keys: jax.Array, config: Config, *, steps: int,
    hide: float = 0.0, first_weight: float = 1.0,
) -> Runs:  # fmt: skip
    """Independent runs on stacked data."""
    weight = gp.rising(first_weight, steps // 2, 4 * steps // 5)
    cosine = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    tx = gp.reference_optimizer() if config.optimizer == "code" else cosine
    sampler = gp.weighted(epoch_sampler(min(config.batch_size, data.present.shape[1])), weight)
    learner = with_sampler(gp.learner(model, tx, hide_behaviour=hide), sampler, gp.BATCH_AXES)
    state = fit(
        replicate_seeds(learner, len(keys), 0), data, key=keys, steps=steps, chunk=50, progress=context.progress(name),
        workdir=context.workdir / name.replace(",", "").replace(" ", "-"),
    ).state  # fmt: skip

    @jax.jit
    @jax.vmap
    def elbo(params, trials):
        return gp.bound(model, params, jax.random.split(jax.random.key(0), trials.present.shape[0]), trials).elbo.mean()

    return Runs(model, state.params, np.asarray(elbo(state.params, data)))


def look(runs: Runs, data: Trials, **hidden: bool) -> Seen:
    """Posterior latents, rates and behaviour; a modality can be hidden from recognition."""
    model = runs.model

    @jax.jit
    @jax.vmap
    def found(params, trials):
        trials = trials.without(**hidden)
        names = ("latents", *(("rates",) if model.neurons else ()), *(("behaviour",) if model.outputs else ()))
        return {name: model.apply(params, trials, method=name) for name in names}

    seen = {name: np.asarray(array) for name, array in found(runs.params, data).items()}
    return Seen(seen["latents"], seen.get("rates"), seen.get("behaviour"))


def simulated(config: Config, context: Context, variant: str) -> None:
    """All seeds and restarts of one variant; the best restart of a seed by ELBO is its result."""
    restarts = config.restarts if variant == "MM-GPVAE" else config.other_restarts
    model = MMGPVAE(**{
        "partition": Partition(1, 1, 1), "bins": config.bins, "neurons": config.neurons, "outputs": config.side**2,
        "circle": config.circle, "shortest": config.shortest, "neural_hidden": config.neural_hidden,
        "behaviour_hidden": config.behaviour_hidden, "decoder_hidden": config.decoder_hidden, **VARIANTS[variant],
    })  # fmt: skip
    pairs = [(seed, restart) for seed in context.seeds for restart in range(restarts)]
    sets = {seed: simulation(config, seed, context.data_dir) for seed in context.seeds}
    learned, asked = (trials_of(model, [sets[seed][i] for seed, _ in pairs]) for i in (0, 1))
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), restart) for seed, restart in pairs])
    both, start = bool(model.neurons and model.outputs), time.perf_counter()
    weight = config.image_weight if both else 1.0
    runs = train(context, variant, model, learned, keys, config, steps=config.steps, first_weight=weight)
    at = context.at(dataset="simulation", method=variant)
    at.record("seconds", time.perf_counter() - start, seed=context.seeds[0], kind="cost")
    views = {"": look(runs, asked)}
    if both:
        views |= {", counts alone": look(runs, asked, behaviour=True), ", images alone": look(runs, asked, counts=True)}
    for i, (seed, restart) in enumerate(pairs):
        found: dict[str, float] = {}
        for suffix, seen in views.items():
            measured = metrics(runs, seen, i, *sets[seed])
            kept = ("shared R2", "image MSE") if suffix else measured
            found |= {f"{metric}{suffix}": measured[metric] for metric in kept}
        at.record_all(found, seed=seed, restart=restart)
        if restart == int(np.argmax(runs.elbo[i - restart : i - restart + restarts])):
            at.record_all(found, seed=seed)
            if seed == context.seeds[0]:
                trajectories(at.at(seed=seed, kind="trajectory"), views[""].latents[i], sets[seed][1], groups(model))


def trajectories(at: Place, latents: np.ndarray, test: gp.Simulation, where: Mapping[str, Sequence[int]]) -> None:
    """The first test trial: truth and aligned latents, for the figure."""
    for name, truth in true_latents(test).items():
        if where[name]:
            aligned = gp.aligned(latents[..., where[name]], truth)
            for t, (true, guess) in enumerate(zip(truth[0], aligned[0], strict=True)):
                at.record_all({"truth": true, "aligned": guess}, latent=name, t=t)


def true_latents(test: gp.Simulation) -> dict[str, np.ndarray]:
    """[trials, bins] by name."""
    truth = {"neural": test.latents[..., 0], "shared": test.latents[..., 1], "zoom": test.zoom}
    return {name: np.asarray(values) for name, values in truth.items()}


def groups(model: MMGPVAE) -> dict[str, list[int]]:
    """Columns on which each true latent is sought; where a model names no shared latent, all of them."""
    p = model.partition
    columns = list(range(p.total))
    shared = columns[p.neural : p.neural + p.shared] or columns
    return {"neural": columns[p.of_neural], "shared": shared, "zoom": columns[p.of_behaviour]}


def latent_metrics(latents: np.ndarray, test: gp.Simulation, where: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """R2 of the true latents on their columns, and of the shared one on the one column that stands for it."""
    truth, out, place = true_latents(test), {}, where["shared"][-1]
    for name, columns in where.items():
        if columns:
            found = gp.score(latents, truth[name], columns)
            out |= {f"{name} R2": found.aligned, f"{name} R2, best column": found.one_to_one}
    return out | {"shared R2, fixed column": gp.affine_r2(latents[..., place : place + 1], truth["shared"])}


def metrics(runs: Runs, seen: Seen, run: int, train: gp.Simulation, test: gp.Simulation) -> dict[str, float]:
    """Everything that is measured of one run on its test trials."""
    out = latent_metrics(seen.latents[run], test, groups(runs.model))
    if seen.rates is not None:
        n = runs.model.neurons
        counts, rates, learned = (np.asarray(a)[..., :n] for a in (test.counts, test.rates, train.counts))
        out["rate R2"] = gp.r2(rates, seen.rates[run])
        out["bits/spike"] = gp.bits_per_spike(counts, seen.rates[run], learned.mean(axis=(0, 1)))
    if seen.behaviour is not None:
        images, average = np.asarray(test.images), np.asarray(train.images).mean(axis=(0, 1))
        out["image MSE"] = float(np.square(images - seen.behaviour[run]).mean())
        out["image MSE of the mean image"] = float(np.square(images - average).mean())
    if runs.model.domain != "white":
        out |= {"shortest length": runs.lengths[run].min(), "longest length": runs.lengths[run].max()}
    return {**out, "ELBO": float(runs.elbo[run])}


def baselines(config: Config, context: Context) -> None:
    """Gaussian GPFA on square roots of counts for the neural latents, and canonical correlation for the shared one."""
    for seed in context.seeds:
        train, test = simulation(config, seed, context.data_dir)
        basis, steps = gp.fourier_basis(config.bins, config.circle, config.shortest), config.gpfa_steps
        learner = gp.gpfa_learner(basis, 2, optax.adam(optax.cosine_decay_schedule(3e-2, steps)))
        params = fit(
            learner, jnp.sqrt(train.counts), key=jax.random.key(seed), steps=steps, chunk=50,
            workdir=context.workdir / f"gpfa-{seed}",
        ).state.params  # fmt: skip
        gpfa = np.asarray(gp.gpfa_latents(basis, params, jnp.sqrt(test.counts)))
        at = context.at(dataset="simulation", seed=seed)
        at.record_all(latent_metrics(gpfa, test, {"neural": [0, 1], "shared": [0, 1]}), method="GPFA")
        at.record_all(latent_metrics(canonical(train, test), test, {"shared": [0, 1]}), method="CCA")


def canonical(train: gp.Simulation, test: gp.Simulation) -> np.ndarray:
    """The first canonical variates of square-rooted counts and images, bin by bin."""
    rows = [(np.sqrt(np.asarray(s.counts)), np.asarray(s.images)) for s in (train, test)]
    flat = [[x.reshape(-1, x.shape[-1]) for x in pair] for pair in rows]
    fitted: Any = CCA(n_components=1, max_iter=1000).fit(*flat[0])
    return np.hstack(fitted.transform(*flat[1])).reshape(*test.counts.shape[:2], 2)


def monkey(config: Config, context: Context) -> None:
    """Counts and hand velocity of real reaches: rates, velocity, velocity from counts alone, exchanged pairs."""
    learned, asked = (monkey_reach.reaches(part, context.data_dir) for part in ("te", "tr"))
    train_trials, test_trials = (_trials(part, len(context.seeds)) for part in (learned, asked))
    exchanged = test_trials._replace(behaviour=jnp.roll(test_trials.behaviour, 1, axis=1))
    mean, truth = learned.counts.mean(axis=(0, 1)), asked.velocity / VELOCITY_UNIT
    for name, choice in MONKEY.items():
        model = MMGPVAE(
            Partition(2, 2, 1), bins=monkey_reach.BINS, neurons=learned.counts.shape[-1], outputs=2, circle=51,
            shortest=3.0, behaviour_hidden=(32,), decoder_hidden=(32,), first_noise=0.1, fusion=choice["fusion"],
        )  # fmt: skip
        keys, steps = seed_keys(list(context.seeds)), config.monkey_steps
        runs = train(context, f"monkey-{name}", model, train_trials, keys, config, steps=steps, hide=choice["hide"])
        seen, mixed, blind = look(runs, test_trials), look(runs, exchanged), look(runs, test_trials, behaviour=True)
        for i, seed in enumerate(context.seeds):
            lengths = runs.lengths[i]
            context.at(dataset="chewie", method=name, seed=seed).record_all({
                "bits/spike": gp.bits_per_spike(asked.counts, _there(seen.rates)[i], mean),
                "bits/spike, exchanged velocity": gp.bits_per_spike(asked.counts, _there(mixed.rates)[i], mean),
                "velocity R2": gp.r2(truth, _there(seen.behaviour)[i]),
                "velocity R2, counts alone": gp.r2(truth, _there(blind.behaviour)[i]),
                "shortest length": lengths.min(), "longest length": lengths.max(), "mean length": lengths.mean(),
            })  # fmt: skip
    rows = [(np.sqrt(part.counts).reshape(-1, part.counts.shape[-1]), part.velocity) for part in (learned, asked)]
    ridge = RidgeCV(np.logspace(-1, 4, 16)).fit(rows[0][0], rows[0][1].reshape(-1, 2))
    told = gp.r2(rows[1][1], ridge.predict(rows[1][0]).reshape(rows[1][1].shape))
    for seed in context.seeds:
        at = context.at(dataset="chewie", method="ridge regression", seed=seed)
        at.record("velocity R2, counts alone", told)


def _there(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return array


def _trials(reaches: monkey_reach.Reaches, n: int) -> Trials:
    trials = Trials.of(jnp.asarray(reaches.counts), jnp.asarray(reaches.velocity) / VELOCITY_UNIT)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), trials)


def scale(config: Config, context: Context) -> None:
    """Seconds of a gradient step and of the divergence by number of bins and trials, in both domains."""
    for bins in config.scale_bins:
        for trials in (16, 32) if bins == config.scale_bins[-1] else (16,):
            for domain in ("fourier", "time") if trials == 16 else ("fourier",):
                at = context.at(dataset="timing", method=domain, part="scale", bins=bins, trials=trials)
                for what, timed in timings(bins, trials, domain).items():
                    timed()
                    for repeat in range(config.repeats):
                        at.record(f"seconds of {what}", first_call(timed), seed=repeat)


def timings(bins: int, trials: int, domain: gp.Domain) -> dict[str, Callable[[], Any]]:
    """A training step and the divergence with its gradient, compiled at the first call."""
    model = MMGPVAE(
        Partition(1, 1, 1), bins=bins, neurons=30, outputs=20, domain=domain, mixes_time=False, circle=bins + 40,
        neural_hidden=(32,), behaviour_hidden=(32,), decoder_hidden=(32,),
    )  # fmt: skip
    data = Trials.of(jnp.ones((trials, bins, 30)), jnp.ones((trials, bins, 20)))
    learner, batch = gp.learner(model, optax.adam(1e-3)), (data, jnp.ones(()))
    state, shape = learner.init(jax.random.key(0), batch), (trials, model.basis.matrix.shape[0], 3)
    q = gp.Posterior(jax.random.normal(jax.random.key(1), shape), jnp.zeros(shape))
    step = jax.jit(learner.update)
    kl = jax.jit(jax.grad(lambda params: jnp.sum(jnp.asarray(model.apply(params, q, method="kl")))))
    return {"a step": lambda: step(state, batch), "the divergence": lambda: kl(state.params)}
