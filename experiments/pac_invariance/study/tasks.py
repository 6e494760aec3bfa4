"""What ``pac_invariance`` computes beside the paper's experiment: pure functions, to be jitted by the caller."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from causal import pac_invariance as pac
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


class Task(NamedTuple):
    """A random SEM whose last node is the target, and its sites of intervention."""

    sem: Sem
    sites: Bool[Array, " d"]


def random_task(key, d: int, sites: int | Int[Array, ""] = 3) -> Task:
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


def trend(task: Task, radius: float, most: int, fresh: int = 100) -> Callable[[Array, Array, Array], Trend]:
    """``(key, m, n) -> Trend`` with soft interventions, at most ``most`` training environments."""
    target = task.sem.B.shape[0] - 1
    masks, family = pac.feature_masks(target + 1, target), soft(task.sem, task.sites)

    def run(key, m, n):
        keys = jax.random.split(key, 2)
        M = draw_moments(family, keys[0], most + fresh, n).second
        selection = pac.train(M[:most], target, masks, (jnp.arange(most) < m).astype(M.dtype))
        accepted = selection.spread < radius
        share = (pac.violations(selection.predictor, M[most:], target, masks) < radius).mean(axis=0, dtype=M.dtype)
        truth = draw_moments(family, keys[1], 200).second
        varies = pac.relative_spread(truth, target, masks) > radius
        V = (pac.violations(selection.predictor, truth, target, masks) > radius).mean(axis=0, dtype=M.dtype)
        count = accepted.sum().astype(M.dtype)
        mean = jnp.where(count > 0, jnp.where(accepted, share, 0.0).sum() / jnp.maximum(count, 1), jnp.nan)
        worst = jnp.where(count > 0, jnp.max(jnp.where(accepted, V, 0.0)), jnp.nan)
        return Trend(count, (accepted & varies).sum().astype(M.dtype), mean, worst)

    return run


def predictors(
    key, training: Moments, task: Task, radius: float, penalty: float, steps: int
) -> dict[str, Float[Array, " d"]]:
    """Every method's coefficients from the same training moments; the target is the last node."""
    d = task.sem.B.shape[0]
    target, every = d - 1, jnp.arange(d) < d - 1
    masks = pac.feature_masks(d, target)
    selection = pac.train(training.second, target, masks)
    sets = pac.every_subset(d, target)
    causes = pac.icp(training, target, sets).causes(sets)
    return {
        "ERM": pac.pooled(training, target, every),
        "parents (oracle)": pac.pooled(training, target, task.sem.B[target] != 0),
        "invariant subset": pac.safest(selection, training.second, target, masks, radius),
        "ICP": pac.pooled(training, target, causes),
        "IRMv1": invariant_risk(training, target, penalty, steps),
        "anchor regression": pac.anchor(training, target, every, 10.0),
        "random subset": pac.pooled(training, target, masks[jax.random.randint(key, (), 0, len(masks))]),
    }


def invariant_risk(training: Moments, target: int, penalty: float, steps: int) -> Float[Array, " d"]:
    """IRMv1 by Adam on standardised features."""
    sd = jnp.sqrt(jnp.diagonal(training.second.mean(axis=0)))
    M = training.second / jnp.outer(sd, sd)
    learner = pac.irm_learner(target, penalty, optax.adam(0.01))
    state = learner.init(jax.random.key(0), M)
    state = jax.lax.fori_loop(0, steps, lambda _, s: learner.update(s, M)[0], state)
    return state.params["v"] / sd * sd[target]


class Fared(NamedTuple):
    """Of one method on new environments; errors in units of the target's noise variance, which the truth attains."""

    mean: Float[Array, ""]
    worst: Float[Array, ""]


COMPARED = ("soft", "shift")


def comparison(d: int, m: int, n: float, radius: float, penalty: float, steps: int, fresh: int = 100):
    """``key -> {method: Fared}`` on one random SEM, for soft interventions and shifts along axis 0."""

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


def distances(sem: Sem, target: int, sems: Sem) -> Float[Array, "chunks env subsets"]:
    """The gauge ``coef`` in chunks of environments, population moments, with predictors of the observed system."""
    masks = pac.feature_masks(sem.B.shape[0], target)
    w = pac.best_on_subsets(population(sem).second, target, masks)
    return jax.lax.map(lambda chunk: pac.violations(w, jax.vmap(population)(chunk).second, target, masks), sems)


def worst_that_passes(
    distance: Float[np.ndarray, "repeats env subsets"],
    V: Float[np.ndarray, " subsets"],
    sizes: Sequence[int],
    radius: float,
) -> Float[np.ndarray, "repeats sizes"]:
    """The largest V among the subsets within the radius in all of the first m environments; 0 where none is."""
    passes = np.logical_and.accumulate(distance <= radius, axis=1)
    return np.max(passes[:, np.asarray(sizes) - 1] * V, axis=-1)


def noisy_mixing(sem: Sem, family: Family, target: int, mask: Bool[Array, " d"], q: int, count: int):
    """``(key, noise variances) -> spread``: relative spread of coefficients on noisy observations of the features.

    The representation is the given subset, which is invariant on the latents, read off through the mixing's
    pseudo-inverse.
    """
    d = sem.B.shape[0]
    features = jnp.asarray([i for i in range(d) if i != target])
    Phi = jnp.eye(d - 1)[jnp.flatnonzero(mask[features], size=int(mask.sum()))]

    def run(key, variances):
        mix_key, key = jax.random.split(key)
        mixing = jax.random.normal(mix_key, (q, d - 1))
        on_o = jnp.concatenate([pac.transfer(Phi, mixing), jnp.zeros((len(Phi), 1))], axis=1)
        M = draw_moments(family, key, count).second

        def spread(variance):
            seen = jax.vmap(lambda M: pac.observe(M, target, mixing, variance))(M)
            w = jax.vmap(lambda M: pac.on_representation(M, q, on_o).best())(seen)
            return pac.rms_spread(w, jnp.ones(count)) / jnp.linalg.norm(w.mean(axis=0))

        return jax.vmap(spread)(variances)

    return run


def survivors(environments: Moments, alpha: float) -> dict[str, Bool[Array, " d"]]:
    """Of all others, what ICP finds for the last variable; the pair of least spread; and the pair of least error."""
    d = environments.mean.shape[-1]
    sets = pac.every_subset(d, d - 1)
    pairs = sets[jnp.flatnonzero(sets.sum(axis=1) == 2, size=(d - 1) * (d - 2) // 2)]
    spread = pac.train(environments.covariance, d - 1, pairs).spread
    pooled = environments.covariance.mean(axis=0)
    error = jax.vmap(lambda mask: (at := pac.on_subset(pooled, d - 1, mask)).error(at.best()))(pairs)
    return {
        "ICP": pac.icp(environments, d - 1, sets).causes(sets, alpha),
        "pair of least spread": pairs[jnp.argmin(spread)],
        "pair of least pooled error": pairs[jnp.argmin(error)],
    }
