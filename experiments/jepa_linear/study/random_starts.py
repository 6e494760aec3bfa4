"""What is learned first from random orthogonal starts, where the theorem does not hold."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from core import stats
from core.learner import GradientLearner, with_sampler
from experiments.jepa_linear.config import Config
from experiments.lab import Context, Place
from latent import jepa_linear as jepa

VIEWS = {
    "mixed": jepa.Features(jnp.array([1.0, 1.2, 0.6, 0.4]), jnp.array([0.9, 0.4, 0.8, 0.3])),
    "dynamic": jepa.dynamic_features(jnp.array([1.0, 0.6, 3.0, 2.0]), jnp.array([0.95, 0.9, 0.4, 0.35])),
    "static": jepa.static_features(jnp.array([1.2, 0.9, 0.6, 0.4]), jnp.array([0.6, 0.6, 0.6, 0.6])),
}
"""Mixed: the largest regression coefficient (feature 0) is not the largest covariance (feature 1). Dynamic: slow
features of small variance and fast ones of large variance, whose g gamma is larger. Static: one latent, equal noise,
where covariance and regression coefficient have the same order."""
MOST_SLOW_RUNS, BATCH_DEPTH = 40, 3
NEAR = 0.05
"""How near to its fixed point a feature has ended there."""


class Simulation(NamedTuple):
    """How a loss is descended from random starts: for a time, looked at every so often."""

    objective: jepa.Objective
    eps: float
    dt: float
    until: float
    every: float
    starts: int

    @property
    def stride(self) -> int:
        """Steps between two looks."""
        return max(1, round(self.every / self.dt))

    @property
    def looks(self) -> int:
        """In all."""
        return max(1, round(self.until / self.dt) // self.stride)

    def descent(self, model: jepa.DeepLinear) -> GradientLearner:
        """From random orthogonal layers."""
        return jepa.learner(self.objective, model, optax.sgd(self.dt), jepa.orthogonal(model, self.eps))

    def seen(self, learner: Any, model: jepa.DeepLinear, moments: jepa.Moments) -> np.ndarray:
        """[starts, looks, d]: encoder norms."""
        return jepa.norms_over_time(learner, model, moments, range(self.starts), self.looks, self.stride)


def simulation(config: Config, objective: jepa.Objective, name: str) -> Simulation:
    """On the views of a name."""
    every, is_mae = config.every, objective == "MAE"
    if name == "mixed":
        until = config.until_mae if is_mae else config.until
        return Simulation(objective, config.eps, config.dt, until, every / 4 if is_mae else every, config.replications)
    until, every = (config.slow_until / 50, every / 4) if is_mae else (config.slow_until, 10 * every)
    return Simulation(objective, config.slow_eps, config.dt, until, every, min(config.replications, MOST_SLOW_RUNS))


def order_of_learning(config: Config, context: Context, name: str) -> None:
    """What is learned first, and how it ends, from random orthogonal starts."""
    features = VIEWS[name]
    for depth, objective in itertools.product(config.simulated_depths, jepa.OBJECTIVES):
        how = simulation(config, objective, name)
        model = jepa.DeepLinear.of(objective, depth, len(features.lam))
        learners: dict[str, Any] = {"population": how.descent(model)}
        if name == "mixed" and objective == "JEPA":
            start = jepa.orthogonal(model, how.eps)
            learners["averaged target"] = jepa.ema_target_learner(model, optax.sgd(how.dt), config.ema_decay, start)
        for variant, gd in learners.items():
            at = context.at(dataset=name, method=objective, part=f"order {name}", L=depth, variant=variant)
            follow(config, at, features, gd, model, how)


def mini_batches(config: Config, context: Context) -> None:
    """The same starts with fresh mini-batches at every step and without, for as long as the first feature takes."""
    features = VIEWS["mixed"]
    for objective in jepa.OBJECTIVES:
        until, dt = config.batch_until / 20 if objective == "MAE" else config.batch_until, config.batch_dt
        how = Simulation(objective, config.eps, dt, until, dt * 2, config.replications)
        model = jepa.DeepLinear.of(objective, BATCH_DEPTH, len(features.lam))
        flow = how.descent(model)
        sampled = with_sampler(flow, jepa.minibatch_sampler(config.batch_size))
        for variant, gd in (("same starts", flow), ("mini-batches", sampled)):
            at = context.at(dataset="mixed", method=objective, part="order mixed", L=BATCH_DEPTH, variant=variant)
            follow(config, at, features, gd, model, how)


def follow(
    config: Config, at: Place, features: jepa.Features, gd: Any, model: jepa.DeepLinear, how: Simulation
) -> None:
    """Records of every start: which feature is learned first, when each is, and where it ends.

    A feature of which the share that counts as learned lies at or below the start cannot be learned and is dropped; a
    start from which none is learned has no first feature and is counted apart.
    """
    rho, targets = (
        np.asarray(features.rho),
        jepa.fixed_point(how.objective, model.depth, np.asarray(features.rho, float)),
    )
    best = {"first has largest rho": int(np.argmax(rho)), "first has largest lambda": int(np.argmax(features.lam))}
    seen = how.seen(gd, model, features.moments())
    times = np.arange(how.looks) * how.stride * how.dt
    dropped = config.share * targets <= how.eps
    at.record("features dropped", dropped.sum(), seed=0)
    for seed, curves in enumerate(seen):
        when = np.where(dropped, np.inf, jepa.learned_at(curves, times, targets, config.share))
        learns, own = bool(np.isfinite(when).any()), at.at(seed=seed)
        own.record("nothing learned", not learns)
        own.record("features learned", np.isfinite(when).sum())
        for feature, t in enumerate(when) if at.place["dataset"] == "mixed" else ():
            ends = abs(curves[-1, feature] / targets[feature] - 1) < NEAR
            own.record_all({"time of a feature": t, "ends at its fixed point": ends}, feature=feature)
        if learns:
            first = int(np.argmin(when))
            own.record_all({metric: first == wanted for metric, wanted in best.items()})
            own.record("first is slow", rho[first] > 0.5)


def rank_correlations(config: Config, context: Context) -> None:
    """Spearman correlation over features of the time to learn with 1/lambda and 1/rho, where nothing commutes.

    A feature is learned when it has passed half of where it ends.
    """
    seeds, dots = range(config.replications), 400
    moments, basis, features = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(masked_views, seeds))
    lam, rho = map(np.asarray, features)
    for depth, objective in itertools.product(config.simulated_depths, jepa.OBJECTIVES):
        model = jepa.DeepLinear.of(objective, depth, lam.shape[1])
        gd = Simulation(objective, config.eps, config.dt, 0, 0, 0).descent(model)
        every = max(1, beyond(config, objective) // dots)
        seen = jepa.norms_over_time(gd, model, moments, seeds, dots, every, basis)
        passed = seen > 0.5 * np.maximum(seen[:, -1:], seen[:, :1] * 1.5)
        when = np.where(passed.any(axis=1), passed.argmax(axis=1), dots)
        for seed, usable in enumerate(lam > 0.02 * lam.max(axis=1, keepdims=True)):
            if np.ptp(when[seed, usable]) > 0:
                at = context.at(dataset="masked", method=objective, seed=seed, part="ranks", L=depth)
                for name, order in (("lambda", 1 / lam), ("rho", 1 / rho)):
                    at.record(f"rank with 1/{name}", stats.rank_correlation(when[seed, usable], order[seed, usable]))


def masked_views(seed: int) -> tuple[jepa.Moments, jax.Array, jepa.Features]:
    """Moments with largest covariance 1, their principal directions, and lambda and rho of each before the scaling."""
    moments = jepa.masked_moments(jax.random.key(1000 + seed), 6, 3)
    basis, features = jepa.principal_directions(moments)
    largest = features.lam.max()
    return jepa.Moments(moments.xx / largest, moments.xy / largest), basis, features


def bottleneck(config: Config, context: Context) -> None:
    """The share of slow features among those that an encoder of half the width keeps."""
    features = VIEWS["dynamic"]
    slow = np.asarray(features.rho) > 0.5
    for depth, objective in itertools.product(config.simulated_depths, jepa.OBJECTIVES):
        model, until = jepa.DeepLinear.of(objective, depth, 4, width=2), beyond(config, objective) * config.dt
        how = Simulation(objective, config.eps, config.dt, until, until / 100, config.replications)
        at = context.at(dataset="dynamic", method=objective, part="bottleneck", L=depth)
        for seed, curves in enumerate(how.seen(how.descent(model), model, features.moments())):
            kept = curves[-1] ** 2
            at.record("slow share kept", kept[slow].sum() / kept.sum(), seed=seed)


def beyond(config: Config, objective: jepa.Objective) -> int:
    """Steps of the simulations beyond the solvable case: masked views and bottlenecks."""
    return round((config.until / 2 if objective == "JEPA" else config.until_mae / 4) / config.dt)


PARTS = {
    **{f"order {name}": functools.partial(order_of_learning, name=name) for name in VIEWS},
    "mini-batches": mini_batches,
    "ranks": rank_correlations,
    "bottleneck": bottleneck,
}
