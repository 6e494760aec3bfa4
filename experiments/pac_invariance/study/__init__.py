"""What is measured for ``pac_invariance``."""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import pac_invariance as pac
from causal.linear_sems import draw_moments, environments, hard, moments_of, rademacher, soft
from core.datasets import sachs
from core.learner import seed_keys
from experiments.lab.system import Context
from experiments.pac_invariance.config import PANELS, Config
from experiments.pac_invariance.study import tasks


def run(config: Config, context: Context) -> None:
    """All parts; each is a cell which a rerun skips."""
    parts: dict[str, Callable[[Config, Context], None]] = {
        **{f"study, N = {n}": functools.partial(replication, n=n) for n in config.samples},
        "radius": radius_sweep,
        "intercept": intercept,
        "cost": cost,
        "bound": bound,
        "trends": trends,
        **{f"methods, d = {d}": functools.partial(methods, d=d) for d in config.compared},
        "indirect": indirect,
        "sachs": cells,
    }
    context.cells({"part": name} for name in parts)
    for name, part in parts.items():
        if not context.done(part=name):
            context.say(f"pac_invariance: {name}")
            with jax.enable_x64(True):
                part(config, context)
            context.finish(part=name)


def families(config: Config) -> dict[str, Any]:
    """The interventions on the SEM of the paper's figure."""
    sem, sites = pac.figure_sem(config.sd), pac.figure_sites()
    return {"hard": hard(sem, sites), "soft": soft(sem, sites), "rademacher": rademacher(sem, pac.TARGET)}


@functools.cache
def whole_study(config: Config):
    """The paper's experiment, all sizes and panels, as one compiled program of (key, N, radius)."""
    return jax.jit(pac.study(families(config), PANELS, config.sizes, pac.TARGET, pac.feature_masks(7, pac.TARGET)))


def repeated(config: Config, n: float, radius: float) -> pac.Outcome:
    """Independent repeats, stacked."""
    found = [whole_study(config)(key, float(n), radius) for key in seed_keys(range(config.repeats))]
    return jax.tree.map(lambda *leaves: np.stack(jax.device_get(leaves)), *found)


def replication(config: Config, context: Context, n: int) -> None:
    """The paper's experiment: how many subsets are accepted, and how they generalize, by m."""
    found = repeated(config, n, config.radius)
    part = {"part": f"study, N = {n}", "N": n}
    for panel in PANELS:
        name = " + ".join(panel)
        accepted, share, erm = found.accepted[panel], 100 * found.generalization[panel], 100 * found.erm[panel]
        for i, m in enumerate(config.sizes):
            place = {**part, "m": m}
            for repeat in range(config.repeats):
                good = share[repeat, i][accepted[repeat, i]]
                measured = {"accepted sets": len(good), "median generalization %": median(good)}
                for metric, value in measured.items():
                    note(context, name, "subsets", metric, repeat, value, place)
                note(context, name, "ERM", "median generalization %", repeat, erm[repeat, i], place)
                if m == max(config.sizes):
                    for metric, value in measured.items():
                        note(context, f"{name}, N = {n:,}", "subsets", metric, repeat, value, {})
                    note(context, f"{name}, N = {n:,}", "ERM", "median generalization %", repeat, erm[repeat, i], {})
            together = share[:, i][accepted[:, i]]
            for q in (5, 25, 50, 75, 95):
                value = np.percentile(together, q) if together.size else np.nan
                note(context, name, "subsets", f"generalization {q} %", 0, value, place)
        per_set(config, context, name, accepted, share, part)


def per_set(config: Config, context: Context, name: str, accepted, share, part: dict[str, Any]) -> None:
    """Every subset that was ever accepted, at one number of environments."""
    m = 11 if 11 in config.sizes else max(config.sizes)
    i = config.sizes.index(m)
    for j, mask in enumerate(np.asarray(pac.feature_masks(7, pac.TARGET))):
        for repeat in np.flatnonzero(accepted[:, i, j]):
            place = {**part, "m": m, "set": spelled(mask)}
            note(context, name, "subsets", "generalization of a set %", int(repeat), share[repeat, i, j], place)


def radius_sweep(config: Config, context: Context) -> None:
    """The same at the largest N by radius."""
    n, m = max(config.samples), len(config.sizes) - 1
    for radius in config.radii:
        found = repeated(config, n, radius)
        for panel in PANELS:
            place = {"part": "radius", "radius": radius, "N": n, "m": config.sizes[m]}
            for repeat in range(config.repeats):
                good = found.accepted[panel][repeat, m]
                share = 100 * found.generalization[panel][repeat, m][good]
                note(context, " + ".join(panel), "subsets", "accepted by radius", repeat, good.sum(), place)
                note(context, " + ".join(panel), "subsets", "generalization by radius %", repeat, median(share), place)


def intercept(config: Config, context: Context) -> None:
    """Hard interventions with and without an intercept, up to an N at which the latter does without."""
    masks = pac.feature_masks(7, pac.TARGET)
    small = [j for j, mask in enumerate(np.asarray(masks)) if set(np.flatnonzero(mask)) <= {0, 1}]

    def accepted(key, n, centred):
        view = lambda m: jnp.where(centred, m.covariance, m.second)  # noqa: E731
        one = pac.study(families(config), PANELS[:1], (11,), pac.TARGET, masks, fresh=1, view=view)
        return one(key, n, config.radius).accepted[PANELS[0]][0]

    many = jax.jit(jax.vmap(accepted, in_axes=(0, None, None)))
    for n, centred in itertools.product((max(config.samples), 100_000_000), (False, True)):
        found = many(seed_keys(range(config.repeats)), float(n), centred)
        for repeat, j in np.ndindex(config.repeats, len(small)):
            place = {"part": "intercept", "N": n, "set": spelled(masks[small[j]]), "m": 11}
            method = "with intercept" if centred else "without intercept"
            note(context, "hard", method, "accepted", repeat, found[repeat, small[j]], place)


def cost(config: Config, context: Context) -> None:
    """Seconds of the whole experiment by N, in turn, and of environments by their number."""
    study, key = whole_study(config), jax.random.key(0)
    for trial, n in itertools.product(range(8), config.timed):
        wall, processor = timed(lambda n=n: study(key, float(n), config.radius))
        for metric, value in (("seconds", wall), ("CPU seconds", processor)):
            if trial:
                note(context, "figure SEM", "whole experiment", metric, trial, value, {"part": "cost", "N": n})
    family, masks = families(config)["soft"], pac.feature_masks(7, pac.TARGET)

    @jax.jit
    def fare(key, chunks):
        def chunk(i, total):
            M = draw_moments(family, jax.random.fold_in(key, i), 100, 45_000.0).second
            return total + jax.vmap(lambda M: pac.best_on_subsets(M, pac.TARGET, masks))(M).sum()

        return jax.lax.fori_loop(0, chunks, chunk, 0.0)

    for trial, count in itertools.product(range(8), (10_000, 40_000)):
        processor = timed(lambda count=count: fare(key, count // 100))[1]
        if trial:
            place = {"part": "cost", "environments": count}
            note(context, "figure SEM", "environments", "CPU seconds", trial, processor, place)


def timed(fn: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the processors that a call takes."""
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(fn())
    return time.perf_counter() - wall, time.process_time() - processor


def bound(config: Config, context: Context) -> None:
    """How often a subset passes m environments although V > z, beside |H| (1 - z)^m; and the worst V that passes."""
    most, sem = max(config.bound_sizes), pac.figure_sem(config.sd)
    measure = jax.jit(lambda sems: tasks.distances(sem, pac.TARGET, sems))
    for name, family in families(config).items():

        def distances(key, count, family=family):
            draw = jax.jit(lambda keys: jax.vmap(lambda k: environments(family, k, most))(keys))
            chunks = [measure(draw(k)) for k in jax.random.split(key, (count // BLOCK, BLOCK))]
            return np.concatenate([np.asarray(chunk, np.float32) for chunk in chunks])

        pool, repeats = (distances(jax.random.key(i), size) for i, size in enumerate((config.pool, config.repeated)))
        for radius in config.bound_radii:
            V = (pool > radius).mean(axis=(0, 1))
            worst = tasks.worst_that_passes(repeats, V, config.bound_sizes, radius)
            for i, m in enumerate(config.bound_sizes):
                note_bound(context, name, worst[:, i], {"part": "bound", "m": m, "radius": radius})


BLOCK = 20
"""Repeats that are computed in one dispatch."""


def note_bound(context: Context, name: str, worst: Any, place: dict[str, Any]) -> None:
    """Quantiles of the worst V that passes, and how often it is above z."""
    for q in (50, 95):
        note(context, name, "reference", f"worst V that passes, {q} %", 0, np.percentile(worst, q), place)
    for z in (0.1, 0.3, 0.5):
        where = {**place, "z": z, "repeats": len(worst), "bound": pac.finite_class(63, place["m"], z)}
        note(context, name, "reference", "times a subset passes with V > z", 0, (worst > z).sum(), where)


def trends(config: Config, context: Context) -> None:
    """Random SEMs: generalization by N at m = 10, false acceptances by m at N = 30,000, both by number of sites."""
    most = max(*config.trend_sizes, 10)
    points = [({"along": "N", "sites": 3, "m": 10}, n) for n in config.trend_samples]
    points += [({"along": "m", "sites": 3, "m": m}, 30_000) for m in config.trend_sizes]
    points += [({"along": "sites", "sites": sites, "m": 10}, 30_000) for sites in config.sites]
    ms, sites = (jnp.asarray([place[name] for place, _ in points], float) for name in ("m", "sites"))
    ns = jnp.asarray([n for _, n in points], float)

    def one(key):
        task_key, key = jax.random.split(key)

        def at(key, m, n, sites):
            return tasks.trend(tasks.random_task(task_key, config.d, sites), config.trend_radius, most)(key, m, n)

        return jax.lax.map(lambda point: at(*point), (jax.random.split(key, len(points)), ms, ns, sites))

    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(one, keys))(seed_keys(range(config.trend_dags))))
    for dag, (i, (place, n)) in itertools.product(range(config.trend_dags), enumerate(points)):
        where = {"part": "trends", **place, "N": n, "d": config.d}
        for metric, values in zip(("accepted", "falsely accepted", "generalization", "worst V"), found, strict=True):
            note(context, "random SEMs", "subsets", metric, dag, values[dag, i], where)


def methods(config: Config, context: Context, d: int) -> None:
    """Every method on the same random SEMs, tested on new interventions."""
    compare = tasks.comparison(d, 10, 10_000.0, config.trend_radius, config.penalty, config.irm_steps)
    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(compare, keys))(seed_keys(range(config.dags))))
    for (i, family), dag in itertools.product(enumerate(tasks.COMPARED), range(config.dags)):
        for method, (mean, worst) in found.items():
            at = f"random SEMs, d = {d}, {family}"
            note(context, at, method, "log mean error", dag, np.log(mean[dag, i]), {})
            note(context, at, method, "log worst error", dag, np.log(worst[dag, i]), {})


def indirect(config: Config, context: Context) -> None:
    """Spread of the coefficients of {1, 3} read off noisy mixtures of all features."""
    mask = jnp.isin(jnp.arange(7), jnp.asarray([1, 3]))
    spread = tasks.noisy_mixing(pac.figure_sem(config.sd), families(config)["soft"], pac.TARGET, mask, 9, 200)
    found = jax.jit(jax.vmap(spread, in_axes=(0, None)))(seed_keys(range(config.mixings)), jnp.asarray(config.noise))
    for seed, i in np.ndindex(*found.shape):
        place = {"part": "indirect", "noise": config.noise[i]}
        note(context, "noisy mixtures", "{1, 3}", "relative spread", seed, found[seed, i], place)


def cells(config: Config, context: Context) -> None:
    """Sachs' cells: for every protein, what ICP and the least spread find, beside the consensus graph."""
    if sachs.locate(context.data_dir) is None:
        context.say("pac_invariance: sachs_interventions is not in the data directory; left out")
        return
    table = sachs.load(context.data_dir)
    x = np.log(table.intensities)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    member = jnp.asarray(table.condition == np.arange(len(table.conditions))[:, None], float)
    find = jax.jit(functools.partial(tasks.survivors, alpha=config.alpha))
    for target, protein in enumerate(table.proteins):
        order = np.append(np.delete(np.arange(len(table.proteins)), target), target)
        moments = jax.vmap(moments_of, in_axes=(None, 0))(jnp.asarray(x[:, order]), member)
        parents = table.consensus[target]
        for method, chosen in find(moments).items():
            members = np.zeros(len(order), bool)
            members[order] = np.asarray(chosen)
            place = {"part": "sachs", "protein": protein, "set": ", ".join(np.array(table.proteins)[members])}
            note(context, "sachs", method, "chosen", 0, members.sum(), place)
            note(context, "sachs", method, "chosen in the consensus", 0, (members & parents).sum(), place)
            note(context, "sachs", method, "consensus parents", 0, parents.sum(), place)


def spelled(mask) -> str:
    """A subset in words."""
    return "{" + ", ".join(map(str, np.flatnonzero(np.asarray(mask)))) + "}"


def median(numbers: Any) -> float:
    """The median; NaN of nothing."""
    return float(np.median(numbers)) if len(numbers) else float("nan")


def note(
    context: Context, dataset: str, method: str, metric: str, seed: int, value: Any, place: dict[str, Any]
) -> None:
    """A record."""
    context.record(dataset=dataset, method=method, metric=metric, seed=seed, value=float(value), **place)
