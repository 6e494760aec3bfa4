"""The two stages of meta-learners, each with all of its runs as one program.

Runs lie along the first axis of weights and parameters: the fit to all units, those without each fold, and those to
resampled groups.
"""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from causal.treatment_effects import inputs
from causal.treatment_effects.metalearners import dr_target, r_target, x_targets
from causal.treatment_effects.networks import (
    Scalar,
    Target,
    Units,
    outcome_learner,
    regression_learner,
    with_population,
)
from core.batches import epoch_sampler
from core.fit import fit
from core.learner import Params, replicate_seeds, with_sampler


class Stages(NamedTuple):
    """Both stages of one fit."""

    learner: Any
    """A :class:`causal.treatment_effects.estimators.MetaLearner`."""
    key: Any
    workdir: Path | str | None
    propensity: Array

    def plain(self, units: Units, fold: np.ndarray) -> tuple[Params, Float[Array, "n 2"]]:
        """Effects of all runs, and outcomes of every unit by the run without its fold."""
        params, m = self.outcomes(units)
        own = m[1 + fold, np.arange(len(fold))] if self.learner.folds > 1 else m[0]
        return (self.effects(units, m) if self.learner.kind == "X" else params), own

    def cross_fitted(self, units: Units, fold: np.ndarray) -> tuple[Params, Float[Array, "n 2"]]:
        """The same with outcomes fitted without the unit's fold and the run's."""
        folds, n = self.learner.folds, len(fold)
        first, second = np.triu_indices(folds)
        pair = np.zeros((folds, folds), int)
        pair[first, second] = pair[second, first] = np.arange(len(first))
        weight = without(fold, first[:, None], second[:, None])
        inputs.require_both_arms(weight, units.t)
        _, m = self.outcomes(units._replace(weight=weight))
        judged = np.tile(fold, (len(units.weight), 1))
        judged[1 : 1 + folds] = np.arange(folds)[:, None]
        return self.effects(units, m[pair[fold, judged], np.arange(n)]), m[pair[fold, fold], np.arange(n)]

    def outcomes(self, units: Units) -> tuple[Params, Float[Array, "runs n 2"]]:
        """Networks of both outcomes, and what they say of every unit."""
        module = self.learner.network
        runs = jnp.arange(len(units.weight))
        params = self.train("outcomes", outcome_learner, module, units, Units(None, None, None, 0), runs)
        return params, jax.lax.map(lambda p: module.apply(p, units.x), params)

    def effects(self, units: Units, m: Float[Array, "runs n 2"]) -> Params:
        """The second regressions; the X-learner's two lie along a further axis."""
        make = {
            "X": x_targets,
            "DR": lambda u, m: dr_target(u, m, self.propensity),
            "R": lambda u, m: r_target(u, m, self.propensity),
        }[self.learner.kind]
        is_x, axes = self.learner.kind == "X", Target(None, 0, 0)
        found: Any = jax.vmap(make, (Units(None, None, None, 0), 0), (axes, axes) if is_x else axes)(units, m)
        if is_x:
            values, weights = (jnp.concatenate([a, b]) for a, b in zip(*(target[1:] for target in found), strict=True))
            found = Target(units.x, values, weights)
        runs = jnp.tile(jnp.arange(len(m)), 1 + is_x)
        params = self.train("effects", regression_learner, Scalar(self.learner.trunk), found, axes, runs)
        both = lambda leaf: jnp.moveaxis(leaf.reshape(2, -1, *leaf.shape[1:]), 0, 1)  # noqa: E731
        return jax.tree.map(both, params) if is_x else params

    def train(self, name: str, make: Any, module: nn.Module, data: Any, axes: Any, runs: Array) -> Params:
        """Networks of all runs as one program, with the moments of all inputs where they standardise.

        Run 0 has the key of the fit, every other one that folded in.
        """
        own = self.learner
        learner = make(module, optax.adam(optax.cosine_decay_schedule(own.learning_rate, own.steps)))
        if own.batch is not None:
            learner = with_sampler(learner, epoch_sampler(own.batch))
        keys = jax.vmap(lambda i: jax.lax.cond(i > 0, lambda: jax.random.fold_in(self.key, i), lambda: self.key))(runs)
        folder = None if self.workdir is None else Path(self.workdir) / name
        many = replicate_seeds(learner, len(runs), axes)
        params = fit(many, data, key=keys, steps=own.steps, chunk=250, workdir=folder).state.params
        return jax.lax.map(lambda p: with_population(module, p, data.x), params)


def without(fold: np.ndarray, *left: np.ndarray) -> Float[Array, "runs n"]:
    """Weights of one on average, zero in the folds left out."""
    kept = np.all([fold != k for k in left], axis=0)
    return jnp.asarray(kept / np.maximum(kept.mean(-1, keepdims=True), 1e-9), jnp.float32)
