"""The paper's experiment as one pure function: which subsets pass on m environments, and how they fare on new ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from causal.linear_sems import (
    Family,
    Moments,
    Sem,
    environments,
    hard,
    linear_sem,
    rademacher,
    sample_moments,
    soft,
)
from causal.pac_invariance.invariance import on_subset, relative, train, violations
from core.checks import Count, NonNegative, checked

EDGES = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (3, 4), (2, 5), (3, 5), (4, 6), (5, 6))
TARGET, SITES = 4, (2, 3, 5)
"""Of the SEM of the paper's figure."""


@checked
def figure_sem(sd: NonNegative = 0.02) -> Sem:
    """The SEM of the paper's figure: seven nodes, unit weights."""
    B = jnp.zeros((7, 7))
    for parent, child in EDGES:
        B = B.at[child, parent].set(1.0)
    return linear_sem(B, sd)


def figure_sites() -> Bool[Array, " 7"]:
    """Its sites of intervention."""
    return jnp.isin(jnp.arange(7), jnp.asarray(SITES))


@checked
def figure_families(sd: NonNegative = 0.02) -> dict[str, Family]:
    """The interventions on it, by name."""
    sem, sites = figure_sem(sd), figure_sites()
    return {"hard": hard(sem, sites), "soft": soft(sem, sites), "rademacher": rademacher(sem, TARGET)}


Panel = tuple[str, str]
"""Names of the families of training and of new environments."""


class Outcome(NamedTuple):
    """Per panel (training family, test family), by number of training environments and by subset."""

    accepted: dict[Panel, Bool[Array, "sizes subsets"]]
    generalization: dict[Panel, Float[Array, "sizes subsets"]]
    """The share of new environments whose coefficients lie within the radius of the predictor."""
    erm: dict[Panel, Float[Array, " sizes"]]
    """The same for least squares on all features of the pooled training environments."""


@checked
def study(
    families: Mapping[str, Family],
    panels: Sequence[Panel],
    sizes: Sequence[Count],
    target: int,
    masks: Bool[Array, "subsets d"],
    fresh: Count = 100,
    view: Callable[[Moments], Array] = lambda moments: moments.second,
) -> Callable[[Array, Array | float, Array | float], Outcome]:
    """The function ``(key, n, radius) -> Outcome`` for moments of n observations per environment.

    A subset is accepted where its spread is below the radius, and generalizes to an environment where its relative
    distance there is.

    Args:
      families: by name.
      panels: names of the training family and of the test family.
      sizes: numbers m of training environments; each gets draws of its own.
      target: the target's index.
      masks: the subsets.
      fresh: new environments per m and panel, shared by the subsets.
      view: which moments least squares sees: second ones, or ``lambda m: m.covariance`` with an intercept.
    """
    most, trained = max(sizes), list(dict.fromkeys(training for training, _ in panels))
    source = jnp.asarray([trained.index(training) for training, _ in panels])
    everything = masks.any(axis=0)
    tried = jnp.concatenate([masks, everything[None]])

    def one_size(key, m, n, radius):
        weights = (jnp.arange(most) < m).astype(float)
        drawn = [(families[name], most) for name in trained] + [(families[name], fresh) for _, name in panels]
        M = view(_moments_of_all(key, drawn, n))
        training = M[: len(trained) * most].reshape(len(trained), most, *M.shape[1:])
        new = M[len(trained) * most :].reshape(len(panels), fresh, *M.shape[1:])
        selection = jax.vmap(lambda M: train(M, target, masks, weights))(training)
        pooled = jax.vmap(lambda M: on_subset(jnp.tensordot(weights / m, M, 1), target, everything).best())(training)
        predictors = jnp.concatenate([selection.predictor, pooled[:, None]], axis=1)
        far = jax.vmap(lambda w, M: violations(w, M, target, tried))(predictors[source], new)
        return selection.spread[source] < radius, (far < radius).mean(axis=1, dtype=M.dtype)

    def run(key, n, radius):
        ms, keys = jnp.asarray(sizes), jax.random.split(key, len(sizes))
        accepted, share = jax.vmap(one_size, in_axes=(0, 0, None, None))(keys, ms, n, radius)
        named = [(panel, accepted[:, i], share[:, i]) for i, panel in enumerate(panels)]
        return Outcome(
            {panel: passed for panel, passed, _ in named},
            {panel: found[:, :-1] for panel, _, found in named},
            {panel: found[:, -1] for panel, _, found in named},
        )

    return run


def _moments_of_all(key, drawn: Sequence[tuple[Family, int]], n) -> Moments:
    """Environments of several families one after another, sampled together: one sampler to compile."""
    data_key, *keys = jax.random.split(key, len(drawn) + 1)
    sems = [environments(family, k, count) for (family, count), k in zip(drawn, keys, strict=True)]
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *sems)
    sample_keys = jax.random.split(data_key, together.mean.shape[0])
    return jax.vmap(sample_moments, in_axes=(0, 0, None))(sample_keys, together, n)


@checked
def relative_spread(
    M: Float[Array, "env d d"], target: int, masks: Bool[Array, "subsets d"]
) -> Float[Array, " subsets"]:
    """The largest relative distance of an environment's coefficients from their mean: 0 where a set is invariant."""
    b = jax.vmap(lambda M: jax.vmap(lambda mask: on_subset(M, target, mask).best())(masks))(M)
    return jax.vmap(jax.vmap(relative, in_axes=(0, 0)), in_axes=(0, None))(b, b.mean(axis=0)).max(axis=0)
