"""Planted people and the pool of models of all seeds and betas, trained as one program."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from core.fit import fit
from core.learner import LearnerLike, Params, replicate_seeds, stream
from core.loop import runs_at_once
from experiments.lab import Context
from experiments.scan_eeg.config import Config
from latent import scan_eeg as eeg

DATASET = "simulated"
DISTINCT = 0.1
"""KL above which a latent counts as active, as opposed to merely not collapsed."""


def simulate(config: Config, context: Context) -> eeg.Worlds:
    """People of every seed, stacked along axis 0."""
    drawn = (eeg.draw_world(seed, config.train, config.test, config.trials, config.kept) for seed in context.seeds)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


class Pool(NamedTuple):
    """Trained models, seed after seed: betas, each with its models, then the autoencoder."""

    vae: eeg.BetaVae
    params: Params
    world: np.ndarray
    beta: np.ndarray
    member: np.ndarray
    posterior: eeg.Gaussian
    """Of the training people, [models, people, latents]."""
    test: eeg.Gaussian
    kl: np.ndarray
    """Mean divergence of every latent, [models, latents]."""

    def of(self, world: int, beta: float | None = None) -> np.ndarray:
        """Numbers of a seed's beta-VAEs, of one beta or all."""
        return np.flatnonzero((self.world == world) & (self.beta > 0 if beta is None else self.beta == beta))

    def decoder(self, model: int) -> Callable[[Array], Array]:
        """Latents to ERPs by one model."""
        params = one(self.params, model)
        return jax.jit(lambda z: self.vae.apply(params, z, method="decode"))

    def correlations(self, worlds: eeg.Worlds, model: int) -> np.ndarray:
        """Of a model's latents with the planted factors of the test people."""
        return np.asarray(_correlations(self.test.mean[model], worlds.test.factors[self.world[model]]))


def network(config: Config) -> eeg.BetaVae:
    """The networks of this configuration."""
    return eeg.BetaVae(latents=config.latents, features=config.features, hidden=config.hidden)


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """Adam, its rate falling to a tenth."""
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps, 0.1))


def train(
    context: Context, name: str, learner: LearnerLike, data: Any, steps: int, chunk: int, runs: int | None = None
) -> Params:
    """Parameters after some steps, of several runs as one program where their number is given."""
    many = learner if runs is None else replicate_seeds(learner, runs, 0)
    return fit(
        many, data, key=stream(jax.random.key(context.seeds[0]), name), steps=steps, chunk=chunk,
        workdir=context.workdir / name.replace(" ", "_"), progress=context.progress(name),
    ).state.params  # fmt: skip


def train_pool(config: Config, context: Context, worlds: eeg.Worlds) -> Pool:
    """All models of all seeds as one program."""
    members = [*itertools.product(config.betas, range(config.models)), (0.0, 0)]
    seeds, vae = len(context.seeds), network(config)
    world = np.repeat(np.arange(seeds), len(members))
    beta, member = (np.tile(column, seeds) for column in zip(*members, strict=True))
    runs = eeg.pool(worlds.train.erp, jnp.asarray(world), jnp.asarray(beta, jnp.float32))
    tx = optimiser(config, config.steps)
    learner = eeg.pool_learner(vae, tx, config.batch_size, len(beta), runs_at_once())
    params = train(context, "beta-VAEs", learner, runs, config.steps, 20)
    posterior, test = (_encoded(vae, params, x, runs.of) for x in (worlds.train.erp, worlds.test.erp))
    return Pool(vae, params, world, beta, member, posterior, test, np.asarray(eeg.kl_to_prior(posterior).mean(1)))


@functools.partial(jax.jit, static_argnums=0)
def _encoded(vae: eeg.BetaVae, params: Params, recordings: Float[Array, "worlds n c t"], world) -> eeg.Gaussian:
    """q(z|x) of every model's own recordings."""
    return jax.lax.map(lambda each: vae.apply(each[0], recordings[each[1]], method="encode"), (params, world))


@functools.partial(jax.jit, static_argnums=0)
def reconstructed(vae: eeg.BetaVae, params: Params, x: Float[Array, "n c t"]) -> Any:
    """What one model decodes from the posterior means."""
    return vae.apply(params, x, method="reconstruct")


def one(tree: Any, index: Any) -> Any:
    """The same rows of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def curve(context: Context, metric: str, method: str, x: Float[Array, "6 256"], seed: int, **place: Any) -> None:
    """Every fourth sample at Pz in both conditions, for a figure."""
    at = context.at(dataset=DATASET, method=method, seed=seed, part="curves", **place)
    for condition, row in zip(eeg.CONDITIONS, np.asarray(x)[[2, 5]], strict=True):
        for t, value in zip(np.asarray(eeg.TIMES)[::4], row[::4], strict=True):
            at.record(metric, value, condition=condition, t=float(t))


_correlations = jax.jit(eeg.correlations)
