"""What is measured for ``jepa_linear``."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from core.learner import seed_keys, with_sampler
from experiments.jepa_linear.config import Config
from experiments.jepa_linear.study.cost import cost
from experiments.lab.system import Context
from latent.jepa_linear import (
    OBJECTIVES,
    DeepLinear,
    Features,
    Moments,
    Objective,
    aligned,
    critical_time,
    dynamic_features,
    ema_target_learner,
    encoder_norms,
    fixed_point,
    learned_at,
    learner,
    masked_moments,
    minibatch_sampler,
    orthogonal,
    record,
    static_features,
    trajectory,
)

MIXED = Features(jnp.array([1.0, 1.2, 0.6, 0.4]), jnp.array([0.9, 0.4, 0.8, 0.3]))
"""The largest regression coefficient (feature 0) is not the largest covariance (feature 1)."""


SLOW_AND_FAST = dynamic_features(jnp.array([1.0, 0.6, 3.0, 2.0]), jnp.array([0.95, 0.9, 0.4, 0.35]))
"""Slow features of small variance and fast ones of large variance: g gamma is larger for the fast."""


SIGNAL_AND_NOISE = static_features(jnp.array([1.2, 0.9, 0.6, 0.4]), jnp.array([0.6, 0.6, 0.6, 0.6]))
"""One latent, equal noise: covariance and regression coefficient have the same order."""


VIEWS = {"mixed": MIXED, "dynamic": SLOW_AND_FAST, "static": SIGNAL_AND_NOISE}


PAIRS = {
    "dynamic: (1, .9), (2.5, .5)": dynamic_features(jnp.array([1.0, 2.5]), jnp.array([0.9, 0.5])),
    "dynamic: (1, .95), (2, .6)": dynamic_features(jnp.array([1.0, 2.0]), jnp.array([0.95, 0.6])),
    "dynamic: (1, .9), (4, .3)": dynamic_features(jnp.array([1.0, 4.0]), jnp.array([0.9, 0.3])),
    "static: 1, .5": static_features(jnp.array([1.0, 0.5]), jnp.array([0.3, 0.3])),
}
"""A slow and a fast feature, (variance, autocorrelation) each; a strong and a weak one of equal noise."""


PAIR_DEPTHS, PAIR_EPS, PAIR_SHARE = (1, 2, 3, 4, 5), 0.01, 0.5


MOST_SLOW_RUNS, BATCH_DEPTH = 40, 3


CURVES = ((1.0, 0.9), (1.0, 0.4), (0.5, 0.9), (2.0, 0.3))
"""(lambda, rho) of the learning curves."""


def run(config: Config, context: Context) -> None:
    """All parts; each is a cell which a rerun skips."""
    parts: dict[str, Callable[[Config, Context], None]] = {
        "curves": learning_curves,
        "critical times": critical_times,
        "phase diagram": phase_diagram,
        "pairs": pairs_of_features,
        **{f"order {name}": functools.partial(order_of_learning, name=name) for name in VIEWS},
        "mini-batches": mini_batches,
        "ranks": rank_correlations,
        "bottleneck": bottleneck,
    }
    if config.cost_steps:
        parts["cost"] = lambda config, context: cost(context, config.cost_steps)
    context.cells({"part": name} for name in parts)
    for name, part in parts.items():
        if not context.done(part=name):
            context.say(f"jepa_linear: {name}")
            part(config, context)
            context.finish(part=name)


def learning_curves(config: Config, context: Context) -> None:
    """W / w* over time by the ODE and by gradient descent, from an aligned start."""
    eps, dt, until, dots = 0.2, 4e-3, 40.0, 50
    features = Features(jnp.array([lam for lam, _ in CURVES]), jnp.array([rho for _, rho in CURVES]))
    times = np.arange(dots) * until / dots
    for objective in OBJECTIVES:
        for depth in config.depths[:3]:
            model = network(objective, depth, len(CURVES))
            gd = learner(objective, model, optax.sgd(dt), aligned(model, eps))
            seen = observe(gd, model, features.moments(), [0], Simulation(eps, dt, until, until / dots, 1))[0]
            for i, (lam, rho) in enumerate(CURVES):
                target = fixed_point(objective, depth, rho)
                exact = trajectory(objective, depth, lam, rho, eps, times)
                for kind, curve in (("theory", exact), ("gradient descent", seen[:, i])):
                    for t, w in zip(times, curve, strict=True):
                        place = {"part": "curves", "L": depth, "lam": lam, "rho": rho, "kind": kind, "t": float(t)}
                        note(context, "aligned", objective, "w/w*", 0, w / target, place)


def critical_times(config: Config, context: Context) -> None:
    """By quadrature, along rho at equal lambda and along lambda at equal rho."""
    lines = [(1.0, rho) for rho in np.linspace(0.2, 0.95, 16)] + [(lam, 0.6) for lam in np.linspace(0.3, 1.5, 13)]
    for objective in OBJECTIVES:
        for depth in config.depths:
            for lam, rho in lines:
                t = critical_time(objective, depth, lam, rho, 1e-3, 0.25)
                place = {"part": "critical times", "L": depth, "lam": float(lam), "rho": float(rho)}
                note(context, "theory", objective, "critical time", 0, t, place)


def phase_diagram(config: Config, context: Context) -> None:
    """log(t_B / t_A) over ratios of lambda and rho, by quadrature and by gradient descent from an aligned start."""
    eps, share, lam, rho = 0.05, 0.25, 1.0, 0.9
    lam_ratios, rho_ratios = np.linspace(0.6, 1.6, config.grid), np.linspace(0.4, 1.0, config.grid)
    b = np.array([(lam * x, rho * y) for x in lam_ratios for y in rho_ratios])
    for objective in OBJECTIVES:
        for depth in config.depths:
            exact = [critical_time(objective, depth, x, y, eps, share) for x, y in ((lam, rho), *b.tolist())]
            longest = 1.2 * max(t for t in exact if np.isfinite(t))
            simulated = descended_times(objective, depth, np.vstack([[lam, rho], b]), eps, share, longest)
            for kind, t in (("theory", exact), ("gradient descent", simulated)):
                for pair, ratio in zip(b, np.log(np.array(t[1:]) / t[0]), strict=True):
                    place = {"part": "phase diagram", "L": depth, "kind": kind}
                    place |= {"lam_ratio": float(pair[0] / lam), "rho_ratio": float(pair[1] / rho)}
                    note(context, "two features", objective, "ln t_B/t_A", 0, ratio, place)


def descended_times(objective, depth, pairs, eps, share, until, dots: int = 500) -> np.ndarray:
    """Critical times of many features at once: aligned features do not interact, each is a 1 x 1 problem."""
    dt = min(0.2 / (depth * (pairs[:, 0] / pairs[:, 1]).max()), until / 500)
    model, dots = network(objective, depth, 1), 500
    gd = learner(objective, model, optax.sgd(dt), aligned(model, eps))
    every = -(-round(until / dt) // dots)

    def single(lam, rho):
        moments = Features(lam[None], rho[None]).moments()
        state = gd.init(jax.random.key(0), moments)
        return record(gd, encoder_norms(model), every * dots, every)(state, moments)[1][:, 0]

    seen = jax.jit(jax.vmap(single))(*(jnp.asarray(column, jnp.float32) for column in pairs.T))
    return learned_at(
        np.asarray(seen).T, np.arange(dots) * every * dt, fixed_point(objective, depth, pairs[:, 1]), share
    )


def pairs_of_features(config: Config, context: Context) -> None:
    """Critical times of two features each, by quadrature and by gradient descent from an aligned start."""
    features = [[float(x) for x in row] for pair in PAIRS.values() for row in zip(pair.lam, pair.rho, strict=True)]
    names = [(name, feature) for name in PAIRS for feature in ("first", "second")]
    for objective in OBJECTIVES:
        for depth in PAIR_DEPTHS:
            exact = [critical_time(objective, depth, lam, rho, PAIR_EPS, PAIR_SHARE) for lam, rho in features]
            longest = 1.1 * max(t for t in exact if np.isfinite(t))
            simulated = descended_times(objective, depth, np.array(features), PAIR_EPS, PAIR_SHARE, longest, dots=4000)
            for kind, times in (("theory", exact), ("gradient descent", simulated)):
                for (name, feature), t in zip(names, times, strict=True):
                    place = {"part": "pairs", "L": depth, "kind": kind, "feature": feature}
                    note(context, name, objective, "critical time of a pair", 0, t, place)


class Simulation(NamedTuple):
    """How a loss is descended from random starts."""

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
    def steps(self) -> int:
        """In all."""
        return max(self.stride, round(self.until / self.dt) // self.stride * self.stride)

    @property
    def times(self) -> np.ndarray:
        """Of the looks."""
        return np.arange(self.steps // self.stride) * self.stride * self.dt


def simulation(config: Config, objective: Objective, name: str) -> Simulation:
    """On the views of a name."""
    is_mae = objective == "MAE"
    every = config.every / 4 if is_mae else config.every
    if name == "mixed":
        until = config.until_mae if is_mae else config.until
        return Simulation(config.eps, config.dt, until, every, config.replications)
    until = config.slow_until / 50 if is_mae else config.slow_until
    starts = min(config.replications, MOST_SLOW_RUNS)
    return Simulation(config.slow_eps, config.dt, until, every if is_mae else 10 * every, starts)


def order_of_learning(config: Config, context: Context, name: str) -> None:
    """What is learned first, and how it ends, from random orthogonal starts."""
    variants = ("population", "averaged target") if name == "mixed" else ("population",)
    for depth in config.simulated_depths:
        for variant in variants:
            for objective in OBJECTIVES if variant != "averaged target" else ("JEPA",):
                plan = simulation(config, objective, name)
                model = network(objective, depth, VIEWS[name].lam.shape[0])
                start, tx = orthogonal(model, plan.eps), optax.sgd(plan.dt)
                gd = (
                    ema_target_learner(model, tx, config.ema_decay, start)
                    if variant == "averaged target"
                    else learner(objective, model, tx, start)
                )
                follow(config, context, name, objective, gd, model, plan, {"L": depth, "variant": variant})


def mini_batches(config: Config, context: Context) -> None:
    """The same starts with fresh mini-batches at every step and without, for as long as the first feature takes."""
    for objective in OBJECTIVES:
        until = config.batch_until / 20 if objective == "MAE" else config.batch_until
        plan = Simulation(config.eps, config.batch_dt, until, config.batch_dt * 2, config.replications)
        model = network(objective, BATCH_DEPTH, MIXED.lam.shape[0])
        flow = learner(objective, model, optax.sgd(plan.dt), orthogonal(model, plan.eps))
        sampled = with_sampler(flow, minibatch_sampler(config.batch_size))
        for variant, gd in (("same starts", flow), ("mini-batches", sampled)):
            follow(config, context, "mixed", objective, gd, model, plan, {"L": BATCH_DEPTH, "variant": variant})


def follow(
    config: Config,
    context: Context,
    name: str,
    objective: Objective,
    gd,
    model: DeepLinear,
    plan: Simulation,
    where: dict[str, Any],
) -> None:
    """Records of every start: which feature is learned first, when each is, and where it ends.

    A feature of which the share that counts as learned lies at or below the start cannot be learned and is dropped; a
    start from which none is learned has no first feature and is counted apart.
    """
    features = VIEWS[name]
    rho, targets = np.asarray(features.rho), fixed_point(objective, where["L"], np.asarray(features.rho, float))
    best = {"first has largest rho": int(np.argmax(rho)), "first has largest lambda": int(np.argmax(features.lam))}
    seen, place = observe(gd, model, features.moments(), range(plan.starts), plan), {"part": f"order {name}", **where}
    dropped = config.share * targets <= plan.eps
    note(context, name, objective, "features dropped", 0, dropped.sum(), place)
    for seed, curves in enumerate(seen):
        when = np.where(dropped, np.inf, learned_at(curves, plan.times, targets, config.share))
        learns = bool(np.isfinite(when).any())
        note(context, name, objective, "nothing learned", seed, not learns, place)
        note(context, name, objective, "features learned", seed, np.isfinite(when).sum(), place)
        for feature, t in enumerate(when) if name == "mixed" else ():
            of = place | {"feature": feature}
            note(context, name, objective, "time of a feature", seed, t, of)
            ends = abs(curves[-1, feature] / targets[feature] - 1) < NEAR
            note(context, name, objective, "ends at its fixed point", seed, ends, of)
        if learns:
            first = int(np.argmin(when))
            for metric, wanted in best.items():
                note(context, name, objective, metric, seed, first == wanted, place)
            note(context, name, objective, "first is slow", seed, rho[first] > 0.5, place)


NEAR = 0.05
"""How near to its fixed point a feature has ended there."""


def rank_correlations(config: Config, context: Context) -> None:
    """Spearman correlation over features of the time to learn with 1/lambda and 1/rho, where nothing commutes."""
    d, seeds = 6, list(range(config.replications))
    views = [scaled_masked_views(seed, d) for seed in seeds]
    for depth in config.simulated_depths:
        for objective in OBJECTIVES:
            passed = passes_half(config, objective, depth, d, views, seeds)
            when_passed = np.where(passed.any(axis=1), passed.argmax(axis=1), passed.shape[1])
            for seed, (_, _, lam, rho), when in zip(seeds, views, when_passed, strict=True):
                usable = lam > 0.02 * lam.max()
                if np.ptp(when[usable]) == 0:
                    continue
                for metric, order in (("rank with 1/lambda", 1 / lam), ("rank with 1/rho", 1 / rho)):
                    ranks = scipy.stats.rankdata(when[usable]), scipy.stats.rankdata(order[usable])
                    value = np.corrcoef(*ranks)[0, 1]
                    note(context, "masked", objective, metric, seed, value, {"part": "ranks", "L": depth})


def scaled_masked_views(seed: int, d: int) -> tuple[Moments, jax.Array, np.ndarray, np.ndarray]:
    """Moments with largest covariance 1, their principal directions, and each direction's lambda and rho."""
    moments = masked_moments(jax.random.key(1000 + seed), d, 3)
    basis, lam, rho = principal_directions(moments)
    scaled = Moments(moments.xx / lam.max(), moments.xy / lam.max())
    return scaled, basis, np.asarray(lam), np.asarray(rho)


def passes_half(config: Config, objective: Objective, depth: int, d: int, views, seeds) -> np.ndarray:
    """[seeds, dots, d]: whether each direction's norm has passed half of where it ends."""
    model, dots = network(objective, depth, d), 400
    every = max(1, beyond(config, objective) // dots)
    gd = learner(objective, model, optax.sgd(config.dt), orthogonal(model, config.eps))

    @jax.jit
    @jax.vmap
    def single(moments, basis, key):
        run = record(gd, encoder_norms(model, basis), every * dots, every)
        seen = run(gd.init(key, moments), moments)[1]
        return seen > 0.5 * jnp.maximum(seen[-1], seen[0] * 1.5)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *((moments, basis) for moments, basis, _, _ in views))
    return np.asarray(single(*stacked, seed_keys(seeds)))


def principal_directions(moments: Moments):
    """Eigenvectors of the cross-covariance with their covariance and regression coefficient."""
    lam, basis = jnp.linalg.eigh((moments.xy + moments.xy.T) / 2)
    variance = jnp.einsum("ik,ij,jk->k", basis, moments.xx, basis)
    return basis, jnp.maximum(lam, 1e-6), jnp.maximum(lam, 1e-6) / variance


def bottleneck(config: Config, context: Context) -> None:
    """The share of slow features among those that an encoder of half the width keeps."""
    features, seeds = SLOW_AND_FAST, range(config.replications)
    slow = np.asarray(features.rho) > 0.5
    for depth in config.simulated_depths:
        for objective in OBJECTIVES:
            model = DeepLinear(4, depth, width=2, reconstructs=objective == "MAE")
            gd = learner(objective, model, optax.sgd(config.dt), orthogonal(model, config.eps))
            until = beyond(config, objective) * config.dt
            plan = Simulation(config.eps, config.dt, until, until / 100, config.replications)
            seen = observe(gd, model, features.moments(), seeds, plan)
            for seed, curves in zip(seeds, seen, strict=True):
                kept = curves[-1] ** 2
                note(context, "dynamic", objective, "slow share kept", seed, kept[slow].sum() / kept.sum(),
                     {"part": "bottleneck", "L": depth})  # fmt: skip


def beyond(config: Config, objective: Objective) -> int:
    """Steps of the simulations beyond the solvable case: masked views and bottlenecks."""
    return round((config.until / 2 if objective == "JEPA" else config.until_mae / 4) / config.dt)


def network(objective: Objective, depth: int, d: int) -> DeepLinear:
    """An encoder of full width with the map that the objective needs."""
    return DeepLinear(d, depth, reconstructs=objective == "MAE")


def observe(gd, model: DeepLinear, moments: Moments, seeds, plan: Simulation) -> np.ndarray:
    """[seeds, looks, d]: encoder norms over time of independent runs, one program."""

    @jax.jit
    @jax.vmap
    def single(key):
        run = record(gd, encoder_norms(model), plan.steps, plan.stride)
        return run(gd.init(key, moments), moments)[1]

    return np.asarray(single(seed_keys(list(seeds))))


def note(
    context: Context, dataset: str, method: str, metric: str, seed: int, value: Any, place: dict[str, Any]
) -> None:
    """A record; infinite times are noted as such."""
    context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **place)
