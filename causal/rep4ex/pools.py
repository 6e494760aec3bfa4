"""Encoders of many runs as one program: restarts of each, and many worlds with known truth at once."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from causal.rep4ex.baselines import Recovered, principal_components, recovered
from causal.rep4ex.diagnostics import Strength, constraint_p
from causal.rep4ex.generators import Design, Sample, World, draw, gen1
from causal.rep4ex.moments import Moments, Scale, v_statistic, whitened
from causal.rep4ex.networks import Coder, encode
from causal.rep4ex.representation import (
    Batch,
    Standardised,
    best,
    constrained,
    pool,
    pool_learner,
    representation_learner,
    standardise,
    validated,
)
from causal.rep4ex.second_step import strength_of
from core.checks import Count, Natural, checked
from core.fit import fit
from core.learner import Params, stream
from core.loop import runs_at_once
from core.pools import Pool


class Way(NamedTuple):
    """How encoders are trained."""

    coder: Coder
    steps: int
    batch: int = 512
    learning_rate: float = 1e-3
    restarts: int = 1
    """Encoders of every run, of which the one of least loss on held-out rows is kept."""
    moments: Moments = v_statistic
    scale: Scale = whitened
    is_constrained: bool = False
    """Whether a run's ``lam`` is the limit of its reconstruction error, see :func:`constrained`, and no factor."""


class Encoders(NamedTuple):
    """Those of a pool's runs."""

    every: Params
    """Of all restarts, those of a run side by side, [runs * restarts, ...]."""
    reconstruction: Float[np.ndarray, "runs restarts"]
    """On the held-out rows."""
    restriction: Float[np.ndarray, "runs restarts"]
    params: Params
    """Of the kept ones, [runs, ...]."""
    kept: Int[np.ndarray, " runs"]
    """Which restart is kept."""


def train_encoders(key: Any, pool: Pool, held: Batch, way: Way, **where: Any) -> Encoders:
    """Restarts of every run as one program; of least reconstruction + lam Q are kept, if constrained of least Q.

    Args:
      key: of initial weights and batches.
      pool: a run each; restarts are made here.
      held: held-out rows by world, stacked.
      way: how.
      **where: ``workdir`` and ``progress`` of :func:`core.fit.fit`.
    """
    of, own = jax.tree.map(lambda leaf: jnp.repeat(leaf, way.restarts), (pool.of, pool.own))
    many = pool._replace(of=of, own=own)
    tx = optax.adam(optax.cosine_decay_schedule(way.learning_rate, way.steps))
    single: Any = representation_learner(way.coder, tx, way.moments, way.scale)
    learner = pool_learner(constrained(single) if way.is_constrained else single, len(of), way.batch, runs_at_once())
    params = fit(learner, many, key=key, steps=way.steps, chunk=50, **where).state.params
    found = validated(way.coder, params, held, of, way.moments, way.scale)
    reconstruction, restriction = (np.asarray(part).reshape(-1, way.restarts) for part in found)
    lam = np.asarray(pool.own[0])[:, None]
    kept, which = best(params, restriction if way.is_constrained else reconstruction + lam * restriction)
    return Encoders(params, reconstruction, restriction, kept, which)


Generator = Callable[[int, int, Design], tuple[World, Sample]]
Code = Callable[[Sample], Float[np.ndarray, "n d"]]


class Case(NamedTuple):
    """A world, what is trained on, and rows for choosing and for judging."""

    seed: int
    world: World
    sample: Sample
    rows: Standardised
    held: Sample
    """Rows by which restarts and lambda are chosen, without a look at the latents."""
    fresh: Sample

    def components(self) -> Code:
        """Principal components of X as codes."""
        directions = np.asarray(principal_components(jnp.asarray(self.rows.x), self.world.design.d))
        return lambda sample: self.rows.like(sample.x) @ directions

    def recovered(self, code: Code) -> Recovered:
        """How much of the latents a code holds, on fresh rows."""
        return _recovered(*(jnp.asarray(part, jnp.float32) for part in (code(self.fresh), self.fresh.z)))

    def with_basis(self, basis: Callable[[np.ndarray], np.ndarray]) -> "Case":
        """The case with t(A) in the place of its actions, everywhere."""
        sample, held, fresh = (part._replace(a=basis(part.a)) for part in (self.sample, self.held, self.fresh))
        return Case(self.seed, self.world, sample, standardise(sample.x, sample.a), held, fresh)

    def placebo(self, rng: np.random.Generator) -> "Case":
        """The case trained on permuted actions, of which nothing can be learned."""
        return self._replace(rows=self.rows._replace(a=rng.permutation(self.rows.a)))


_recovered = jax.jit(recovered)


@checked
def make_case(
    seed: Natural, design: Design, rows: Count, held: Count, fresh: Count, generator: Generator = gen1
) -> Case:
    """The case of a seed; further rows come from a stream of their own."""
    world, sample = generator(seed, rows, design)
    rng = np.random.default_rng([seed, 1])
    others = (draw(world, rng, n) for n in (held, fresh))
    return Case(seed, world, sample, standardise(sample.x, sample.a), *others)


class TrainedCases(NamedTuple):
    """The kept encoder of every run: of each case with each lambda."""

    coder: Coder
    cases: Sequence[Case]
    world: Int[np.ndarray, " runs"]
    lam: Float[np.ndarray, " runs"]
    params: Params
    reconstruction: Float[np.ndarray, " runs"]
    """On the held rows."""
    restriction: Float[np.ndarray, " runs"]
    others: Float[np.ndarray, "runs restarts"]
    """R^2 of every restart on the fresh rows: to see what choosing gained, not to choose by."""

    def runs(self) -> Iterator[tuple[int, Case]]:
        """Every run's number and case."""
        yield from ((run, self.cases[world]) for run, world in enumerate(self.world))

    def code(self, run: int) -> Code:
        """Phi of a run's encoder."""
        rows, params = self.cases[self.world[run]].rows, jax.tree.map(lambda leaf: leaf[run], self.params)
        return lambda s: np.asarray(encode(self.coder, params, rows.like(s.x), (s.a - rows.a_mean).astype(np.float32)))

    def recovered(self, run: int) -> Recovered:
        """How much of the latents a run's code holds, on fresh rows."""
        return self.cases[self.world[run]].recovered(self.code(run))

    def r2(self, run: int) -> float:
        """R^2 of the latents on fresh rows."""
        return float(self.recovered(run).r2)

    def test(self, run: int, rows: int) -> float:
        """The p-value of the constraint on the first of the fresh rows."""
        fresh = Sample(*(part[:rows] for part in self.cases[self.world[run]].fresh))
        return constraint_p(self.code(run)(fresh), fresh.a)

    def strength(self, run: int) -> Strength:
        """How strongly actions move a run's code, on the training rows."""
        sample = self.cases[self.world[run]].sample
        return strength_of(self.code(run)(sample), sample.a)


def train_cases(
    cases: Sequence[Case], lams: Sequence[float], way: Way, limits: Float[np.ndarray, " cases"] | None = None,
    workdir: Path | None = None, progress: Callable[[int, int], None] | None = None,
) -> TrainedCases:  # fmt: skip
    """Encoders of every (case, lambda) as one program; the key is made of the first case's seed.

    Args:
      cases: of equal sizes.
      lams: factors of the restriction.
      way: how.
      limits: of the reconstruction error by case, where the way is constrained.
      workdir: see :func:`core.fit.fit`.
      progress: likewise.
    """
    world = np.repeat(np.arange(len(cases)), len(lams))
    lam = np.tile(np.asarray(lams, np.float32), len(cases))
    rows = [case.rows for case in cases]
    trained = pool(rows, world, lam if limits is None else limits[world])
    held = _stacked([(c.rows.like(c.held.x), c.held.a - c.rows.a_mean) for c in cases])
    fresh = _stacked([(c.rows.like(c.fresh.x), c.fresh.a - c.rows.a_mean, c.fresh.z) for c in cases])
    held_rows = Batch(
        held[0], held[1], jnp.zeros(len(cases)), jnp.asarray([each.bandwidth for each in rows], jnp.float32)
    )
    key = stream(jax.random.key(cases[0].seed), "codes")
    found = train_encoders(key, trained, held_rows, way, workdir=workdir, progress=progress)

    def r2(each):
        params, index = each
        x, a, z = (part[index] for part in fresh)
        return recovered(encode(way.coder, params, x, a), z).r2

    others = jax.lax.map(jax.jit(r2), (found.every, jnp.repeat(trained.of, way.restarts)))
    at = np.arange(len(world)), found.kept
    return TrainedCases(
        way.coder, cases, world, lam, found.params, found.reconstruction[at], found.restriction[at],
        np.asarray(others).reshape(-1, way.restarts),
    )  # fmt: skip


def _stacked(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The same part of every case along a new axis 0."""
    return tuple(jnp.asarray(np.stack(column), jnp.float32) for column in zip(*parts, strict=True))
