"""Training and measuring the models of ``mm_gpvae``: many independent runs of one variant are one program."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.cross_decomposition import CCA

from core.batches import epoch_sampler
from core.checks import Fraction, NonEmpty, Size, checked
from core.datasets import mnist
from core.fit import fit
from core.kinds import Range
from core.learner import replicate_seeds, with_sampler
from experiments.lab.settings import Many, ManyOrNone, Rate, require_known
from latent import mm_gpvae as gp
from latent.mm_gpvae import MMGPVAE, Partition, Trials


@checked
@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; lengths are in bins."""

    digits: Literal["drawn", "mnist"] = "mnist"
    """Threes of two arcs, without data, or those of MNIST's test split."""
    trials: Annotated[int, Range(2, 1_000_000)] = 96
    test_trials: Annotated[int, Range(2, 1_000_000)] = 24
    bins: Annotated[int, Range(4, 100_000)] = 60
    neurons: Size = 100
    side: Annotated[int, Range(4, 256)] = 12
    circle: Size = 100
    shortest: Annotated[float, Range(above=0, most=1e5)] = 10.0
    neural_hidden: NonEmpty[Size] = (80, 40, 20)
    behaviour_hidden: NonEmpty[Size] = (128, 64)
    decoder_hidden: NonEmpty[Size] = (64, 128)
    steps: Many = 1_500
    batch_size: Size = 16
    learning_rate: Rate = 2e-3
    optimizer: Literal["cosine", "code"] = "cosine"
    image_weight: Fraction = 0.03
    """Weight of the image term up to half of the steps; it is 1 from four fifths of them on."""
    restarts: Annotated[int, Range(1, 10_000)] = 4
    """Of the main model; the best by ELBO counts."""
    other_restarts: Annotated[int, Range(1, 10_000)] = 2
    """Of every variant, compared with as many of the main model."""
    variants: tuple[str, ...] = (
        "MM-GPVAE", "time domain", "counts only", "images only", "N = 10", "N = 1", "time domain with map", "unpruned",
    )  # fmt: skip
    gpfa_steps: Many = 200
    monkey_steps: ManyOrNone = 6_000
    """At 1,500 the bound on the training trials still rises steeply and length scales stand where they started."""
    scale_bins: tuple[Annotated[int, Range(4, 100_000)], ...] = (128, 256, 512)
    repeats: ManyOrNone = 7
    """Of every timing."""

    def __post_init__(self):
        require_known("variant", self.variants, VARIANTS)


VARIANTS: Mapping[str, dict[str, Any]] = {
    "MM-GPVAE": {},
    "time domain": {"domain": "time", "mixes_time": False},
    "time domain with map": {"domain": "time"},
    "unpruned": {"shortest": None},
    "VAE": {"domain": "white", "mixes_time": False},
    "product of experts": {"fusion": "product"},
    "images only": {"partition": Partition(0, 0, 2), "neurons": 0},
    "counts only": {"partition": Partition(2, 0, 0), "outputs": 0},
    "N = 10": {"neurons": 10},
    "N = 1": {"neurons": 1},
}
"""What differs from the main model."""


class Runs(NamedTuple):
    """Finished runs of one model, stacked along axis 0, and what they learned from."""

    model: MMGPVAE
    params: Any
    elbo: np.ndarray


def model_of(config: Config, variant: str) -> MMGPVAE:
    """The model of a variant."""
    settings: dict[str, Any] = {
        "partition": Partition(1, 1, 1),
        "bins": config.bins,
        "neurons": config.neurons,
        "outputs": config.side**2,
        "circle": config.circle,
        "shortest": config.shortest,
        "neural_hidden": config.neural_hidden,
        "behaviour_hidden": config.behaviour_hidden,
        "decoder_hidden": config.decoder_hidden,
    }
    return MMGPVAE(**{**settings, **VARIANTS[variant]})


def simulation(config: Config, seed: int, data_dir: Path | None) -> gp.Simulation:
    """Training trials first, then those for test."""
    key = jax.random.key(1000 + seed)
    return _simulate(config)(key, jnp.asarray(threes(config, data_dir)))


@functools.cache
def _simulate(config: Config):
    total = config.trials + config.test_trials
    return jax.jit(
        functools.partial(gp.simulate, trials=total, bins=config.bins, neurons=config.neurons, side=config.side)
    )


def threes(config: Config, data_dir: Path | None) -> np.ndarray:
    """Images of the digit 3 in [0, 1]."""
    if config.digits == "drawn":
        return _drawn_threes()
    found = mnist.load("test", data_dir)
    return found.images[found.labels == 3][..., 0].astype(np.float32) / 255


@functools.cache
def _drawn_threes() -> np.ndarray:
    return np.asarray(gp.drawn_threes(jax.random.key(3), 64))


def trials_of(model: MMGPVAE, simulated: Sequence[gp.Simulation]) -> Trials:
    """What a model sees of simulations, stacked along axis 0; few neurons are the first ones."""
    counts = jnp.stack([s.counts[..., : model.neurons] for s in simulated]) if model.neurons else None
    images = jnp.stack([s.images for s in simulated]) if model.outputs else None
    known = counts if counts is not None else images
    assert known is not None
    return Trials(counts, images, jnp.ones((*known.shape[:2], 2)))


def train(
    model: MMGPVAE,
    data: Trials,
    keys: jax.Array,
    config: Config,
    *,
    steps: int,
    hide: float = 0.0,
    first_weight: float | None = None,
    **where: Any,
) -> Runs:
    """Independent runs on stacked data, and the bound of each on its training trials."""
    both = bool(model.neurons and model.outputs)
    first_weight = config.image_weight if first_weight is None else first_weight
    weight = gp.rising(first_weight if both else 1.0, steps // 2, 4 * steps // 5)
    tx = (
        gp.reference_optimizer()
        if config.optimizer == "code"
        else optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    )
    batch_size = min(config.batch_size, data.present.shape[1])
    sampler = gp.weighted(epoch_sampler(batch_size), weight)
    learner = with_sampler(gp.learner(model, tx, hide_behaviour=hide), sampler, gp.BATCH_AXES)
    runs = replicate_seeds(learner, len(keys), 0)
    state = fit(runs, data, key=keys, steps=steps, chunk=50, **where).state

    @jax.jit
    @jax.vmap
    def elbo(params, trials):
        return gp.bound(model, params, jax.random.split(jax.random.key(0), trials.present.shape[0]), trials).elbo.mean()

    return Runs(model, state.params, np.asarray(elbo(state.params, data)))


class Seen(NamedTuple):
    """Of the test trials of every run, with all modalities and without one."""

    latents: np.ndarray
    rates: np.ndarray | None
    behaviour: np.ndarray | None


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


def groups(model: MMGPVAE) -> dict[str, list[int]]:
    """Columns on which each true latent is sought; where a model names no shared latent, all of them."""
    p = model.partition
    columns = list(range(p.total))
    return {
        "neural": columns[p.of_neural],
        "shared": columns[p.neural : p.neural + p.shared] or columns,
        "zoom": columns[p.of_behaviour],
    }


def latent_metrics(latents: np.ndarray, test: gp.Simulation, where: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """R2 of the true latents on their columns, and of the shared one on the one column that stands for it."""
    truth = {"neural": test.latents[..., 0], "shared": test.latents[..., 1], "zoom": test.zoom}
    out = {}
    for name, columns in where.items():
        if columns:
            found = gp.score(latents, np.asarray(truth[name]), columns)
            out |= {f"{name} R2": found.aligned, f"{name} R2, best column": found.one_to_one}
    place = where["shared"][-1]
    out["shared R2, fixed column"] = gp.affine_r2(latents[..., place : place + 1], np.asarray(truth["shared"]))
    return out


def metrics(runs: Runs, seen: Seen, run: int, train: gp.Simulation, test: gp.Simulation) -> dict[str, float]:
    """Everything that is measured of one run on its test trials."""
    out = latent_metrics(seen.latents[run], test, groups(runs.model))
    if seen.rates is not None:
        counts, rates = (np.asarray(a)[..., : runs.model.neurons] for a in (test.counts, test.rates))
        mean = np.asarray(train.counts)[..., : runs.model.neurons].mean(axis=(0, 1))
        out["rate R2"] = gp.r2(rates, seen.rates[run])
        out["bits/spike"] = gp.bits_per_spike(counts, seen.rates[run], mean)
    if seen.behaviour is not None:
        images = np.asarray(test.images)
        out["image MSE"] = float(np.square(images - seen.behaviour[run]).mean())
        average = np.asarray(train.images).mean(axis=(0, 1))
        out["image MSE of the mean image"] = float(np.square(images - average).mean())
    lengths = np.exp(np.asarray(runs.params["params"]["log_length"])[run])
    if runs.model.domain != "white":
        out |= {"shortest length": float(lengths.min()), "longest length": float(lengths.max())}
    return {**out, "ELBO": float(runs.elbo[run])}


def gpfa_latents(
    config: Config, train: gp.Simulation, test: gp.Simulation, key: jax.Array, steps: int, workdir: Path | None = None
) -> np.ndarray:
    """Two latents of Gaussian GPFA with exact inference on square roots of counts."""
    basis = gp.fourier_basis(config.bins, config.circle, config.shortest)
    learner = gp.gpfa_learner(basis, 2, optax.adam(optax.cosine_decay_schedule(3e-2, steps)))
    state = fit(learner, jnp.sqrt(train.counts), key=key, steps=steps, chunk=50, workdir=workdir).state
    return np.asarray(gp.gpfa_latents(basis, state.params, jnp.sqrt(test.counts)))


def cca_latents(train: gp.Simulation, test: gp.Simulation) -> np.ndarray:
    """The first canonical variates of square-rooted counts and images, bin by bin."""
    rows = [(np.sqrt(np.asarray(s.counts)), np.asarray(s.images)) for s in (train, test)]
    flat = [[x.reshape(-1, x.shape[-1]) for x in pair] for pair in rows]
    fitted: Any = CCA(n_components=1, max_iter=1000).fit(*flat[0])
    scores = fitted.transform(*flat[1])
    return np.hstack(scores).reshape(*test.counts.shape[:2], 2)
