"""Meta-learners for those who have arrays: ``fit``, then ``effect``, ``interval`` and out-of-fold ``evaluate``.

A thin layer: every network is trained by :func:`core.fit.fit` from the losses of
:mod:`causal.treatment_effects.networks` on the targets of :mod:`causal.treatment_effects.metalearners`. The fit to all
units, those without each fold and those to resampled groups are one program per stage.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from causal.treatment_effects import inputs
from causal.treatment_effects.evaluation import Evaluation, OutOfFold
from causal.treatment_effects.inference import Estimate, resamples
from causal.treatment_effects.metalearners import effect_of, x_effect
from causal.treatment_effects.networks import Mlp, Scalar, SingleNet, TarNet, TNet, Trunk, Units
from causal.treatment_effects.scores import dr_scores
from causal.treatment_effects.stages import Stages, without
from core.checks import Count, Natural, Positive, checked
from core.errors import ConfigError
from core.kinds import is_traced
from core.learner import Params, stream

Kind = Literal["S", "T", "TARNet", "X", "DR", "R"]
TWO_LAYERS: Trunk = functools.partial(Mlp, (100, 100))


@flax.struct.dataclass
class Fitted:
    """A fitted :class:`MetaLearner`: a tree of arrays, to be passed to jit, mapped or stored."""

    learner: "MetaLearner" = flax.struct.field(pytree_node=False)
    params: Params
    """Stacked: the fit to all units, then those to resampled groups."""
    sd: Array
    """Of the outcome."""
    share: Array
    """Mean propensity, the weight of the X-learner's two effects."""
    out_of_fold: OutOfFold | None
    """None where there is a single fold."""
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)
    """Of the inputs of one unit."""

    def effect(self, x: Any) -> Float[Array, " n"]:
        """Effects at x [n, ...], in units of the outcome.

        Raises:
          ConfigError: where x is not finite, or not of the shape that the fit was given.
        """
        return self.sd * self.learner.effect(_runs(self.params, 0), self._inputs(x), self.share)

    def _inputs(self, x: Any) -> Array:
        found = x if is_traced(x) else inputs.finite("x", x)
        if found.shape[1:] != self.shape or not found.ndim:
            wanted = ", ".join(map(str, ("n", *self.shape)))
            raise ConfigError(f"x has shape {found.shape}, but the fit was given [{wanted}]")
        return jnp.asarray(found)

    def estimate(self, x: Any) -> Estimate:
        """Effects with the spread over resampled groups as standard errors.

        They hold what the data and the training leave to chance, not the bias of a network that is too smooth.
        """
        x = self._inputs(x)
        drawn = _runs(self.params, slice(1, None))
        if len(jax.tree.leaves(drawn)[0]) < 2:
            raise ConfigError("draws was 0 in fit, so that there is no interval; fit with draws=50 or more")
        found = jax.lax.map(lambda p: self.learner.effect(p, x, self.share), drawn)
        return Estimate(self.effect(x), self.sd * jnp.std(found, axis=0, ddof=1))

    def interval(self, x: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Normal limits of the effect at each x, not of all at once."""
        return self.estimate(x).interval(level)

    def evaluate(self, key: Key[Array, ""], cost: float = 0.0) -> Evaluation:
        """RATE, calibration and policy value, out of fold."""
        if self.out_of_fold is None:
            raise ConfigError("folds was 1, so that no effect is out of fold; fit with folds=5")
        return self.out_of_fold.evaluate(key, cost)


@checked
@dataclasses.dataclass(frozen=True)
class MetaLearner:
    """How effects are estimated.

    T-networks give X, DR and R their outcomes. For DR and R they are fitted without the unit's fold and, where effects
    are out of fold, without the judged fold either; a resample reweights the last regression alone, for errors of the
    outcomes matter to it only to second order.
    """

    kind: Kind = "DR"
    trunk: Trunk = TWO_LAYERS
    steps: Count = 1_000
    batch: Count | None = None
    """Units per step, in shuffled epochs; all if None."""
    learning_rate: Positive = 3e-3
    """Of Adam, falling to zero along a cosine."""
    folds: Count = 5
    """Of whole groups; with one there are no out-of-fold effects."""

    def __post_init__(self) -> None:
        least = 3 if self.is_cross_fitted else 1
        if self.folds < least:
            raise ConfigError(f"folds is {self.folds}; kind {self.kind} needs at least {least}")

    @property
    def is_cross_fitted(self) -> bool:
        """Whether outcomes must come from other units."""
        return self.kind in ("DR", "R")

    @property
    def network(self) -> nn.Module:
        """Of both outcomes."""
        return {"S": SingleNet, "TARNet": TarNet}.get(self.kind, TNet)(self.trunk)

    def effect(self, params: Params, x: Array, share: Any) -> Float[Array, " n"]:
        """Of one fit, in deviations of the outcome."""
        if self.kind in ("S", "T", "TARNet"):
            m: Any = self.network.apply(params, x)
            return effect_of(m)
        of: Any = lambda p: Scalar(self.trunk).apply(p, x)  # noqa: E731
        if self.kind != "X":
            return of(params)
        of_controls, of_treated = jax.vmap(of)(params)
        return x_effect(of_controls, of_treated, share)

    @checked
    def fit(
        self, key: Key[Array, ""], x: Any, t: Any, y: Any, *, propensity: Any, groups: Any = None, draws: Natural = 0,
        workdir: Path | str | None = None,
    ) -> Fitted:  # fmt: skip
        """Trains on arrays of n units.

        Args:
          key: of the fit to all units; folds, resamples and their fits have keys made from it.
          x: [n, ...], what the trunk takes.
          t: 0 or 1.
          y: the outcome; networks see it standardised.
          propensity: probability of treatment, one number or one per unit.
          groups: labels of units that belong together; each unit alone if None.
          draws: resamples of groups for intervals; 0, or 20 and better 50 or more.
          workdir: for checkpoints; none if None.

        Raises:
          ConfigError: where an array cannot be used; names it and the remedy.
        """
        x = jnp.asarray(inputs.covariates(x), jnp.float32)
        t, y, e = inputs.treatment(t, len(x)), inputs.outcome(y, len(x)), inputs.propensities(propensity, len(x))
        cluster = inputs.clusters(groups, len(x), self.folds)
        inputs.require_sizes(len(x), self.batch, draws)
        fold_key, draw_key = jax.random.split(stream(key, "folds and resamples"))
        fold = np.asarray(jax.random.permutation(fold_key, cluster.count))[cluster.index] % self.folds
        judged = np.arange(self.folds if self.folds > 1 else 0)
        weight = jnp.concatenate([
            jnp.ones((1, len(x))), without(fold, judged[:, None]), resamples(draw_key, cluster, draws),
        ])  # fmt: skip
        inputs.require_both_arms(weight, t)
        units = Units(x, jnp.asarray(t), jnp.asarray((y - y.mean()) / y.std(), jnp.float32), weight)
        stages = Stages(self, key, workdir, jnp.asarray(e))
        params, m = stages.cross_fitted(units, fold) if self.is_cross_fitted else stages.plain(units, fold)
        kept = np.r_[0, 1 + len(judged) : len(weight)]
        found = Fitted(self, _runs(params, kept), jnp.float32(y.std()), jnp.float32(e.mean()), None, x.shape[1:])
        if not len(judged):
            return found
        of_folds = jax.lax.map(lambda p: self.effect(p, x, found.share), _runs(params, 1 + judged))
        scores = dr_scores(units.t, units.y, m[:, 0], m[:, 1], stages.propensity)
        effect = of_folds[fold, np.arange(len(x))]
        own = OutOfFold(found.sd * effect, found.sd * scores, jnp.asarray(cluster.index), cluster.count)
        return dataclasses.replace(found, out_of_fold=own)


def _runs(params: Params, chosen: Any) -> Params:
    return jax.tree.map(lambda leaf: leaf[chosen], params)
