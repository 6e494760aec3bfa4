"""What is measured for ``pac_invariance``: the paper's experiment, its bound, random SEMs, and Sachs' cells."""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal import pac_invariance as pac
from causal.linear_sems import draw_moments, moments_of, population, random_sem
from core.datasets import sachs
from core.learner import seed_keys
from experiments.lab import Context, Place
from experiments.pac_invariance.config import MEDIAN, PANELS, Config

FEATURES = (8, 10)
"""Numbers p of features for which the cost of 2^p - 1 subsets is measured."""


def double(measure: Callable[[Config, Context], None]) -> Callable[[Config, Context], None]:
    """Measures in double precision: Gram matrices square the condition number."""

    def measured(config: Config, context: Context) -> None:
        with jax.enable_x64(True):
            measure(config, context)

    return measured


@functools.cache
def program(config: Config):
    """The paper's experiment, all sizes and panels, as one compiled program of (key, N, radius)."""
    return jax.jit(
        pac.study(pac.figure_families(config.sd), PANELS, config.sizes, pac.TARGET, pac.feature_masks(7, pac.TARGET))
    )


def repeated(config: Config, n: float, radius: float) -> pac.Outcome:
    """Independent repeats, stacked along axis 0."""
    found = [program(config)(key, float(n), radius) for key in seed_keys(range(config.repeats))]
    return jax.tree.map(lambda *leaves: np.stack(jax.device_get(leaves)), *found)


def replication(config: Config, context: Context, n: int) -> None:
    """The paper's experiment: how many subsets are accepted, and how they generalize, by m."""
    found, at_n = repeated(config, n, config.radius), context.at(part=f"study, N = {n}", N=n)
    for panel in PANELS:
        name = " + ".join(panel)
        accepted, share, erm = found.accepted[panel], 100 * found.generalization[panel], 100 * found.erm[panel]
        for i, m in enumerate(config.sizes):
            at = at_n.at(dataset=name, m=m)
            places = [at, context.at(dataset=f"{name}, N = {n:,}")] if m == max(config.sizes) else [at]
            for place, repeat in itertools.product(places, range(config.repeats)):
                good = share[repeat, i][accepted[repeat, i]]
                place.record_all({"accepted sets": len(good), MEDIAN: median(good)}, method="subsets", seed=repeat)
                place.record(MEDIAN, erm[repeat, i], method="ERM", seed=repeat)
            together = share[:, i][accepted[:, i]]
            for q in (5, 25, 50, 75, 95):
                value = np.percentile(together, q) if together.size else np.nan
                at.record(f"generalization {q} %", value, method="subsets", seed=0)
        per_set(config, at_n.at(dataset=name, method="subsets"), accepted, share)


def per_set(config: Config, at: Place, accepted, share) -> None:
    """Every subset that was ever accepted, at one number of environments."""
    m = 11 if 11 in config.sizes else max(config.sizes)
    i = config.sizes.index(m)
    for j, mask in enumerate(np.asarray(pac.feature_masks(7, pac.TARGET))):
        for repeat in np.flatnonzero(accepted[:, i, j]):
            at.record("generalization of a set %", share[repeat, i, j], seed=int(repeat), m=m, set=spelled(mask))


def radius_sweep(config: Config, context: Context) -> None:
    """The same at the largest N by radius."""
    n, m = max(config.samples), len(config.sizes) - 1
    for radius in config.radii:
        found = repeated(config, n, radius)
        for panel, repeat in itertools.product(PANELS, range(config.repeats)):
            good = found.accepted[panel][repeat, m]
            share = 100 * found.generalization[panel][repeat, m][good]
            at = context.at(dataset=" + ".join(panel), method="subsets", seed=repeat, part="radius", N=n)
            measured = {"accepted by radius": good.sum(), "generalization by radius %": median(share)}
            at.record_all(measured, radius=radius, m=config.sizes[m])


def intercept(config: Config, context: Context) -> None:
    """Hard interventions with and without an intercept, up to an N at which the latter does without."""
    masks = pac.feature_masks(7, pac.TARGET)
    small = [j for j, mask in enumerate(np.asarray(masks)) if set(np.flatnonzero(mask)) <= {0, 1}]

    def accepted(key, n, centred):
        view = lambda m: jnp.where(centred, m.covariance, m.second)  # noqa: E731
        one = pac.study(pac.figure_families(config.sd), PANELS[:1], (11,), pac.TARGET, masks, fresh=1, view=view)
        return one(key, n, config.radius).accepted[PANELS[0]][0]

    many = jax.jit(jax.vmap(accepted, in_axes=(0, None, None)))
    for n, centred in itertools.product((max(config.samples), 100_000_000), (False, True)):
        found = many(seed_keys(range(config.repeats)), float(n), centred)
        at = context.at(dataset="hard", method="with intercept" if centred else "without intercept")
        for repeat, j in np.ndindex(config.repeats, len(small)):
            place = {"part": "intercept", "N": n, "set": spelled(masks[small[j]]), "m": 11}
            at.record("accepted", found[repeat, small[j]], seed=repeat, **place)


def cost(config: Config, context: Context) -> None:
    """Seconds of the whole experiment by N, of environments and of subsets by their number."""
    study, key, at = program(config), jax.random.key(0), context.at(part="cost", dataset="figure SEM")
    calls = {n: functools.partial(study, key, float(n), config.radius) for n in config.timed}
    in_turn(calls, at.at(method="whole experiment"), "N", ("seconds", "CPU seconds"))
    family, masks = pac.figure_families(config.sd)["soft"], pac.feature_masks(7, pac.TARGET)

    @jax.jit
    def fare(key, chunks):
        def chunk(i, total):
            M = draw_moments(family, jax.random.fold_in(key, i), 100, 45_000.0).second
            return total + jax.vmap(lambda M: pac.best_on_subsets(M, pac.TARGET, masks))(M).sum()

        return jax.lax.fori_loop(0, chunks, chunk, 0.0)

    calls = {count: functools.partial(fare, key, count // 100) for count in (10_000, 40_000)}
    in_turn(calls, at.at(method="environments"), "environments")
    d = max(FEATURES) + 1
    M, masks = population(random_sem(key, d)).second * jnp.ones((20, 1, 1)), pac.feature_masks(d, d - 1)
    solve = jax.jit(lambda M, masks: jax.vmap(lambda M: pac.best_on_subsets(M, d - 1, masks))(M).sum())
    calls = {p: functools.partial(solve, M, masks[: 2**p - 1]) for p in FEATURES}
    in_turn(calls, at.at(dataset="random SEM", method="subsets"), "features")


def in_turn(calls: dict[int, Callable[[], Any]], at: Place, along: str, metrics=("CPU seconds",)) -> None:
    """What calls take of the clock and of processors, by a number: eight rounds, the first of which does not count."""
    for trial, (number, call) in itertools.product(range(8), calls.items()):
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        taken = {"seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - processor}
        for metric in metrics if trial else ():
            at.record(metric, taken[metric], seed=trial, **{along: number})


def bound(config: Config, context: Context) -> None:
    """How often a subset passes m environments although V > z, beside |H| (1 - z)^m; and the worst V that passes."""
    most, sem = max(config.bound_sizes), pac.figure_sem(config.sd)
    for name, family in pac.figure_families(config.sd).items():
        distances = pac.repeated_distances(family, sem, pac.TARGET, most)
        pool, repeats = (distances(jax.random.key(i), size) for i, size in enumerate((config.pool, config.repeated)))
        for radius in config.bound_radii:
            V = (pool > radius).mean(axis=(0, 1))
            worst = pac.worst_that_passes(repeats, V, config.bound_sizes, radius)
            for (i, m), z in itertools.product(enumerate(config.bound_sizes), (0.1, 0.3, 0.5)):
                at = context.at(dataset=name, method="reference", seed=0, part="bound", m=m, radius=radius)
                place = {"z": z, "repeats": len(worst), "bound": pac.finite_class(63, m, z)}
                at.record("times a subset passes with V > z", (worst[:, i] > z).sum(), **place)
                if z == 0.1:
                    for q in (50, 95):
                        at.record(f"worst V that passes, {q} %", np.percentile(worst[:, i], q))


def trends(config: Config, context: Context) -> None:
    """Random SEMs: generalization by N at m = 10, false acceptances by m at N = 30,000, both by number of sites."""
    most = max(*config.trend_sizes, 10)
    points = [({"along": "N", "sites": 3, "m": 10}, n) for n in config.trend_samples]
    points += [({"along": "m", "sites": 3, "m": m}, 30_000) for m in config.trend_sizes]
    points += [({"along": "sites", "sites": sites, "m": 10}, 30_000) for sites in config.sites]
    ms, sites = (jnp.asarray([place[name] for place, _ in points], float) for name in ("m", "sites"))
    along = pac.trends(config.d, config.trend_radius, ms, jnp.asarray([n for _, n in points], float), sites, most)
    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(along, keys))(seed_keys(range(config.trend_dags))))
    for dag, (i, (place, n)) in itertools.product(range(config.trend_dags), enumerate(points)):
        at = context.at(dataset="random SEMs", method="subsets", seed=dag, part="trends", **place, N=n, d=config.d)
        names = ("accepted", "falsely accepted", "generalization", "worst V")
        at.record_all({name: values[dag, i] for name, values in zip(names, found, strict=True)})


def methods(config: Config, context: Context, d: int) -> None:
    """Every method on the same random SEMs, tested on new interventions."""
    compare = pac.comparison(d, 10, 10_000.0, config.trend_radius, config.penalty, config.irm_steps)
    found = jax.device_get(jax.jit(lambda keys: jax.lax.map(compare, keys))(seed_keys(range(config.dags))))
    for (i, family), dag in itertools.product(enumerate(pac.COMPARED), range(config.dags)):
        for method, (mean, worst) in found.items():
            at = context.at(dataset=f"random SEMs, d = {d}, {family}", method=method, seed=dag)
            at.record_all({"log mean error": np.log(mean[dag, i]), "log worst error": np.log(worst[dag, i])})


def indirect(config: Config, context: Context) -> None:
    """Spread of the coefficients of {1, 3} read off noisy mixtures of all features."""
    mask = jnp.isin(jnp.arange(7), jnp.asarray([1, 3]))
    spread = pac.noisy_mixing(
        pac.figure_sem(config.sd), pac.figure_families(config.sd)["soft"], pac.TARGET, mask, 9, 200
    )
    found = jax.jit(jax.vmap(spread, in_axes=(0, None)))(seed_keys(range(config.mixings)), jnp.asarray(config.noise))
    at = context.at(dataset="noisy mixtures", method="{1, 3}", part="indirect")
    for seed, i in np.ndindex(*found.shape):
        at.record("relative spread", found[seed, i], seed=seed, noise=config.noise[i])


def cells(config: Config, context: Context) -> None:
    """Sachs' cells: for every protein, what ICP and the least spread find, beside the consensus graph."""
    if sachs.locate(context.data_dir) is None:
        context.say("pac_invariance: sachs_interventions is not in the data directory; left out")
        return
    table = sachs.load(context.data_dir)
    x = np.log(table.intensities)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    member = jnp.asarray(table.condition == np.arange(len(table.conditions))[:, None], float)
    find = jax.jit(functools.partial(pac.survivors, alpha=config.alpha))
    for target, protein in enumerate(table.proteins):
        order = np.append(np.delete(np.arange(len(table.proteins)), target), target)
        moments = jax.vmap(moments_of, in_axes=(None, 0))(jnp.asarray(x[:, order]), member)
        parents = table.consensus[target]
        for method, chosen in find(moments).items():
            members = np.zeros(len(order), bool)
            members[order] = np.asarray(chosen)
            names = ", ".join(np.array(table.proteins)[members])
            at = context.at(dataset="sachs", method=method, seed=0, part="sachs", protein=protein, set=names)
            hits = {"chosen in the consensus": (members & parents).sum(), "consensus parents": parents.sum()}
            at.record_all({"chosen": members.sum()} | hits)


def spelled(mask) -> str:
    """A subset in words."""
    return "{" + ", ".join(map(str, np.flatnonzero(np.asarray(mask)))) + "}"


def median(numbers: Any) -> float:
    """The median; NaN of nothing."""
    return float(np.median(numbers)) if len(numbers) else float("nan")
