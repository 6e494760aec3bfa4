"""Trials on random SEMs: how accepted subsets fare there, what other methods predict, and what breaks invariance.

Pure functions of keys, to be jitted by the caller.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, Real

from causal.linear_sems import (
    Family,
    Moments,
    Sem,
    draw_moments,
    environments,
    population,
    random_sem,
    sample_moments,
    shift,
    soft,
)
from causal.pac_invariance.baselines import anchor, irm_learner, pooled, safest
from causal.pac_invariance.icp import every_subset, icp
from causal.pac_invariance.invariance import (
    best_on_subsets,
    feature_masks,
    observe,
    on_representation,
    rms_spread,
    train,
    transfer,
    violations,
)
from causal.pac_invariance.study import relative_spread
from core.checks import Count, NonNegative, checked


class Task(NamedTuple):
    """A random SEM whose last node is the target, and its sites of intervention."""

    sem: Sem
    sites: Bool[Array, " d"]


@checked
def random_task(key: Key[Array, ""], d: Count, sites: Count | Real[Array, ""] = 3) -> Task:
    """A target with parents and, where there is one, with children too; sites among the other nodes with parents.

    Soft interventions do nothing at nodes without parents, so these come last when sites are chosen.
    """
    sem_key, site_key = jax.random.split(key)
    sem = random_sem(sem_key, d)
    parents, children = (sem.B != 0).sum(axis=1), (sem.B != 0).sum(axis=0)
    target = jnp.argmax(10 * jnp.minimum(parents, 1) + 5 * jnp.minimum(children, 1) + parents / d)
    order = jnp.argsort(jnp.arange(d) == target, stable=True)
    sem = Sem(sem.B[order][:, order], sem.mean[order], sem.scale[order][:, order])
    score = jax.random.uniform(site_key, (d,)) + (sem.B != 0).any(axis=1)
    score = score.at[d - 1].set(-1.0)
    rank = jnp.argsort(jnp.argsort(-score))
    return Task(sem, rank < sites)


class Trend(NamedTuple):
    """How accepted subsets of one random SEM fare."""

    accepted: Float[Array, ""]
    false: Float[Array, ""]
    """Accepted ones whose population coefficients vary between environments by more than the radius."""
    generalization: Float[Array, ""]
    """Mean share of new environments within the radius, over accepted subsets; NaN where there is none."""
    violation: Float[Array, ""]
    """Largest population violation probability of an accepted predictor; NaN where there is none."""


@checked
def trend(task: Task, radius: NonNegative, most: Count, fresh: Count = 100) -> Callable[[Array, Array, Array], Trend]:
    """``(key, m, n) -> Trend`` with soft interventions; m of at most ``most`` environments, n observations in each."""
    target = task.sem.B.shape[0] - 1
    masks, family = feature_masks(target + 1, target), soft(task.sem, task.sites)

    def run(key, m, n):
        keys = jax.random.split(key, 2)
        M = draw_moments(family, keys[0], most + fresh, n).second
        selection = train(M[:most], target, masks, (jnp.arange(most) < m).astype(M.dtype))
        accepted = selection.spread < radius
        share = (violations(selection.predictor, M[most:], target, masks) < radius).mean(axis=0, dtype=M.dtype)
        truth = draw_moments(family, keys[1], 200).second
        varies = relative_spread(truth, target, masks) > radius
        V = (violations(selection.predictor, truth, target, masks) > radius).mean(axis=0, dtype=M.dtype)
        count = accepted.sum().astype(M.dtype)
        mean = jnp.where(count > 0, jnp.where(accepted, share, 0.0).sum() / jnp.maximum(count, 1), jnp.nan)
        worst = jnp.where(count > 0, jnp.max(jnp.where(accepted, V, 0.0)), jnp.nan)
        return Trend(count, (accepted & varies).sum().astype(M.dtype), mean, worst)

    return run


@checked
def trends(
    d: Count,
    radius: NonNegative,
    m: Float[Array, " points"],
    n: Float[Array, " points"],
    sites: Float[Array, " points"],
    most: Count,
) -> Callable[[Array], Trend]:
    """``key -> Trend`` along points of one random SEM of ``d`` nodes: m of at most ``most`` environments with n
    observations each, and the number of sites.
    """

    def one(key):
        task_key, key = jax.random.split(key)

        def at(key, m, n, sites):
            return trend(random_task(task_key, d, sites), radius, most)(key, m, n)

        return jax.lax.map(lambda point: at(*point), (jax.random.split(key, len(m)), m, n, sites))

    return one


@checked
def predictors(
    key: Key[Array, ""], training: Moments, task: Task, radius: NonNegative, penalty: NonNegative, steps: Count
) -> dict[str, Float[Array, " d"]]:
    """Every method's coefficients from the same training moments; the target is the last node."""
    d = task.sem.B.shape[0]
    target, every = d - 1, jnp.arange(d) < d - 1
    masks = feature_masks(d, target)
    selection = train(training.second, target, masks)
    sets = every_subset(d, target)
    causes = icp(training, target, sets).causes(sets)
    return {
        "ERM": pooled(training, target, every),
        "parents (oracle)": pooled(training, target, task.sem.B[target] != 0),
        "invariant subset": safest(selection, training.second, target, masks, radius),
        "ICP": pooled(training, target, causes),
        "IRMv1": invariant_risk(training, target, penalty, steps),
        "anchor regression": anchor(training, target, every, 10.0),
        "random subset": pooled(training, target, masks[jax.random.randint(key, (), 0, len(masks))]),
    }


@checked
def invariant_risk(training: Moments, target: int, penalty: NonNegative, steps: Count) -> Float[Array, " d"]:
    """IRMv1 by Adam on standardised features."""
    sd = jnp.sqrt(jnp.diagonal(training.second.mean(axis=0)))
    M = training.second / jnp.outer(sd, sd)
    learner = irm_learner(target, penalty, optax.adam(0.01))
    state = learner.init(jax.random.key(0), M)
    state = jax.lax.fori_loop(0, steps, lambda _, s: learner.update(s, M)[0], state)
    return state.params["v"] / sd * sd[target]


class Fared(NamedTuple):
    """Of one method on new environments; errors in units of the target's noise variance, which the truth attains."""

    mean: Float[Array, ""]
    worst: Float[Array, ""]


COMPARED = ("soft", "shift")
"""Families along axis 0 of what :func:`comparison` returns."""


@checked
def comparison(
    d: Count, m: Count, n: NonNegative, radius: NonNegative, penalty: NonNegative, steps: Count, fresh: Count = 100
) -> Callable[[Array], dict[str, Fared]]:
    """``key -> {method: Fared}`` on one random SEM, for soft interventions and shifts along axis 0.

    Args:
      d: nodes; the last one is the target.
      m: training environments.
      n: observations in each.
      radius: of :func:`causal.pac_invariance.safest`.
      penalty: of IRMv1.
      steps: of IRMv1.
      fresh: new environments, whose population errors are taken.
    """

    def run(key):
        task_key, data_key, *keys = jax.random.split(key, 4)
        task = random_task(task_key, d)
        families: tuple[Family, ...] = (soft(task.sem, task.sites), shift(task.sem, task.sites, 2.0))
        sems = [environments(family, k, m + fresh) for family, k in zip(families, keys, strict=True)]
        sems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *sems)
        variance = task.sem.scale[-1, -1] ** 2

        def fare(key, sems):
            seen, new = jax.tree.map(lambda leaf: leaf[:m], sems), jax.tree.map(lambda leaf: leaf[m:], sems)
            sample_keys = jax.random.split(key, m)
            training = jax.vmap(sample_moments, in_axes=(0, 0, None))(sample_keys, seen, n)
            M = jax.vmap(population)(new).second
            fitted = predictors(key, training, task, radius, penalty, steps)
            return {method: _fares(w, M, variance) for method, w in fitted.items()}

        return jax.vmap(fare)(jax.random.split(data_key, len(families)), sems)

    return run


def _fares(w, M, variance) -> Fared:
    direction = (-w).at[-1].set(1.0)
    errors = jnp.einsum("i,eij,j->e", direction, M, direction) / variance
    return Fared(errors.mean(), errors.max())


@checked
def distances(sem: Sem, target: int, sems: Sem) -> Float[Array, "chunks env subsets"]:
    """The gauge ``coef`` in chunks of environments, population moments, with predictors of the observed system."""
    masks = feature_masks(sem.B.shape[0], target)
    w = best_on_subsets(population(sem).second, target, masks)
    return jax.lax.map(lambda chunk: violations(w, jax.vmap(population)(chunk).second, target, masks), sems)


@checked
def repeated_distances(
    family: Family, sem: Sem, target: int, most: Count, block: Count = 20
) -> Callable[[Array, int], Float[np.ndarray, "repeats env subsets"]]:
    """``(key, repeats) -> distances`` to ``most`` environments, in single precision; ``block`` repeats per dispatch."""
    measure = jax.jit(lambda sems: distances(sem, target, sems))
    draw = jax.jit(lambda keys: jax.vmap(lambda k: environments(family, k, most))(keys))

    def run(key, repeats):
        chunks = [measure(draw(k)) for k in jax.random.split(key, (repeats // block, block))]
        return np.concatenate([np.asarray(chunk, np.float32) for chunk in chunks])

    return run


@checked
def worst_that_passes(
    distance: Float[np.ndarray, "repeats env subsets"],
    V: Float[np.ndarray, " subsets"],
    sizes: Sequence[Count],
    radius: NonNegative,
) -> Float[np.ndarray, "repeats sizes"]:
    """The largest V among the subsets within the radius in all of the first m environments; 0 where none is."""
    passes = np.logical_and.accumulate(distance <= radius, axis=1)
    return np.max(passes[:, np.asarray(sizes) - 1] * V, axis=-1)


@checked
def noisy_mixing(
    sem: Sem, family: Family, target: int, mask: Bool[Array, " d"], q: Count, count: Count
) -> Callable[[Array, Array], Array]:
    """``(key, noise variances) -> spread``: relative spread of coefficients on noisy observations of the features.

    The representation is the given subset, which is invariant on the latents, read off through the mixing's
    pseudo-inverse. ``q`` observations mix the features; the spread is over ``count`` environments.
    """
    d = sem.B.shape[0]
    features = jnp.asarray([i for i in range(d) if i != target])
    Phi = jnp.eye(d - 1)[jnp.flatnonzero(mask[features], size=int(mask.sum()))]

    def run(key, variances):
        mix_key, key = jax.random.split(key)
        mixing = jax.random.normal(mix_key, (q, d - 1))
        on_o = jnp.concatenate([transfer(Phi, mixing), jnp.zeros((len(Phi), 1))], axis=1)
        M = draw_moments(family, key, count).second

        def spread(variance):
            seen = jax.vmap(lambda M: observe(M, target, mixing, variance))(M)
            w = jax.vmap(lambda M: on_representation(M, q, on_o).best())(seen)
            return rms_spread(w, jnp.ones(count)) / jnp.linalg.norm(w.mean(axis=0))

        return jax.vmap(spread)(variances)

    return run
