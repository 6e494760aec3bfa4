"""The planted people of ``scan_eeg`` and the pool of models of all seeds and betas, trained as one program."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from core.fit import fit
from core.learner import Params, stream
from core.loop import runs_at_once
from experiments.lab.system import Context
from experiments.scan_eeg.config import Config
from latent import scan_eeg as eeg
from latent.scan_eeg import LABELS, Gaussian

DATASET = "simulated"
PLANTED = LABELS[:4]
DISTINCT = 0.1
"""KL above which a latent counts as active, as opposed to merely not collapsed."""


class World(NamedTuple):
    """One seed's people, in units of the training averages' deviation."""

    erp: Float[Array, "people 6 256"]
    single: Float[Array, "people kept 6 256"]
    clean: Float[Array, "people 6 256"]
    labels: Int[Array, "people 5"]
    factors: Float[Array, "people 6"]


class Worlds(NamedTuple):
    """All seeds, stacked along axis 0."""

    train: World
    test: World


def simulate(config: Config, seeds) -> Worlds:
    """People of every seed; those for testing are others."""
    drawn = [_one_world(seed, config.train, config.test, config.trials, config.kept) for seed in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _one_world(seed, train: int, test: int, trials: int, kept: int) -> Worlds:
    people_key, noise_key = jax.random.split(stream(jax.random.key(seed), "world"))
    people = eeg.draw_people(people_key, train + test)
    recording = eeg.record(noise_key, people, trials, kept)
    _, erp, single, clean = eeg.scaled(recording.erp[:train], *recording)
    whole = World(erp, single, clean, people.labels(), people.factors)
    first: World = jax.tree.map(lambda leaf: leaf[:train], whole)
    rest: World = jax.tree.map(lambda leaf: leaf[train:], whole)
    return Worlds(first, rest)


class Pool(NamedTuple):
    """Trained models, seed after seed: betas, each with its models, then the autoencoder."""

    vae: eeg.BetaVae
    params: Params
    world: np.ndarray
    beta: np.ndarray
    member: np.ndarray
    posterior: Gaussian
    """Of the training people, [models, people, latents]."""
    test: Gaussian
    kl: np.ndarray
    """Mean divergence of every latent, [models, latents]."""

    def of(self, world: int, beta: float | None = None) -> np.ndarray:
        """Numbers of a seed's beta-VAEs, of one beta or all."""
        mask = (self.world == world) & (self.beta > 0 if beta is None else self.beta == beta)
        return np.flatnonzero(mask)

    def decoder(self, model: int) -> Callable[[Array], Array]:
        """Latents to ERPs by one model."""
        params = one(self.params, model)
        return jax.jit(lambda z: self.vae.apply(params, z, method="decode"))


def network(config: Config) -> eeg.BetaVae:
    """The networks of this configuration."""
    return eeg.BetaVae(latents=config.latents, features=config.features, hidden=config.hidden)


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """Adam, its rate falling to a tenth."""
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps, 0.1))


def train_pool(config: Config, context: Context, worlds: Worlds) -> Pool:
    """All models of all seeds as one program."""
    members = [*itertools.product(config.betas, range(config.models)), (0.0, 0)]
    count = worlds.train.erp.shape[0]
    world = np.repeat(np.arange(count), len(members))
    beta = np.tile([b for b, _ in members], count)
    member = np.tile([m for _, m in members], count)
    vae = network(config)
    grid = eeg.Grid(
        worlds.train.erp, jnp.asarray(world), jnp.asarray(beta, jnp.float32), jnp.asarray(beta > 0, jnp.float32)
    )
    state = fit(
        eeg.grid_learner(vae, optimiser(config, config.steps), config.batch_size, len(beta), runs_at_once()), grid,
        key=stream(jax.random.key(context.seeds[0]), "beta-VAEs"), steps=config.steps, chunk=20,
        workdir=context.workdir / "pool", progress=context.progress("pool of beta-VAEs"),
    ).state  # fmt: skip
    posterior, test = (encoded(vae, state.params, x, grid.world) for x in (worlds.train.erp, worlds.test.erp))
    kl = np.asarray(eeg.kl_to_prior(posterior).mean(1))
    return Pool(vae, state.params, world, beta, member, posterior, test, kl)


@functools.partial(jax.jit, static_argnums=0)
def encoded(vae: eeg.BetaVae, params: Params, recordings: Float[Array, "worlds n c t"], world) -> Gaussian:
    """q(z|x) of every model's own recordings."""
    return jax.lax.map(lambda each: vae.apply(each[0], recordings[each[1]], method="encode"), (params, world))


@functools.partial(jax.jit, static_argnums=0)
def reconstructed(vae: eeg.BetaVae, params: Params, x: Float[Array, "n c t"]) -> Float[Array, "n c t"]:
    """What one model decodes from the posterior means."""
    posterior: Any = vae.apply(params, x, method="encode")
    decoded: Any = vae.apply(params, posterior.mean, method="decode")
    return decoded


def one(tree: Any, index: Any) -> Any:
    """The same rows of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def curve(context: Context, metric: str, method: str, x: Float[Array, "6 256"], seed: int, **place) -> None:
    """Every fourth sample at Pz in both conditions, for a figure."""
    for condition, row in zip(eeg.CONDITIONS, np.asarray(x)[[2, 5]], strict=True):
        for t, value in zip(np.asarray(eeg.TIMES)[::4], row[::4], strict=True):
            context.record(
                dataset=DATASET, method=method, metric=metric, seed=seed, value=float(value), part="curves",
                condition=condition, t=float(t), **place,
            )  # fmt: skip


correlations = jax.jit(eeg.correlations)
