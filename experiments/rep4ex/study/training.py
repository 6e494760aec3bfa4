"""Cases of ``rep4ex`` (worlds with their rows) and the pools of encoders that are trained on them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import rep4ex as rep
from core.fit import fit
from core.learner import Params, stream
from core.loop import runs_at_once
from experiments.lab.system import Context
from experiments.rep4ex.config import Config

Generator = Callable[[int, int, rep.Design], tuple[rep.World, rep.Sample]]


class Case(NamedTuple):
    """A world, what is trained on, and rows for choosing and for judging."""

    seed: int
    world: rep.World
    sample: rep.Sample
    rows: rep.Standardised
    held: rep.Sample
    """Rows by which restarts and lambda are chosen, without a look at the latents."""
    fresh: rep.Sample


def make_case(config: Config, seed: int, design: rep.Design, rows: int, generator: Generator = rep.gen1) -> Case:
    """The case of a seed; further rows come from a stream of their own."""
    world, sample = generator(seed, rows, design)
    rng = np.random.default_rng([seed, 1])
    held, fresh = (rep.draw(world, rng, n) for n in (config.validation, config.fresh))
    return Case(seed, world, sample, rep.standardise(sample.x, sample.a), held, fresh)


class Trained(NamedTuple):
    """The kept encoder of every run."""

    coder: rep.Coder
    cases: Sequence[Case]
    world: np.ndarray
    lam: np.ndarray
    params: Params
    reconstruction: np.ndarray
    """On the held rows."""
    restriction: np.ndarray
    others: np.ndarray
    """R^2 of every restart on the fresh rows, [runs, restarts]: to see what choosing gained, not to choose by."""

    def codes(self, run: int, x: np.ndarray, a: np.ndarray) -> np.ndarray:
        """phi(x)."""
        rows = self.cases[self.world[run]].rows
        params = jax.tree.map(lambda leaf: leaf[run], self.params)
        return np.asarray(rep.encode(self.coder, params, rows.like(x), (a - rows.a_mean).astype(np.float32)))

    def recovered(self, run: int) -> rep.Recovered:
        """How much of the latents its code holds, on fresh rows."""
        fresh = self.cases[self.world[run]].fresh
        return recovered(self.codes(run, fresh.x, fresh.a), fresh.z)

    def test(self, run: int, rows: int) -> float:
        """The p-value of the constraint on fresh rows."""
        fresh = self.cases[self.world[run]].fresh
        return tested(self.codes(run, fresh.x[:rows], fresh.a[:rows]), fresh.a[:rows])


@jax.jit
def _recovered(w, z):
    return rep.recovered(w, z)


def recovered(w: np.ndarray, z: np.ndarray) -> rep.Recovered:
    """R^2 and MCC."""
    return _recovered(jnp.asarray(w, jnp.float32), jnp.asarray(z, jnp.float32))


@jax.jit
def _tested(key, w, a, bandwidth):
    frequencies = jax.random.normal(jax.random.key(64), (a.shape[1], 64))
    return rep.constraint_test(key, w, a, rep.fourier_energy(rep.fourier_features(frequencies, a, bandwidth))).p


def tested(w: np.ndarray, a: np.ndarray) -> float:
    """The p-value of the constraint on codes, by 128 random features of the kernel."""
    w, a = ((part - part.mean(axis=0)).astype(np.float32) for part in (w, a))
    return float(_tested(jax.random.key(0), jnp.asarray(w), jnp.asarray(a), rep.median_bandwidth(a)))


class Choice(NamedTuple):
    """What is trained in a pool: one encoder per world and lambda."""

    lams: tuple[float, ...]
    coder: rep.Coder
    moments: rep.Moments = rep.v_statistic
    scale: rep.Scale = rep.whitened
    batch: int | None = None
    limits: np.ndarray | None = None
    """Of the reconstruction error by world, in place of lambda."""
    restarts: int | None = None


def train(config: Config, context: Context, name: str, cases: Sequence[Case], steps: int, choice: Choice) -> Trained:
    """Trains restarts of every (case, lambda) as one program and keeps those of least validation loss."""
    restarts = choice.restarts or config.restarts
    world = np.repeat(np.arange(len(cases)), len(choice.lams))
    lam = np.tile(np.asarray(choice.lams, np.float32), len(cases))
    pool = rep.Pool(
        jnp.stack([case.rows.x for case in cases]), jnp.stack([case.rows.a for case in cases]),
        jnp.asarray([case.rows.bandwidth for case in cases], jnp.float32),
        jnp.asarray(np.repeat(world, restarts)), jnp.asarray(np.repeat(lam, restarts)),
    )  # fmt: skip
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    single: Any = rep.representation_learner(choice.coder, tx, choice.moments, choice.scale)
    if choice.limits is not None:
        pool = pool._replace(lam=jnp.asarray(np.repeat(choice.limits[world], restarts), jnp.float32))
        single = rep.constrained(single)
    learner = rep.pool_learner(single, pool.runs, choice.batch or config.batch, runs_at_once())
    state = fit(
        learner, pool, key=stream(jax.random.key(cases[0].seed), "codes"), steps=steps, chunk=50,
        workdir=context.workdir / name, progress=context.progress(f"rep4ex: {name}"),
    ).state  # fmt: skip
    return chosen(choice, cases, world, lam, restarts, state.params)


def chosen(choice: Choice, cases: Sequence[Case], world, lam, restarts: int, params: Params) -> Trained:
    """Of the restarts of every run that of least L on held rows; of the constrained ones that of least Q."""
    x, a, bandwidth = stacked([(c.rows.like(c.held.x), c.held.a - c.rows.a_mean, c.rows.bandwidth) for c in cases])
    fresh = stacked([(c.rows.like(c.fresh.x), c.fresh.a - c.rows.a_mean, c.fresh.z) for c in cases])
    held, of_run = rep.Batch(x, a, jnp.zeros(len(cases)), bandwidth), jnp.asarray(np.repeat(world, restarts))
    judged = rep.validated(choice.coder, params, held, of_run, choice.moments, choice.scale)

    def r2(each):
        params, index = each
        x, a, z = (part[index] for part in fresh)
        return rep.recovered(rep.encode(choice.coder, params, x, a), z).r2

    others = np.asarray(jax.lax.map(jax.jit(r2), (params, of_run))).reshape(-1, restarts)
    reconstruction, restriction = (np.asarray(part).reshape(-1, restarts) for part in judged)
    loss = restriction if choice.limits is not None else reconstruction + lam[:, None] * restriction
    kept, which = rep.best(params, loss)
    at = np.arange(len(loss)), which
    return Trained(choice.coder, cases, world, lam, kept, reconstruction[at], restriction[at], others)


def stacked(parts: Sequence[tuple[Any, ...]]) -> tuple[jax.Array, ...]:
    """The same part of every case along a new axis 0."""
    return tuple(jnp.asarray(np.stack(column), jnp.float32) for column in zip(*parts, strict=True))
